"""The conversation template as Jinja, in the dialect that transformers and the engines share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlmc.text.template import Template

# One line: the engines' environments trim line ends after blocks. Contents are a text, or a list
# of texts and images, over which the loop must run as written for the engines to find it.
_JINJA = (
    "{%- set ns = namespace(text='', system=SYSTEM) -%}"
    "{{- BEGIN -}}"
    "{%- for message in messages -%}"
    "{%- set ns.text = '' -%}"
    "{%- if message['content'] is string -%}"
    "{%- set ns.text = message['content'] -%}"
    "{%- else -%}"
    "{%- for content in message['content'] -%}"
    "{%- if content['type'] == 'image' -%}{%- set ns.text = ns.text + IMAGE -%}"
    "{%- elif content['type'] == 'text' -%}{%- set ns.text = ns.text + content['text'] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- if loop.first -%}"
    "{%- if message['role'] == 'system' -%}{%- set ns.system = ns.text -%}{%- endif -%}"
    "{{- PREFIX + ns.system + SEPARATOR -}}"
    "{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{- USER + ns.text -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- ASSISTANT + ns.text -}}"
    "{%- endif -%}"
    "{%- if message['role'] != 'system' and ns.text -%}{{- SEPARATOR -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- ASSISTANT -}}{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template in an engine, where a prompt begins with `begin` and `image` marks an image."""

    template: Template
    system_message: str
    begin: str
    image: str

    def jinja(self) -> str:
        """The text of `chat_template.jinja`."""
        values = {
            "SYSTEM": self.system_message,
            "BEGIN": self.begin,
            "PREFIX": self.template.system_prefix,
            "USER": self.template.user,
            "ASSISTANT": self.template.assistant,
            "SEPARATOR": self.template.separator,
            "IMAGE": f"{self.image}\n",
        }
        return re.sub(
            r"\b[A-Z]{4,}\b",
            lambda name: json.dumps(values[name[0]], ensure_ascii=False),
            _JINJA,
        )

    def render(self, history: Sequence[tuple[str, str]], question: str) -> str:
        """What the Jinja makes of a conversation of texts."""
        return self.begin + self.template.render(self.system_message, history, question)
