"""What an AOTInductor package is refused for, told without a GPU; the rest is in tests/gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlmc.errors import HardwareError
from vlmc.machine.aoti_environment import AotiEnvironment
from vlmc.runtime.engines.inductor_engine import refuse_other

HERE = AotiEnvironment(target="sm90", torch="2.11.0+cu130", cuda="13.0", driver="580.95.05")
PACKAGE = Path("artifact/vision/inductor-sm90.pt2")


def test_the_machine_that_compiled_it_loads_it() -> None:
    refuse_other(PACKAGE, HERE.versions(), HERE.target, HERE)


def test_a_newer_driver_runs_what_an_older_one_ran() -> None:
    newer = replace(HERE, driver="581.0")
    refuse_other(PACKAGE, HERE.versions(), HERE.target, newer)
    with pytest.raises(HardwareError, match=r"the driver 581\.0, but here is 580\.95\.05"):
        refuse_other(PACKAGE, newer.versions(), HERE.target, HERE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"target": "sm89"}, "the GPU sm90, but here is sm89"),
        ({"torch": "2.12.0+cu130"}, r"torch 2\.11\.0\+cu130, but here is 2\.12\.0\+cu130"),
        ({"cuda": "12.9"}, r"CUDA 13\.0, but here is 12\.9"),
    ],
)
def test_another_machine_is_refused_with_both_sides(change: dict[str, str], told: str) -> None:
    here = replace(HERE, **change)
    with pytest.raises(HardwareError, match=told) as caught:
        refuse_other(PACKAGE, HERE.versions(), HERE.target, here)
    command = f"vlmc rebuild artifact --engine inductor --target {here.target}"
    assert command in str(caught.value)


def test_a_manifest_that_tells_no_versions_fits_nowhere() -> None:
    with pytest.raises(HardwareError, match="torch None"):
        refuse_other(PACKAGE, {}, HERE.target, HERE)
