"""The list of faults fits the tree: each can be put in, and its tests exist."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import vlmc
from tests.mutants.faults import ROOT, Fault, read_faults

FAULTS = read_faults()
LEAST = 60


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def exists(test: str) -> bool:
    """Whether a file or a node id, `path::test` or `path::test[parameters]`, leads to tests."""
    name, _, node = test.partition("::")
    path = ROOT / name
    if not path.is_file() or not path.name.startswith("test_"):
        return False
    return not node or node.partition("[")[0] in functions_in(path)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    assert fault.problem(ROOT) is None
    changed = (ROOT / fault.file).read_text(encoding="utf-8").replace(fault.old, fault.new)
    compile(changed, fault.file, "exec")
    assert fault.tests and [test for test in fault.tests if not exists(test)] == []
    assert fault.gpu == all(test.startswith("tests/gpu/") for test in fault.tests)


def test_every_room_has_faults() -> None:
    rooms = {path.parent.name for path in Path(vlmc.__file__).parent.glob("*/__init__.py")}
    assert {fault.room for fault in FAULTS} == rooms
    assert len(FAULTS) >= LEAST
    assert [name for name, n in Counter(fault.name for fault in FAULTS).items() if n > 1] == []


def test_a_fault_is_put_in_and_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "vlmc" / "room" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("a = 1\nb = 1\n")
    before = path.stat().st_mtime_ns
    fault = Fault("b is wrong", "vlmc/room/a.py", "b = 1", "b = 2", ("tests/test_a.py",))
    remove = fault.apply(tmp_path)
    assert path.read_text() == "a = 1\nb = 2\n"
    assert int(path.stat().st_mtime) != before // 10**9, "else the compiled file would be taken"
    remove()
    assert (path.read_text(), path.stat().st_mtime_ns) == ("a = 1\nb = 1\n", before)


def test_a_fault_that_fits_nowhere_or_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vlmc" / "room" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("a = 1\nb = 1\n")
    for old, times in ((" = 1", 2), ("c", 0)):
        fault = Fault("wrong", "vlmc/room/a.py", old, "", ("tests/test_a.py",))
        assert fault.problem(tmp_path) == f"its old text occurs {times} times in vlmc/room/a.py"
    assert Fault("wrong", "vlmc/room/b.py", "a", "", ()).problem(tmp_path) is not None
