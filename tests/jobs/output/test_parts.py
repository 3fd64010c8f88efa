"""Folders of parts: names, what is missing, leftovers, damage, on disk and at addresses."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from vlmc.errors import IntegrityError, UsageError
from vlmc.jobs.ledger import Ledger, ledger_in
from vlmc.jobs.output.part_form import PartForm
from vlmc.jobs.output.parts import LEDGER, PartsFolder, RowRange, uncovered


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> PartsFolder:
    if request.param == "disk":
        return PartsFolder.of(str(tmp_path / "out.jsonl"))
    return PartsFolder.of(f"memory://{uuid.uuid4()}/out.jsonl")


def ledger(**changed: object) -> Ledger:
    values = {
        "artifact": "f00d", "tiles": "single", "input": "photos", "prompts": [["a", "a?"]],
        "choices": None, "max_new_tokens": 5, "confidence": False, "score": None, "part_rows": 7,
    }  # fmt: skip
    return Ledger(**{**values, **changed})  # type: ignore[arg-type]


def test_parts_in_order_and_what_is_missing(folder: PartsFolder) -> None:
    assert folder.parts() == [] and folder.names() == []
    for rows in (RowRange(20, 29), RowRange(0, 9), RowRange(10, 12)):
        folder.write(rows.name + folder.suffix, b"{}\n")
    folder.write(LEDGER, b"{}")
    parts = folder.parts()
    assert parts == [RowRange(0, 9), RowRange(10, 12), RowRange(20, 29)]
    assert list(uncovered(parts, 35)) == [RowRange(13, 19), RowRange(30, 34)]
    assert list(uncovered(parts, 30)) == [RowRange(13, 19)]
    assert list(uncovered([], 3)) == [RowRange(0, 2)]
    assert folder.read(parts[0].name + ".jsonl") == b"{}\n"


def test_a_part_inside_another_is_removed(folder: PartsFolder) -> None:
    for rows in (RowRange(0, 9), RowRange(0, 4), RowRange(3, 9), RowRange(10, 19)):
        folder.write(rows.name + folder.suffix, b"")
    assert folder.parts() == [RowRange(0, 9), RowRange(10, 19)]
    assert len(folder.names()) == 2
    folder.write(RowRange(5, 12).name + folder.suffix, b"")
    with pytest.raises(IntegrityError, match="hold the same rows, which vlmc never writes"):
        folder.parts()


def test_the_ledger_binds_the_folder(folder: PartsFolder) -> None:
    with ledger_in(folder) as file:
        assert file.part_rows is None
        file.bind(ledger(), folder, started=False)
    with ledger_in(folder) as file:
        assert file.part_rows == 7
        file.bind(ledger(), folder, started=True)
        with pytest.raises(UsageError, match='tiles: was "single", is "original"'):
            file.bind(ledger(tiles="original"), folder, started=True)
    assert json.loads(folder.read(LEDGER))["part_rows"] == 7
    assert folder.names() == [LEDGER]


def test_one_job_at_a_time_and_no_leftovers(tmp_path: Path) -> None:
    folder = PartsFolder.of(str(tmp_path / "out.jsonl"))
    folder.write(f".{RowRange(0, 1).name}.jsonl.0123abcd.tmp", b"half")
    with ledger_in(folder):
        assert folder.names() == [LEDGER]
        with pytest.raises(UsageError, match="another job is writing it"), ledger_in(folder):
            pass
    assert folder.names() == []


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text("")
    with pytest.raises(UsageError, match="is a file, and --ray writes a folder of parts"):
        PartsFolder.of(str(tmp_path / "file.jsonl"))
    with pytest.raises(UsageError, match=r"must end in \.jsonl, \.ndjson or \.parquet"):
        PartsFolder.of(str(tmp_path / "folder"))
    folder = PartsFolder.of(f"file://{tmp_path}/new.jsonl/")
    assert folder.place == tmp_path / "new.jsonl"
    with (
        pytest.raises(UsageError, match="cannot be written"),
        ledger_in(PartsFolder.of(str(tmp_path / "file.jsonl" / "out.jsonl"))),
    ):
        pass


def test_a_damaged_part_is_named() -> None:
    form = PartForm(("row",), None)
    content = form.encode([{"row": 0}, {"row": 1}], ())
    assert form.decode(content, "part") == [{"row": 0}, {"row": 1}]
    assert form.replaced(content, "part", {1: {"row": 9}}) == b'{"row": 0}\n{"row": 9}\n'
    with pytest.raises(IntegrityError, match=r"part: is damaged .* its rows are answered again"):
        form.decode(content[:-4], "part")
