"""What cannot be measured, said before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifacts import copy_with
from tests.command import call

SYNTHETIC = ("--synthetic", "miniature", "--device", "cpu")
DEVICES = ("--images", "pictures", "--devices", "2")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "neither is given"),
        (("artifact", *SYNTHETIC), 2, "both are given"),
        (("artifact",), 2, "--images is missing"),
        (("artifact", "--images", "pictures", "--cases", "1"), 2, "--cases has no effect"),
        ((*SYNTHETIC, "--tiles", "single"), 2, "--tiles has no effect on --synthetic"),
        ((*SYNTHETIC, "--images", "pictures"), 2, "--images has no effect"),
        ((*SYNTHETIC, "--price-per-hour", "0"), 2, "must be above 0"),
        ((*SYNTHETIC, "--price-per-hour", "nan"), 2, "must be above 0"),
        ((*SYNTHETIC, "--choices", "a,b", "--max-new-tokens", "1"), 2, "leave one out"),
        (("--synthetic", "internvl2-9b"), 2, "internvl2-8b, internvl2-26b, internvl2-40b"),
        ((*SYNTHETIC, "--devices", "2"), 2, "--synthetic runs on one device"),
        (("artifact", *DEVICES, "--ladder"), 2, "--ladder runs on one device"),
        (("artifact", *DEVICES, "--engine", "eager"), 2, "--engine eager runs on one device"),
        ((*SYNTHETIC, "--cases", "5"), 2, "any of 13, 7, 2, 1"),
        ((*SYNTHETIC, "--cases", "a"), 2, "numbers above 0"),
        ((*SYNTHETIC, "--cases", "2,1", "--requests", "1,2,3"), 2, "3 numbers for 2 cases"),
        ((*SYNTHETIC, "--language", "int8"), 2, "fp32, bf16, fp8, w4a16"),
        ((*SYNTHETIC, "--language", "bf16,fp8,w4a16", "--vision", "fp8,bf16"), 2, "one for each"),
        ((*SYNTHETIC, "--engine", "tensorrt"), 2, "inductor or eager"),
        ((*SYNTHETIC, "--engine", "inductor"), 5, "--engine eager"),
        ((*SYNTHETIC, "--ladder", "--language", "bf16"), 2, "ends quantized"),
        ((*SYNTHETIC, "--ladder", "--cases", "1"), 2, "pictures of its own"),
        ((*SYNTHETIC, "--runs", "2"), 2, "x>=3"),
        (("nowhere", "--images", "pictures", "--device", "cpu"), 4, "is not an artifact"),
        (("nowhere", "--images", "empty"), 2, "has no image file"),
        (("nowhere", "--images", "absent"), 2, "no such file or folder"),
        (("nowhere", "--images", "table.csv"), 2, "is a table"),
        (("nowhere", "--images", "pictures", "--requests", "2"), 2, "takes 2 images"),
        (("nowhere", "--images", "pictures", "--requests", "2,1"), 2, "takes one number"),
        (("a", "b", "c", "--images", "pictures", "--ladder"), 2, "one artifact, or two"),
        ((*SYNTHETIC, "-o", "table.csv"), 2, "cannot be made"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("pictures").mkdir()
    (Path("pictures") / "a.jpg").write_bytes((images / "480x320.jpg").read_bytes())
    Path("table.csv").write_text("image\npictures/a.jpg\n", encoding="utf-8")
    done = call("bench", *arguments)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split())


def test_an_artifact_without_an_engine_for_this_machine(
    artifact: Path, images: Path, tmp_path: Path
) -> None:
    other = copy_with(artifact, tmp_path / "other", engines=[])
    done = call("bench", other, "--images", images, "--device", "cpu", "--engine", "inductor")
    assert done.exit_code == 5
    assert "holds no engine 'inductor'" in done.stderr


def test_a_request_that_fails_ends_the_measurement(
    artifact: Path, images: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((images / "480x320.jpg").read_bytes()[:500])
    done = call("bench", artifact, "--images", cut, "--device", "cpu")
    assert done.exit_code == 1
    assert "request 1 of the measurement has no answer" in done.stderr


def test_the_same_artifact_twice(artifact: Path, images: Path) -> None:
    done = call("bench", artifact, artifact, artifact, "--images", images, "--device", "cpu")
    assert done.exit_code == 2
    assert "is given twice" in done.stderr
