"""The conversation templates of InternVL2, 2.5 and 3, character for character.

Source: `conversation.py` of the original. A prompt is `system_prefix + system message +
separator`, then for each message `role + text + separator`, then the assistant's role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MESSAGE_2_0 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_MESSAGE_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及"
    "多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True, slots=True)
class Template:
    """How a conversation becomes one string. `user` and `assistant` are the role prefixes."""

    name: str
    system_prefix: str
    user: str
    assistant: str
    separator: str
    system_message: str

    def render(self, system_message: str, history: Sequence[tuple[str, str]], question: str) -> str:
        """The string whose continuation is the answer; `history` holds (question, answer).

        As in the original, an empty text leaves its role without a separator.
        """
        text = self.system_prefix + system_message + self.separator
        for old_question, old_answer in history:
            text += self._message(self.user, old_question)
            text += self._message(self.assistant, old_answer)
        return text + self._message(self.user, question) + self.assistant

    def _message(self, role: str, text: str) -> str:
        return role + text + self.separator if text else role


def _chat_template(name: str, separator: str, system_message: str) -> Template:
    return Template(
        name=name,
        system_prefix="<|im_start|>system\n",
        user="<|im_start|>user\n",
        assistant="<|im_start|>assistant\n",
        separator=separator,
        system_message=system_message,
    )


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        _chat_template("internlm2-chat", "<|im_end|>", _MESSAGE_2_0),
        _chat_template("Hermes-2", "<|im_end|>", _MESSAGE_2_0),
        Template(
            name="phi3-chat",
            system_prefix="<|system|>\n",
            user="<|user|>\n",
            assistant="<|assistant|>\n",
            separator="<|end|>",
            system_message=_MESSAGE_2_0,
        ),
        _chat_template("internvl2_5", "<|im_end|>\n", _MESSAGE_2_5),
    )
}
