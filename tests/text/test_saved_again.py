"""Tokenizers that transformers 5 saved again give the ids of the original, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import oracle
from tests.saved_again import put_tokenizer
from tests.text.kinds import edited
from vlmc.errors import TokenizerError
from vlmc.text.tokenizer import load_tokenizer

# Kind, and whether the original tokenizer.model lies beside what was saved.
READ = [
    *(("internlm2", True), ("internlm2-fast", False), ("qwen2", False), ("phi3", False)),
    *(("phi3", True), ("yi", True), ("llama3", False)),
]
# The names of pieces that added tokens take the place of; a converted file has only the latter.
RENAMED = ("[UNUSED_TOKEN_145]", "x[UNUSED_TOKEN_146]user\n[UNUSED_TOKEN_7]")


@pytest.mark.parametrize(("kind", "pieces"), READ)
def test_ids_and_texts_are_those_of_the_original(kind: str, pieces: bool, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(put_tokenizer(kind, tmp_path, pieces=pieces))
    original = kind.removesuffix("-fast")
    cases = oracle.encodings(original)
    assert len(cases) == 79
    for case in cases:
        if original == kind or case.text not in RENAMED:
            assert tokenizer.encode(case.text) == case.ids, case.text
        assert tokenizer.decode(case.ids) == case.decoded, case.ids
    for random in oracle.decodings(original):
        assert tokenizer.decode(random.ids) == random.decoded, random.ids


def test_a_prefix_that_cannot_be_decided_is_refused_with_both_readings(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"add a space .*tokenizer\.model may not.*Copy token"):
        load_tokenizer(put_tokenizer("yi", tmp_path))


def change(folder: Path, name: str, dotted: str, value: Any) -> Path:
    """Set a dotted key of a JSON file; a value of `...` removes it."""
    path = folder / name
    values = json.loads(path.read_text(encoding="utf-8"))
    *parents, key = dotted.split(".")
    part = values
    for parent in parents:
        part = part[int(parent) if isinstance(part, list) else parent]
    if value is ...:
        del part[key]
    else:
        part[key] = value
    path.write_text(json.dumps(values), encoding="utf-8")
    return folder


JSON, CONFIG = "tokenizer.json", "tokenizer_config.json"
UNDECIDED: list[tuple[str, str, str, Any, str]] = [
    (
        "phi3",
        CONFIG,
        "add_bos_token",
        False,
        "add_bos_token is false, but tokenizer.json says true",
    ),
    ("phi3", CONFIG, "legacy", True, "legacy is true, but tokenizer.json says false"),
    ("phi3", JSON, "pre_tokenizer.split", True, "its pre_tokenizer.split is not one"),
    ("phi3", JSON, "pre_tokenizer.type", "Whitespace", "its pre_tokenizer is not one"),
    ("phi3", JSON, "normalizer", {"type": "NFKC"}, "its normalizer is not one"),
    ("phi3", JSON, "post_processor.single.0.SpecialToken.id", "</s>", "its post_processor puts"),
    ("phi3", JSON, "model.type", "Unigram", "its model is 'Unigram'"),
    ("phi3", JSON, "model.vocab.hel", 9999, "ids of its 581 pieces are not 0 to 580"),
    ("phi3", JSON, "model.merges", [["a", "b", "c"]], "is not a pair of pieces"),
    ("phi3", CONFIG, "unk_token", None, "unk_token is missing"),
    ("phi3", CONFIG, "tokenizer_class", "TokenizersBackend", "the original's class"),
    ("internlm2-fast", JSON, "pre_tokenizer.prepend_scheme", "first", "InternLM2's adds none"),
    ("qwen2", JSON, "normalizer", None, "its normalizer is not one"),
    ("qwen2", JSON, "pre_tokenizer.pretokenizers.0.pattern.Regex", r"\w+", "its pre_tokenizer is"),
    ("qwen2", JSON, "pre_tokenizer.pretokenizers.1.add_prefix_space", True, "its pre_tokenizer is"),
]


@pytest.mark.parametrize(
    ("kind", "name", "key", "value", "message"),
    UNDECIDED,
    ids=[f"{u[0]}-{u[2]}" for u in UNDECIDED],
)
def test_what_cannot_be_decided_is_refused(
    kind: str, name: str, key: str, value: object, message: str, tmp_path: Path
) -> None:
    folder = change(put_tokenizer(kind, tmp_path), name, key, value)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize("key", ["add_bos_token", "legacy"])
def test_llamas_settings_have_no_default(key: str, tmp_path: Path) -> None:
    folder = edited("yi", tmp_path, lambda config: config.pop(key))
    with pytest.raises(TokenizerError, match=f"{key} is missing, so where"):
        load_tokenizer(folder)
