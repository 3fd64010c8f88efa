"""The manifest: read back as written, its identity of what it says and not of how."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.artifact.conftest import FILES, manifest
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.manifest import MANIFEST, RuntimeRules, read_manifest
from vlmc.artifact.write import seal
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.bounded_read import MAX_BYTES
from vlmc.image.tiles import TileRule

SCHEMA_1_IDENTITY = "a05a1cb2ef08d592c089498e7b36c01ae11de0b340625ac70c9c4ca2810071c5"


def values_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return values


def test_what_was_written_is_read(made: Path) -> None:
    written = seal(made, manifest())
    read = read_manifest(made)
    assert read == written
    assert read.identity == written.identity
    assert sorted(read.payload) == sorted(FILES)
    assert read.payload["recipe.yaml"].size == len("content of recipe.yaml")


def test_identity_is_of_the_values_and_not_of_their_form(made: Path) -> None:
    """As the artifacts of earlier versions need, which carry no identity."""
    identity = read_manifest(made).identity
    (made / IDENTITY).unlink()
    values = values_of(made)
    backwards = dict(reversed(values.items()))
    for text in (
        json.dumps(values),
        json.dumps(backwards, indent=7, ensure_ascii=True),
        json.dumps(backwards, separators=(" , ", " : "), ensure_ascii=False) + "\n\n",
    ):
        (made / MANIFEST).write_text(text, encoding="utf-8")
        assert read_manifest(made).identity == identity


def test_identity_depends_on_the_payload_and_not_on_reports_or_place(
    made: Path, tmp_path: Path
) -> None:
    identity = read_manifest(made).identity
    (made / "reports" / "accuracy.html").write_text("later")
    moved = shutil.copytree(made, tmp_path / "elsewhere")
    assert seal(moved, manifest()).identity == identity
    (moved / "vision" / "model.onnx").write_text("another graph")
    assert seal(moved, manifest()).identity != identity


def test_schema_1_stays_readable_under_its_identity(tmp_path: Path) -> None:
    """An artifact of the first version, whose identity keys caches, signatures and ledgers."""
    shutil.copy(Path(__file__).parent / "schema-1.json", tmp_path / MANIFEST)
    read = read_manifest(tmp_path)
    assert read.identity == SCHEMA_1_IDENTITY
    assert read.image.tiles == TileRule("native", tolerance=0.1)
    assert read.image.published == TileRule("original", max=6)
    assert read.engines == manifest().engines


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a JSON value with a key of it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _leaves(value[key])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 10_000),
    st.sampled_from(["remove", "replace", "add"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.just("../x"),
        st.just([]),
        st.just({"x": 1}),
    ),
)
def test_a_changed_manifest_is_refused_or_another(
    made: Path, place: int, change: str, new: Any
) -> None:
    """Nothing in the file is passed over, so nothing can be changed under the same identity."""
    sealed = seal(made, manifest())
    (made / IDENTITY).unlink()
    values = values_of(made)
    before = copy.deepcopy(values)
    places = list(_leaves(values))
    container, key = places[place % len(places)]
    if change == "remove":
        del container[key]
    elif change == "replace":
        container[key] = new
    elif isinstance(container, dict):
        container["added"] = new
    else:
        container.append(new)
    (made / MANIFEST).write_text(json.dumps(values))
    try:
        identity = read_manifest(made).identity
    except IntegrityError as error:
        assert MANIFEST in str(error)
    else:
        same = json.dumps(values, sort_keys=True) == json.dumps(before, sort_keys=True)
        assert (identity == sealed.identity) == same


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = values_of(folder)
    change(values)
    (folder / MANIFEST).write_text(json.dumps(values))


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/hostname",
        "vision/../../outside",
        "vision/../recipe.yaml",
        "./recipe.yaml",
        "vision//model.onnx",
        "vision/",
        "..\\outside",
        "vision\\model.onnx",
        "",
    ],
)
def test_names_cannot_lead_out(name: str, made: Path) -> None:
    def payload(values: dict[str, Any]) -> None:
        values["payload"][name] = values["payload"].pop("recipe.yaml")

    def engine(values: dict[str, Any]) -> None:
        values["engines"][0]["file"] = name

    (made.parent / "outside").write_text("content of recipe.yaml")
    original = (made / MANIFEST).read_bytes()
    (made / IDENTITY).unlink()
    for change in (payload, engine):
        (made / MANIFEST).write_bytes(original)
        _edit(made, change)
        with pytest.raises(IntegrityError, match="leads out of the artifact"):
            read_manifest(made)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"schema": 1}',
        b"{" * 100_000,
        b'{"schema": ' + b"[" * 100_000,
        b'{"schema": 1, "name": ' + b"1" * 5000 + b"}",
        b"\xff\xfe",
        b" " * (MAX_BYTES + 1),
    ],
    ids=lambda text: f"{text[:12]!r}",
)
def test_what_is_no_manifest(text: bytes, made: Path) -> None:
    (made / MANIFEST).write_bytes(text)
    with pytest.raises(IntegrityError) as caught:
        read_manifest(made)
    assert caught.value.exit_code == 4
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_named(schema: object, made: Path) -> None:
    _edit(made, lambda values: values.update(schema=schema))
    with pytest.raises(IntegrityError, match="this vlmc reads schema 1"):
        read_manifest(made)


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not an artifact"):
        read_manifest(tmp_path)


def test_a_manifest_without_high_bit_depth_is_of_the_original_rule(made: Path) -> None:
    """Such are those from before the rule, so the rule's default has no key, and one form only."""
    sealed = seal(made, manifest())
    assert "high_bit_depth" not in values_of(made)["image"]
    assert read_manifest(made).image.high_bit_depth == "original"
    _edit(made, lambda values: values["image"].update(high_bit_depth="original"))
    with pytest.raises(IntegrityError, match="malformed"):
        read_manifest(made)
    scaling = replace(manifest(), image=replace(manifest().image, high_bit_depth="scale"))
    assert seal(made, scaling).identity != sealed.identity
    assert read_manifest(made).image.high_bit_depth == "scale"
    _edit(made, lambda values: values["image"].update(high_bit_depth="16"))
    with pytest.raises(IntegrityError, match="not one of original, scale"):
        read_manifest(made)


