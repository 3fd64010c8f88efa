"""Prompts: placeholders, refusals, and runs of image tokens against tokenizing the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.text.kinds import KINDS, TEMPLATE_NAMES, edited, tokenizer
from vlmc.errors import PromptError, TokenizerError
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import load_tokenizer

FRAGMENTS = (
    *("<image>", " ", "\n", "  \n", "hello", "你好", "▁", "\u0338", "e\u0301", "\x00", "<", ">"),
    *("<img>", "</img>", "<|im_end|>", "<|user|>", "<|end|>", "</s>", "<IMG_", "CONTEXT>", "g>"),
)
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=8).map("".join)
texts = texts.filter(lambda text: "<IMG_CONTEXT>" not in text)


def builder(kind: str, tokens_per_tile: int = 3) -> PromptBuilder:
    template = TEMPLATES[TEMPLATE_NAMES[kind]]
    return PromptBuilder(tokenizer(kind), template, tokens_per_tile=tokens_per_tile)


@pytest.mark.parametrize("kind", KINDS)
@given(
    question=texts,
    history=st.lists(st.tuples(texts, texts), max_size=2),
    counts=st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
@example(question="<image>\u0338x", history=[], counts=[2] * 12)
@example(question="\u0338<image> \n<image>", history=[("<image>", "<image>")], counts=[1] * 12)
def test_runs_equal_tokenizing_the_whole_string(
    kind: str, question: str, history: list[tuple[str, str]], counts: list[int]
) -> None:
    turns = [*history, (question, "")]
    images = sum(text.count("<image>") for turn in turns for text in turn)
    prompt = builder(kind).build(question, [*counts, *[2] * images][:images], history)
    assert list(prompt.ids) == tokenizer(kind).encode(prompt.text)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_one_run_between_its_tags(kind: str) -> None:
    prompt = builder(kind, tokens_per_tile=256).build("Is it red?", [13])
    start, end = (tokenizer(kind).token_id(token) for token in ("<img>", "</img>"))
    place = prompt.ids.index(start)
    run = prompt.ids[place + 1 : place + 1 + 3328]
    assert set(run) == {prompt.image_token_id}
    assert prompt.ids[place + 1 + 3328] == end
    assert prompt.ids.count(prompt.image_token_id) == 3328
    assert f"\n<img>{'<IMG_CONTEXT>' * 3328}</img>\nIs it red?" in prompt.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", ["yes", "91", "不是", "a hard hat"])
def test_a_choice_has_the_ids_of_an_answer(kind: str, choice: str) -> None:
    """Not those of a text of its own, which some tokenizers begin with a space."""
    made = builder(kind)
    prompt = made.build("Is it red?", [1])
    whole = tokenizer(kind).encode(prompt.text + choice)
    assert [*prompt.ids, *made.choice_ids(choice)] == whole


def test_images_without_a_placeholder_share_one() -> None:
    prompt = builder("qwen2").build("Compare.", [2, 1, 4])
    assert f"user\n<img>{'<IMG_CONTEXT>' * 21}</img>\nCompare.<|im_end|>" in prompt.text


def test_images_of_history_come_first() -> None:
    prompt = builder("internlm2").build("And <image>?", [1, 2], [("<image>\nWhat?", "A cat")])
    first, second = prompt.text.split("<img>")[1:]
    assert first.startswith("<IMG_CONTEXT>" * 3 + "</img>\nWhat?<|im_end|>")
    assert second.startswith("<IMG_CONTEXT>" * 6 + "</img>?<|im_end|>")


def test_the_system_message_can_be_replaced() -> None:
    prompt = PromptBuilder(tokenizer("qwen2"), TEMPLATES["Hermes-2"], "Be {brief}.").build("Q", [])
    assert prompt.text.startswith("<|im_start|>system\nBe {brief}.<|im_end|><|im_start|>user\nQ")


@pytest.mark.parametrize(
    ("question", "tiles", "history", "message"),
    [
        ("<image> and <image>", [1], (), r"2 <image> placeholder\(s\) but 1 image\(s\)"),
        ("<image>", [1, 1], (), r"1 <image> placeholder\(s\) but 2 image\(s\)"),
        ("<image>", [], (), r"1 <image> placeholder\(s\) but 0 image\(s\)"),
        ("What?", [1], [("Hello", "Hi")], r"0 <image> placeholder\(s\) but 1 image\(s\)"),
        ("a <IMG_CONTEXT> b", [1], (), "marks image features"),
        ("<IMG_CONTEXT>", [], (), "marks image features"),
        ("<image>", [0], (), "an image has 0 tiles"),
        ("broken \ud83d half", [], (), "surrogate"),
    ],
)
def test_refusals(
    question: str, tiles: list[int], history: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        builder("internlm2").build(question, tiles, history)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_end_at_the_separator(kind: str) -> None:
    prompts = builder(kind)
    answer = tokenizer(kind).encode(" Yes, it is. ")
    assert prompts.answer_text([*answer, prompts.stop_id]) == "Yes, it is."
    assert prompts.answer_text([prompts.stop_id]) == ""
    assert prompts.answer_text([]) == ""


def test_a_separator_that_decoding_keeps_cuts_what_follows() -> None:
    prompts = builder("phi3")
    assert prompts.stop_id not in tokenizer("phi3").special_ids
    answer = tokenizer("phi3").encode("Yes")
    assert prompts.answer_text([*answer, prompts.stop_id, *answer]) == "Yes"


def test_a_template_of_another_model_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"no token '<\|end\|>'.*did you mean '<\|im_end\|>'"):
        PromptBuilder(tokenizer("qwen2"), TEMPLATES["phi3-chat"])


def test_a_stop_token_that_text_is_not_split_on_is_refused(tmp_path: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        del config["added_tokens_decoder"]["7"]
        config["eos_token"] = "<|endoftext|>"

    folder = edited("yi", tmp_path, edit)
    with pytest.raises(TokenizerError, match="as a single token"):
        PromptBuilder(load_tokenizer(folder), TEMPLATES["Hermes-2"])
