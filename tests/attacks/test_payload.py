"""Files made to harm whoever loads them, under a manifest that is true of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.conftest import Change, answer, edit_json, edit_manifest, reseal
from tests.text.kinds import FOLDER

WEIGHTS = "language/model.safetensors"
SETTINGS = "language/config.json"
TOKENS = "language/tokenizer_config.json"
PIECES = "language/tokenizer.model"


def setting(**values: Any) -> Change:
    """An attack that changes the language model's configuration."""
    return lambda folder: edit_json(folder / SETTINGS, **values)


def file(name: str, data: bytes) -> Change:
    """An attack that writes a file anew."""
    return lambda folder: (folder / name).write_bytes(data)


def appended(name: str, data: bytes) -> Change:
    """An attack that writes behind a file's end."""

    def attack(folder: Path) -> None:
        with (folder / name).open("ab") as opened:
            opened.write(data)

    return attack


def header(change: Callable[[dict[str, Any], list[str]], str | None]) -> Change:
    """An attack on the header of the weights: `change` gets it with its tensors' names, and may
    return the text to write instead of its JSON."""

    def attack(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        values = json.loads(data[8:end])
        text = change(values, [name for name in values if name != "__metadata__"])
        new = (text or json.dumps(values)).encode()
        (folder / WEIGHTS).write_bytes(len(new).to_bytes(8, "little") + new + data[end:])

    return attack


@header
def petabytes(values: dict[str, Any], names: list[str]) -> None:
    values[names[0]] |= {"shape": [1 << 49], "data_offsets": [0, 1 << 51]}


@header
def overflow(values: dict[str, Any], names: list[str]) -> None:
    values[names[0]] |= {"shape": [1 << 63, 4]}


@header
def twice(values: dict[str, Any], names: list[str]) -> str:
    entry = json.dumps({names[0]: values[names[0]]})
    return json.dumps(values)[:-1] + ", " + entry[1:]


@header
def overlap(values: dict[str, Any], names: list[str]) -> None:
    size = [values[name]["shape"] for name in names]
    first = next(place for place, shape in enumerate(size) if size.count(shape) > 1)
    second = size.index(size[first], first + 1)
    values[names[second]]["data_offsets"] = values[names[first]]["data_offsets"]


@header
def backwards(values: dict[str, Any], names: list[str]) -> None:
    start, end = values[names[0]]["data_offsets"]
    values[names[0]]["data_offsets"] = [end, start]


@header
def integers(values: dict[str, Any], names: list[str]) -> None:
    for name in names:
        values[name]["dtype"] = "I32"


def header_of(length: int, data: bytes) -> Change:
    """An attack with a header that says it has `length` bytes."""
    return file(WEIGHTS, length.to_bytes(8, "little") + data)


def precompiled(blob: bytes) -> Change:
    """An attack with another table of SentencePiece's normalizer: a trie behind its length."""
    table = b"\x12" + bytes([len(blob)]) + blob
    return appended(PIECES, b"\x1a" + bytes([len(table)]) + table)


def added(tokens: dict[str, str]) -> Change:
    """An attack that declares further tokens, by id."""

    def attack(folder: Path) -> None:
        values = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
        for number, content in tokens.items():
            values["added_tokens_decoder"][number] = {"content": content}
        (folder / TOKENS).write_text(json.dumps(values))

    return attack


def llama3(change: Callable[[dict[str, Any]], object]) -> Change:
    """An attack on a tokenizer.json, which another tokenizer than the artifact's is read from."""

    def attack(folder: Path) -> None:
        for path in (FOLDER / "llama3").iterdir():
            shutil.copy(path, folder / "language")
        path = folder / "language" / "tokenizer.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        text = change(values)
        path.write_text(text if isinstance(text, str) else json.dumps(values), encoding="utf-8")

    return attack


def normalizers(values: dict[str, Any]) -> str:
    """So many, one in the other."""
    before, after = json.dumps(values | {"normalizer": "HERE"}).split('"HERE"')
    many = 100_000
    inner = '{"type": "Sequence", "normalizers": [' * many + "]}" * many
    return f"{before}{inner}{after}"


def pattern(text: str) -> Callable[[dict[str, Any]], None]:
    """Words split by another pattern."""
    split = {"type": "Split", "pattern": {"Regex": text}, "behavior": "Isolated", "invert": False}
    return lambda values: values.update(pre_tokenizer=split)


def far_id(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    vocabulary[next(iter(vocabulary))] = (1 << 32) - 1


ATTACKS: list[tuple[str, Change, str]] = [
    # Configurations.
    ("hidden", setting(hidden_size=1 << 40), "hidden_size is 1099511627776"),
    ("hidden-true", setting(hidden_size=1 << 22, head_dim=1 << 20), "hidden_size 4194304"),
    ("layers", setting(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    ("inner", setting(intermediate_size=1 << 24), "needs [64, 16777216]"),
    ("vocabulary", setting(vocab_size=1 << 24), "needs [16777216, 64]"),
    ("context", setting(max_position_embeddings=1 << 70), "max_position_embeddings is"),
    ("long-number", setting(max_position_embeddings=10**4000), "max_position_embeddings is"),
    ("nested-settings", file(SETTINGS, b'{"a":' * 500_000), "nested too deeply"),
    ("no-object", file(SETTINGS, b"[]"), "expected an object"),
    ("large-settings", file(SETTINGS, b" " * 5_000_000), "larger than"),
    ("manifest-hidden", edit_manifest(hidden_size=1 << 40), "the manifest's hidden_size is"),
    # Weights.
    ("header-length", header_of(1 << 60, b"{}"), "its header would be"),
    ("header-spaces", header_of(50_000_000, b"{" + b" " * 50_000_000), "its header would be"),
    ("header-nested", header_of(4_000_000, b'{"a":' * 800_000), "nested too deeply"),
    ("petabytes", petabytes, "not a whole safetensors file"),
    ("overflow", overflow, "not a whole safetensors file"),
    ("twice", twice, "twice"),
    ("overlap", overlap, "not a whole safetensors file"),
    ("backwards", backwards, "not a whole safetensors file"),
    ("integers", integers, "is torch.int32"),
    ("no-weights", lambda folder: (folder / WEIGHTS).unlink(), "the weights lack"),
    ("pickle", file(WEIGHTS, b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."), "safetensors"),
    # Tokenizers.
    ("piece-2GB", file(PIECES, b"\x0a\xff\xff\xff\xff\x07x"), "tokenizer.model"),
    ("piece-8EB", file(PIECES, b"\x0a" + b"\xff" * 8 + b"\x7fx"), "tokenizer.model"),
    ("groups", file(PIECES, b"\x0b" * 1_000_000), "tokenizer.model"),
    ("no-pieces", file(PIECES, b""), "tokenizer.model"),
    ("trie-4GB", precompiled(b"\xf0\xff\xff\xff" + bytes(64)), "tokenizer.model"),
    ("trie-garbage", precompiled(b"\x40\0\0\0" + bytes(range(64))), "tokenizer.model"),
    ("nested-tokens", file(TOKENS, b'{"a":' * 500_000), "nested too deeply"),
    ("many-added", added({str(616 + i): f"<{i}>" for i in range(50_000)}), "added tokens of up"),
    ("long-added", added({"616": "x" * 1_000_000}), "added tokens of up"),
    ("far-added", added({"999999999": "<x>"}), "without a gap"),
    ("long-id", added({"9" * 5000: "<x>"}), "not an id"),
    ("nested-json", llama3(normalizers), "tokenizer.json"),
    ("nested-pattern", llama3(pattern("(" * 100_000 + ")" * 100_000)), "tokenizer.json"),
    ("far-piece", llama3(far_id), "tokenizer.json: a piece has an id beyond"),
    # The graph.
    ("graph", file("vision/model.onnx", b"\x3a\xff\xff\xff\xff\x07x"), "is not an ONNX graph"),
    ("engine-file", edit_manifest(engines__0__file=SETTINGS), "is not an ONNX graph"),
    ("engine-gone", edit_manifest(engines__0__file="vision/other.onnx"), "holds no vision/other"),
]


@pytest.mark.parametrize(
    ("attack", "said"), [pytest.param(*rest, id=name) for name, *rest in ATTACKS]
)
def test_a_made_artifact(attack: Change, said: str, copied: Path, images: Path) -> None:
    attack(copied)
    reseal(copied)
    answer(copied, images).refused(4, said)