def test_rules_of_the_runtime_are_kept_and_the_defaults_left_out(made: Path) -> None:
    assert "runtime" not in values_of(made)
    assert read_manifest(made).runtime == RuntimeRules()
    rules = RuntimeRules(cuda_graphs=False, prefix_cache="text", max_batch_tokens=4096)
    seal(made, replace(manifest(), runtime=rules))
    assert read_manifest(made).runtime == rules


@pytest.mark.parametrize(
    "change", [{"cuda_graphs": 0}, {"prefix_cache": "images"}, {"max_batch_tokens": 255}]
)
def test_rules_that_no_runtime_has_are_refused(made: Path, change: dict[str, object]) -> None:
    seal(made, replace(manifest(), runtime=RuntimeRules(max_batch_tokens=4096)))
    _edit(made, lambda values: values["runtime"].update(change))
    (made / IDENTITY).unlink()
    with pytest.raises(IntegrityError, match="malformed"):
        read_manifest(made)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"cuda_graphs": 1}, "cuda_graphs is 1; it must be true or false"),
        ({"prefix_cache": "images"}, "prefix_cache is 'images'; it must be off, text, content"),
        ({"max_batch_tokens": 255}, "max_batch_tokens is 255; it must be a whole number"),
        ({"max_batch_tokens": 512.0}, "it must be a whole number of at least 256"),
    ],
)
def test_values_that_no_runtime_has_are_refused(change: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        RuntimeRules(**change)
