"""The templates' strings; their source is the reference, not the code under test."""

from __future__ import annotations

import pytest

from vlmc.text.template import TEMPLATES

SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
SYSTEM_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。"
)
CHAT = f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\nQ<|im_end|><|im_start|>assistant\n"
EXPECTED = {
    "internlm2-chat": CHAT,
    "Hermes-2": CHAT,
    "phi3-chat": f"<|system|>\n{SYSTEM}<|end|><|user|>\nQ<|end|><|assistant|>\n",
    "internvl2_5": (
        f"<|im_start|>system\n{SYSTEM_2_5}<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_single_turn(name: str) -> None:
    template = TEMPLATES[name]
    assert template.name == name
    assert template.render(template.system_message, (), "Q") == EXPECTED[name]


def test_all_templates_are_checked() -> None:
    assert TEMPLATES.keys() == EXPECTED.keys()


def test_history_and_empty_texts() -> None:
    template = TEMPLATES["internlm2-chat"]
    assert template.render("S", [("a", "b"), ("", "")], "") == (
        "<|im_start|>system\nS<|im_end|>"
        "<|im_start|>user\na<|im_end|><|im_start|>assistant\nb<|im_end|>"
        "<|im_start|>user\n<|im_start|>assistant\n"
        "<|im_start|>user\n<|im_start|>assistant\n"
    )
