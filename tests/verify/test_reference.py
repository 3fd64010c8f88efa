"""The portable reference: read back as it was written, and refused when it is not whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vlmc.errors import UsageError
from vlmc.verify.pixels import ImageGrid, SampleTile
from vlmc.verify.reference import Reference, read_reference, write_reference
from vlmc.verify.source import SourceAnswer


@pytest.fixture
def made() -> Reference:
    generator = np.random.default_rng(0)
    return Reference(
        source={"config.json": "a" * 64},
        dtype="bfloat16",
        device="cpu",
        template="Hermes-2",
        system_message="你好",
        dataset="b" * 64,
        dataset_path="/data/eval.jsonl",
        grids={"c" * 64: ImageGrid(480, 320, 7, "d" * 64)},
        answers={
            (("c" * 64,), "有吗？"): SourceAnswer(
                "有。", -0.25, (7, 9), (((7, 8), (-0.25, -1.5)), ((9, 1), (-0.5, -2.0)))
            ),
            (("c" * 64, "e" * 64), "Both?"): SourceAnswer(
                "", -3.5, (3,), (((3, 4), (-3.5, -4.0)),)
            ),
        },
        places=(SampleTile("c" * 64, 0), SampleTile("c" * 64, 6)),
        tiles=generator.integers(0, 256, (2, 448, 448, 3), dtype=np.uint8),
        features=generator.standard_normal((2, 256, 8), dtype=np.float32),
    )


def test_reads_back(made: Reference, tmp_path: Path) -> None:
    write_reference(made, tmp_path / "reference")
    assert [path.name for path in tmp_path.iterdir()] == ["reference"], "nothing half-written"
    found = read_reference(tmp_path / "reference")
    assert found.from_file and not made.from_file
    for field in dataclasses.fields(made):
        one, other = getattr(found, field.name), getattr(made, field.name)
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other)
        elif field.name != "from_file":
            assert one == other, field.name
    write_reference(made, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "reference").read_bytes()


@pytest.mark.parametrize(
    "change", ["cut", "record", "tiles", "features", "format", "tokens", "json", "text"]
)
def test_damaged_is_refused(change: str, made: Reference, tmp_path: Path) -> None:
    path = tmp_path / "reference"
    write_reference(made, path)
    tensors = load_file(path)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif change == "text":
        path.write_text("{}")
    else:
        if change == "record":
            del tensors["record"]
        elif change == "tiles":
            tensors["tiles"] = tensors["tiles"][:1].copy()
        elif change == "features":
            tensors["features"] = tensors["features"].astype(np.float64)
        elif change in ("format", "tokens"):
            old, new = {
                "format": (b'"format": 2', b'"format": 9'),
                "tokens": (b'"max_new_tokens": 5', b'"max_new_tokens": 9'),
            }[change]
            text = tensors["record"].tobytes().replace(old, new)
            tensors["record"] = np.frombuffer(text, np.uint8)
        else:
            tensors["record"] = np.frombuffer(b"[" * 100_000, np.uint8)
        save_file(tensors, path)
    with pytest.raises(UsageError, match=r"is not a valid reference file .*vlmc verify refer"):
        read_reference(path)


def test_place_that_cannot_be_written(made: Reference, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_reference(made, tmp_path / "none" / "reference")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["features", "answers"])
def test_values_that_are_not_finite_are_refused(
    part: str, bad: float, made: Reference, tmp_path: Path
) -> None:
    if part == "features":
        made.features[1, 5, 3] = bad
    else:
        answers = {key: SourceAnswer("x", bad) for key in made.answers}
        made = dataclasses.replace(made, answers=answers)
    write_reference(made, tmp_path / "reference")
    with pytest.raises(UsageError, match="are NaN or infinite"):
        read_reference(tmp_path / "reference")


def test_a_reference_of_format_1_has_no_tokens(made: Reference, tmp_path: Path) -> None:
    path = tmp_path / "reference"
    write_reference(made, path)
    tensors = load_file(path)
    record = json.loads(tensors["record"].tobytes())
    record["format"] = 1
    record["answers"] = [row[:4] for row in record["answers"]]
    tensors["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    save_file({name: tensors[name] for name in ("record", "tiles", "features")}, path)
    answers = read_reference(path).answers
    assert {answer.text for answer in answers.values()} == {"有。", ""}
    assert all(answer.token_ids == answer.top == () for answer in answers.values())


@pytest.mark.parametrize("change", ["fewer", "nan", "missing"])
def test_tokens_that_do_not_belong_together_are_refused(
    change: str, made: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "reference"
    write_reference(made, path)
    tensors = load_file(path)
    if change == "fewer":
        tensors["answer_tokens"] = tensors["answer_tokens"][:1].copy()
    elif change == "nan":
        tensors["top_logprobs"][0, 0] = np.nan
    else:
        del tensors["top_tokens"]
    save_file(tensors, path)
    with pytest.raises(UsageError, match="not a valid reference file"):
        read_reference(path)
