"""`vlmc run` on a folder of all kinds of files: what it takes, leaves out and says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from tests.image.files import alike_at_first, encoded, turned
from tests.image.patterns import pattern
from vlmc.cli.main import main


def test_run_says_what_it_left_out(artifact: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "answers.jsonl"
    alike_at_first(folder)
    (folder / "phone").write_bytes(turned(Image.fromarray(pattern(61, 43))))
    deep = Image.fromarray(np.full((40, 40), 9000, np.uint16))
    (folder / "scan.tif").write_bytes(encoded(deep, "TIFF"))
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    for name in ("a.txt", "b.txt", "c.db"):
        (folder / name).write_text("text")
    command = ["run", artifact, folder, "--prompt", "A room?", "--choices", "yes,no", "-o", out]
    options = ["--tiles", "single", "--device", "cpu", "--json"]
    ran = CliRunner().invoke(main, [*map(str, command), *options])
    assert ran.exit_code == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["rows"], told["answers"], told["errors"]) == (5, 4, 1)
    assert told["left_out"] == {".txt": 2, ".db": 1}
    assert (told["rotation_ignored"], told["clipped_to_8_bits"]) == (1, 1)
    for part in (
        "left out as not images: 2 .txt, 1 .db",
        "EXIF rotation was ignored, as in the original: 1; a recipe with image.exif: apply",
        "clipped to 0..255, as in the original: 1; a recipe with image.high_bit_depth: scale",
    ):
        assert ran.stderr.count(part) == 1
    lines = {Path(line["image"]).name: line for line in map(json.loads, out.open())}
    assert "a link to nowhere.jpg, which does not exist" in lines["gone.jpg"]["error"]
    one, two = (lines[name]["scores"]["yes"] for name in ("one.bmp", "two.bmp"))
    assert abs(one - two) > 1e-4, "two pictures that begin alike"


def test_a_table_of_text_alone_is_said(artifact: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    table.write_text('{"prompt": "What is a room?"}\n')
    command = ["run", artifact, table, "-o", out, "--device", "cpu", "--max-new-tokens", "1"]
    ran = CliRunner().invoke(main, [*map(str, command)])
    assert ran.exit_code == 0, ran.stderr
    assert "has no column image, so its prompts are asked as text alone" in ran.stderr
    assert json.loads(out.read_text())["image_tokens"] == 0
