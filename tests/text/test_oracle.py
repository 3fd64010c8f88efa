"""Tokenizers and prompts against what the original implementation made."""

from __future__ import annotations

import hashlib

import pytest

from tests import oracle
from tests.text.kinds import KINDS, TEMPLATE_NAMES, tokenizer
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES

MINIATURES = {
    "internlm2-300m": "internlm2",
    "qwen2-300m": "qwen2",
    "phi3-300m": "phi3",
    "llama-yi-6b": "yi",
    "llama-llama3-6b": "llama3",
}


@pytest.mark.parametrize("kind", KINDS)
def test_encodes_as_the_original(kind: str) -> None:
    for case in oracle.encodings(kind):
        assert tokenizer(kind).encode(case.text) == case.ids, case.text


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_as_the_original(kind: str) -> None:
    cases = [(case.ids, case.decoded) for case in oracle.encodings(kind)]
    cases += [(case.ids, case.decoded) for case in oracle.decodings(kind)]
    for ids, decoded in cases:
        assert tokenizer(kind).decode(ids) == decoded, ids


@pytest.mark.parametrize("miniature", MINIATURES)
def test_prompts_and_answers_are_those_of_chat(miniature: str) -> None:
    kind = MINIATURES[miniature]
    builder = PromptBuilder(tokenizer(kind), TEMPLATES[TEMPLATE_NAMES[kind]])
    cases = oracle.chats(miniature)
    assert len(cases) >= 7
    for case in cases:
        # Joined images come as several here, which share the one placeholder all the same.
        tiles = [1] * sum(case.tiles) if case.joined else case.tiles
        prompt = builder.build(case.question, tiles, case.history)
        assert list(prompt.ids) == case.ids, case.case
        digest = hashlib.sha256(prompt.text.encode("utf-8")).hexdigest()
        assert digest == case.prompt_sha256, case.case
        assert prompt.ids.count(prompt.image_token_id) == 256 * sum(tiles)
        assert builder.answer_text(case.new_ids) == case.answer, case.case


def test_stop_tokens_of_answers_are_the_builders() -> None:
    for miniature, kind in MINIATURES.items():
        builder = PromptBuilder(tokenizer(kind), TEMPLATES[TEMPLATE_NAMES[kind]])
        stopped = [case for case in oracle.chats(miniature) if case.case == "stop"]
        assert all(case.new_ids[-1] == builder.stop_id for case in stopped)
