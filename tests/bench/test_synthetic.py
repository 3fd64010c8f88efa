"""`vlmc bench --synthetic`: random models and pictures, through the whole pipeline."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from tests.bench.consistency import check_case, read_reports
from tests.command import call
from vlmc.bench.synthetic.cases import CASES
from vlmc.bench.synthetic.pictures import jpeg
from vlmc.bench.synthetic.shapes import SHAPES
from vlmc.bench.synthetic.tokenizer import StandInTokenizer
from vlmc.bench.workload import QUESTION
from vlmc.image.decode import read_picture
from vlmc.image.tiles import choose_grid
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.tower import VisionTower
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES

# As published, in billions of parameters.
PUBLISHED = {
    "internvl2-1b": 0.938,
    "internvl2-2b": 2.206,
    "internvl2-4b": 4.147,
    "internvl2-8b": 8.075,
    "internvl2-26b": 25.514,
    "internvl2-40b": 40.069,
    "internvl2-76b": 76.262,
}


def test_cases_and_precisions(tmp_path: Path) -> None:
    output = tmp_path / "report"
    done = call(
        *("bench", "--synthetic", "miniature", "--device", "cpu", "--cases", "2,1", "-o", output),
        *("--requests", "1,2", "--language", "fp8,w4a16", "--vision", "fp8,bf16"),
        *("--max-new-tokens", 2),
    )
    assert done.exit_code == 0, done.stderr
    cases = read_reports(output)["cases"]
    assert [case["name"] for case in cases] == [
        f"{language}, tower {vision}, {tiles}"
        for language, vision in (("fp8", "fp8"), ("w4a16", "bf16"))
        for tiles in ("2 tiles", "1 tile")
    ]
    for case, (tiles, requests) in zip(cases, [(2, 1), (1, 2)] * 2, strict=True):
        check_case(case)
        assert case["workload"]["tiles_an_image"] == tiles
        assert case["workload"]["requests"] == requests
        # Nothing stops early: all answers are as long.
        assert case["counts"]["new_tokens"] == 3 * requests * 2
        assert case["subject"]["engine"] == "eager"


def test_the_ladder(tmp_path: Path) -> None:
    done = call(
        *("bench", "--synthetic", "miniature", "--device", "cpu", "--ladder", "--json"),
        *("--requests", 1, "--max-new-tokens", 1),
    )
    assert done.exit_code == 0, done.stderr
    values = json.loads(done.stdout)
    measured = [rung["lever"] for rung in values["ladder"] if rung["missing"] is None]
    assert measured == ["baseline", "resampler", "tiles", "quantization"]
    schemes = [case["subject"]["language_scheme"] for case in values["cases"]]
    assert schemes == ["none", "none", "none", "fp8"]
    assert [case["workload"]["tiles_an_image"] for case in values["cases"]] == [7, 7, 2, 2]


@pytest.mark.parametrize("tiles", CASES)
def test_a_case_has_its_tiles(tiles: int) -> None:
    case = CASES[tiles]
    assert choose_grid(case.width, case.height, case.rule).tiles == tiles
    (image,) = case.images(1)
    read = read_picture(image, exif="ignore", high_bit_depth="original", name="picture")
    assert read.pixels.shape == (case.height, case.width, 3)


def test_pictures_differ_and_are_as_large_as_photographs() -> None:
    drawn = [jpeg(480, 320, seed) for seed in (1, 2)]
    assert drawn[0] != drawn[1] and drawn[0] == jpeg(480, 320, 1)
    assert all(1.2 < 8 * len(picture) / (480 * 320) < 3 for picture in drawn)
    images = CASES[1].images(40)
    assert len(images) == 40 and len(set(images)) == 32


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_the_published_parameters(name: str) -> None:
    shape = SHAPES[name]
    with torch.device("meta"):
        models = Decoder(shape.language), VisionTower(shape.tower)
    count = sum(part.numel() for model in models for part in model.parameters())
    assert count / 1e9 == pytest.approx(PUBLISHED[name], abs=6e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_a_prompt_has_about_80_tokens_of_text(name: str) -> None:
    shape = SHAPES[name]
    tokenizer = StandInTokenizer(shape.language.vocab_size)
    prompt = PromptBuilder(tokenizer, TEMPLATES[shape.template]).build(QUESTION, [1])
    assert 74 <= len(prompt.ids) - 256 <= 84
    assert max(prompt.ids) < shape.language.vocab_size


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_loses_no_result(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vlmc.bench.report.write_atomically", full)
    done = call(
        *("bench", "--synthetic", "miniature", "--device", "cpu", "--cases", "2,1"),
        *("--requests", "1", "--max-new-tokens", 1, "-o", tmp_path / "report"),
        *(["--json"] if as_json else []),
    )
    assert done.exit_code == 2
    assert "bench.html cannot be written (No space left on device). The results" in done.stderr
    if as_json:
        values = json.loads(done.stdout)
        assert len(values["cases"]) == 2
        assert len(values["not_written"]) == 4
    else:
        assert done.stdout.count("questions a minute") == 2
