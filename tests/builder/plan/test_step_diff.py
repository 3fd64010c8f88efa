"""Why a step is not in the cache, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmc.builder.plan.step_diff import changes, nearest
from vlmc.builder.steps.step import Step
from vlmc.builder.store.step_cache import CachedStep

PARTS: dict[str, Any] = {
    "name": "language.weights",
    "version": 1,
    "inputs": {"model.safetensors": "1" * 64},
    "parameters": {"dtype": "bfloat16", "layout": {"heads": 4}},
    "tools": {"torch": "2.12.0"},
}


def step(**changed: Any) -> Step:
    return Step(**{**PARTS, **changed}, work=lambda _: None)


def entry(made: Step, created: float = 0.0) -> CachedStep:
    return CachedStep(made.key, made.name, made.key_parts, 1.0, None, created, {}, Path("none"))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"version": 2}, "the step itself changed, version 1 → 2"),
        ({"inputs": {"model.safetensors": "2" * 64}}, "model.safetensors changed"),
        ({"inputs": {**PARTS["inputs"], "more": "2" * 64}}, "more is new"),
        ({"inputs": {}}, "model.safetensors is gone"),
        ({"tools": {"torch": "2.13.0"}}, "torch 2.12.0 → 2.13.0"),
        ({"parameters": {**PARTS["parameters"], "dtype": "float16"}}, "dtype bfloat16 → float16"),
        ({"parameters": {**PARTS["parameters"], "layout": {"heads": 8}}}, "layout changed"),
    ],
)
def test_each_change_has_its_words(changed: dict[str, Any], text: str) -> None:
    assert changes(step(**changed), entry(step()), {}) == [text]


def test_another_steps_key_is_told_by_its_name() -> None:
    graph = step(name="vision.graph")
    made = step(inputs={"graph": graph.key})
    before = entry(step(inputs={"graph": "3" * 64}))
    assert changes(made, before, {graph.key: graph.name}) == ["vision.graph is rebuilt"]


def test_the_entry_with_the_fewest_changes_is_compared() -> None:
    near = entry(step(version=2))
    far = entry(step(version=2, tools={}), created=9.0)
    assert nearest(step(), [far, near]) is near
    newer = entry(step(version=3), created=1.0)
    assert nearest(step(), [near, newer]) is newer
    assert nearest(step(), []) is None
