"""The table of engine, precision and target."""

from __future__ import annotations

from itertools import product

import pytest

from vlmc.machine.support import (
    CARDS,
    ENGINES,
    MIN_FEATURE_COSINE,
    NOT_ALL_THREE,
    NOT_BY_ENGINE,
    NOT_BY_TARGET,
    NOT_TOGETHER,
    PRECISIONS,
    RUNS_ON,
    TARGETS,
    EngineName,
    Precision,
    Target,
    precisions_of,
    refusal,
    targets_of,
)


def test_every_card_and_engine_is_described() -> None:
    assert tuple(CARDS) == TARGETS
    assert tuple(RUNS_ON) == ENGINES


def test_gates_of_the_precisions() -> None:
    """As docs/accuracy.md promises them."""
    assert MIN_FEATURE_COSINE == {
        "fp32": 0.99999,
        "fp16": 0.9999,
        "bf16": 0.999,
        "int8": 0.99,
        "fp8": 0.995,
    }


@pytest.mark.parametrize(
    ("engine", "precision", "targets"),
    [
        ("onnxruntime", "fp32", ()),
        ("tensorrt", "fp16", TARGETS),
        ("tensorrt", "bf16", TARGETS[1:]),
        ("tensorrt", "int8", TARGETS),
        ("tensorrt", "fp8", ("sm89", "sm90", "sm100", "sm120", "sm121")),
        ("tensorrt-rtx", "fp32", ("sm80", "sm86", "sm89", "sm120", "sm121")),
        ("tensorrt-rtx", "fp16", ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")),
        ("tensorrt-rtx", "int8", ("sm80", "sm86", "sm89", "sm120", "sm121")),
        ("tensorrt-rtx", "fp8", ("sm89", "sm120", "sm121")),
        ("inductor", "int8", ()),
        ("inductor", "fp8", ("sm89", "sm90", "sm100", "sm120", "sm121")),
    ],
)
def test_cards(engine: EngineName, precision: Precision, targets: tuple[Target, ...]) -> None:
    assert targets_of(engine, precision) == targets


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_target_the_engine_decides(engine: EngineName) -> None:
    for precision in PRECISIONS:
        somewhere = engine == "onnxruntime" or bool(targets_of(engine, precision))
        refused = NOT_BY_ENGINE.get((engine, precision))
        assert refusal(engine, precision) == refused
        assert (refused is None) == (precision in precisions_of(engine))
        assert refused is not None or somewhere


def test_every_reason_is_given_to_somebody() -> None:
    given = {
        refusal(engine, precision, target)
        for engine, precision, target in product(ENGINES, PRECISIONS, (None, *TARGETS))
    }
    for table in (NOT_BY_ENGINE, NOT_BY_TARGET, NOT_TOGETHER, NOT_ALL_THREE):
        assert {*table.values()} <= given
