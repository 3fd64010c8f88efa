"""Properties of every tokenizer, and rules that its settings switch."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.kinds import KINDS, edited, tokenizer
from vlmc.errors import TokenizerError
from vlmc.text.special_tokens import AddedToken
from vlmc.text.splitter import Splitter
from vlmc.text.tokenizer import load_tokenizer
from vlmc.text.vocabulary_checks import IMAGE_TOKENS, check_image_tokens

# NUL is a piece or a byte, which the SentencePiece version decides; "▁" is a space there.
# Added tokens all begin with "<".
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁<"), max_size=40)


@pytest.mark.parametrize("kind", ["qwen2", "phi3"])
@given(text=plain)
def test_text_survives(kind: str, text: str) -> None:
    kept = unicodedata.normalize("NFC", text) if kind == "qwen2" else text
    assert tokenizer(kind).decode(tokenizer(kind).encode(text)) == kept


@pytest.mark.parametrize("kind", KINDS)
@given(text=plain)
def test_ids_are_in_the_vocabulary_and_repeatable(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert all(0 <= number < tokenizer(kind).vocab_size for number in ids)
    expected = list(ids)
    ids.append(-1)  # a cached result must not be the caller's list
    assert tokenizer(kind).encode(text) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(left=plain, right=plain)
def test_encoding_segments_equals_encoding_the_whole(kind: str, left: str, right: str) -> None:
    whole = tokenizer(kind).encode(f"{left}<img>{right}")
    start, place = tokenizer(kind).encode(left), tokenizer(kind).token_id("<img>")
    assert whole.count(place) == 1
    if left:
        assert whole[: whole.index(place)] == start


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_ids(kind: str) -> None:
    size = tokenizer(kind).vocab_size
    ids = [tokenizer(kind).token_id(name) for name in IMAGE_TOKENS]
    assert ids == list(range(size - 9, size))
    with pytest.raises(TokenizerError, match="did you mean '<img>'"):
        tokenizer(kind).token_id("<imag>")
    with pytest.raises(TokenizerError, match=f"id {size} is outside"):
        tokenizer(kind).decode([1, size])
    with pytest.raises(TokenizerError, match="id -1 is outside"):
        tokenizer(kind).decode([-1])


def test_role_tokens_of_phi3_take_the_whitespace_after_them() -> None:
    phi3 = tokenizer("phi3")
    system, user = phi3.token_id("<|system|>"), phi3.token_id("<|user|>")
    space = phi3.token_id("▁")
    assert phi3.encode("<|system|>\n\n <|user|>\n") == [phi3.bos_id, space, system, user]
    assert phi3.encode("<|user|> \nx")[3:] == phi3.encode("<|user|>x")[3:]


def test_a_space_before_a_special_token_is_dropped(tmp_path: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["additional_special_tokens"].append("<|system|>")

    phi3 = load_tokenizer(edited("phi3", tmp_path, edit))
    assert phi3.encode("<|system|>") == [phi3.bos_id, phi3.token_id("<|system|>")]


def test_legacy_llama_puts_a_space_before_each_text(tmp_path: Path) -> None:
    folder = edited("phi3", tmp_path, lambda config: config.update(legacy=True))
    legacy, current = load_tokenizer(folder), tokenizer("phi3")
    space = legacy.token_id("▁")
    assert current.encode("a <img>文") == [*current.encode("a "), *current.encode("<img>文")[1:]]
    assert legacy.encode("<img>文") == [1, legacy.token_id("<img>"), *legacy.encode("文")[1:]]
    assert legacy.encode("文")[1] == space
    assert space not in current.encode("<img>文")


@pytest.mark.parametrize("kind", ["qwen2", "phi3", "yi"])
def test_older_files_without_added_tokens_decoder(kind: str, tmp_path: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        del config["added_tokens_decoder"], config["additional_special_tokens"]

    folder = edited(kind, tmp_path, edit)
    older = load_tokenizer(folder)
    assert older.vocab_size == tokenizer(kind).vocab_size
    assert older.encode("x <img>y</img>") == tokenizer(kind).encode("x <img>y</img>")


def test_a_new_padding_token_comes_after_the_others(tmp_path: Path) -> None:
    folder = edited("internlm2", tmp_path, lambda config: config.update(pad_token="[PAD]"))
    assert load_tokenizer(folder).pad_id == tokenizer("internlm2").vocab_size


def test_bos_and_eos_follow_the_settings(tmp_path: Path) -> None:
    folder = edited(
        "yi", tmp_path, lambda config: config.update(add_bos_token=True, add_eos_token=True)
    )
    yi = load_tokenizer(folder)
    assert yi.encode("a") == [yi.bos_id, *tokenizer("yi").encode("a"), yi.token_id("<|im_end|>")]


def test_merges_that_begin_with_a_hash_are_comments(tmp_path: Path) -> None:
    folder = edited("qwen2", tmp_path, lambda config: None)
    path = folder / "merges.txt"
    path.write_text(path.read_text(encoding="utf-8") + "# #\n", encoding="utf-8")
    assert load_tokenizer(folder).encode("##") == tokenizer("qwen2").encode("##")


def test_splitting_takes_the_longest_token_and_strips_beside_it() -> None:
    splitter = Splitter(
        {
            7: AddedToken("<a>"),
            8: AddedToken("<a>b", lstrip=True),
            9: AddedToken("<c>", rstrip=True),
        }
    )
    assert splitter.split("x <a>y") == ["x ", 7, "y"]
    assert splitter.split("x <a>by") == ["x", 8, "y"]
    assert splitter.split("<c> \u3000\n<c>  z <a>b") == [9, 9, "z", 8]
    assert splitter.split("") == []
    assert Splitter({}).split("x") == ["x"]


@pytest.mark.parametrize("names", [("<a>", "a>b"), ("<a>", "x<a>"), ("<aa<",)])
def test_added_tokens_that_overlap_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(TokenizerError, match="overlap"):
        Splitter({number: AddedToken(name) for number, name in enumerate(names)})


class ReleasedVocabulary:
    """A tokenizer of a released size whose ids are the released ones but for one name."""

    vocab_size = 92553

    def __init__(self, wrong: str | None = None) -> None:
        names = dict(zip(IMAGE_TOKENS, range(92544, 92553), strict=True))
        names |= {"<s>": 1, "</s>": 2, "<|im_end|>": 92542, "<|im_start|>": 92543}
        self._ids = {name: 5 if name == wrong else number for name, number in names.items()}

    def token_id(self, token: str) -> int:
        return self._ids[token]

    def encode(self, text: str) -> list[int]:
        splitter = Splitter({number: AddedToken(name) for name, number in self._ids.items()})
        return [part if isinstance(part, int) else 9 for part in splitter.split(text)]


def test_released_sizes_must_have_the_released_ids() -> None:
    check_image_tokens(ReleasedVocabulary(), Path("model"))
    for name in ("<IMG_CONTEXT>", "<|im_end|>"):
        with pytest.raises(TokenizerError, match="has id 5; in the released vocabulary of 92553"):
            check_image_tokens(ReleasedVocabulary(name), Path("model"))
