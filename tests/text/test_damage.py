"""Tokenizer files that are missing, damaged or of another model are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.text.kinds import FOLDER, KINDS, edited
from vlmc.errors import TokenizerError
from vlmc.text.tokenizer import TOKENIZER_FILES, load_tokenizer

FILES = [
    (kind, path.name)
    for kind in KINDS
    for path in sorted((FOLDER / kind).iterdir())
    if path.name not in ("added_tokens.json", "special_tokens_map.json")
]


def copy(kind: str, folder: Path) -> Path:
    return edited(kind, folder, lambda config: None)


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_missing_file(kind: str, name: str, tmp_path: Path) -> None:
    folder = copy(kind, tmp_path)
    (folder / name).unlink()
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(folder)


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file(kind: str, name: str, kept: float, tmp_path: Path) -> None:
    folder = copy(kind, tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(folder)


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xfe\x00\x01" * 64, b"[1]"]
)
def test_garbage(kind: str, name: str, content: bytes, tmp_path: Path) -> None:
    folder = copy(kind, tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(folder)


def renumbered(number: str, to: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        added = config["added_tokens_decoder"]
        added[to] = added.pop(number)

    return edit


def without(number: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        token = config["added_tokens_decoder"].pop(number)
        config["additional_special_tokens"].remove(token["content"])

    return edit


def changed(number: str, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["added_tokens_decoder"][number].update(values)


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("yi", renumbered("588", "589"), "without a gap: 580, 581, 582, 583, …, 589"),
        ("yi", renumbered("580", "300"), "'<img>' is added with id 300, which is the piece"),
        ("qwen2", renumbered("443", "300"), "'<img>' is added with id 300, which is the piece"),
        ("yi", changed("581", content="<img>"), "'<img>' has two ids"),
        ("yi", without("582"), "without a gap"),
        ("yi", without("588"), "no token '</box>'.*did you mean '<box>'"),
        ("llama3", renumbered("450", "470"), "gives '<img>' the id 470, tokenizer.json does not"),
        ("yi", changed("582", single_word=True), "single_word"),
        ("yi", changed("582", lstrip="yes"), "lstrip is 'yes'"),
        ("yi", changed("582", content=""), "an empty token"),
        ("yi", lambda config: config.update(added_tokens_decoder=[]), "is not an object"),
        ("yi", lambda config: config.update(bos_token=3), "bos_token holds 3"),
        ("yi", lambda config: config.update(additional_special_tokens="<img>"), "is not a list"),
        ("yi", lambda config: config.update(unk_token=None), "unk_token is missing"),
        ("yi", lambda config: config.update(add_bos_token="no"), "add_bos_token is 'no'"),
        ("yi", lambda config: config.update(sp_model_kwargs={"nbest_size": -1}), "sp_model_kwargs"),
        ("qwen2", lambda config: config.update(split_special_tokens=True), "split_special_tokens"),
        ("qwen2", lambda config: config.update(errors="strict"), "errors is 'strict'"),
        ("qwen2", lambda config: config.update(tokenizer_class="GPT2Tokenizer"), "GPT2Tokenizer"),
        ("internlm2", lambda config: config.update(bos_token="</s>"), "model's bos_token is not"),
    ],
)
def test_settings_that_do_not_fit(
    kind: str, edit: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(edited(kind, tmp_path, edit))


def test_the_dummy_prefix_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = copy("internlm2", tmp_path)
    with (folder / "tokenizer.model").open("ab") as file:
        file.write(b"\x1a\x02\x18\x01")  # normalizer_spec { add_dummy_prefix: true }
    with pytest.raises(TokenizerError, match="add_dummy_prefix"):
        load_tokenizer(folder)


def test_a_vocabulary_without_a_byte_is_refused(tmp_path: Path) -> None:
    folder = copy("qwen2", tmp_path)
    path = folder / "vocab.json"
    pieces = json.loads(path.read_text(encoding="utf-8"))
    pieces["spare"] = pieces.pop("Ā")
    path.write_text(json.dumps(pieces), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"vocab.json: 1 of the 256 bytes"):
        load_tokenizer(folder)


def test_merges_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    folder = copy("qwen2", tmp_path)
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("no such\n")
    with pytest.raises(TokenizerError, match=r"merges.txt: does not belong to vocab.json"):
        load_tokenizer(folder)
    (folder / "merges.txt").write_text("#version: 0.2\na b c\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"merges.txt:2: 'a b c' is not a pair"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_listed_files_suffice(kind: str, tmp_path: Path) -> None:
    for name in TOKENIZER_FILES:
        if (FOLDER / kind / name).exists():
            shutil.copy(FOLDER / kind / name, tmp_path / name)
    assert load_tokenizer(tmp_path).vocab_size == load_tokenizer(FOLDER / kind).vocab_size


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json is missing.*tokenizer.model"):
        load_tokenizer(tmp_path)
