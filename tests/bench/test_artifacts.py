"""`vlmc bench ARTIFACT…` on the miniature, from image files to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.bench.consistency import check_case, read_reports
from tests.command import call
from vlmc.artifact.manifest import read_manifest
from vlmc.bench.synthetic.pictures import jpeg

IMAGES = ("480x320.jpg", "320x480.jpg")


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in IMAGES:
        shutil.copy(images / name, folder)
    return folder


def test_two_artifacts_in_turns(artifact: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    output = tmp_path / "report"
    done = call(
        *("bench", artifact, other, "--images", folder, "--tiles", "single", "--device", "cpu"),
        *("--max-new-tokens", 2, "--price-per-hour", 3, "-o", output),
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(output / "bench.html")
    values = read_reports(output)
    assert [case["name"] for case in values["cases"]] == [artifact.name, "other"]
    assert values["options"]["tiles"] == "single"
    for case in values["cases"]:
        check_case(case)
        assert case["subject"]["identity"] == read_manifest(artifact).identity
        assert case["subject"]["engine"] == "onnxruntime"
        assert case["subject"]["prefix_cache"] == "off"
        assert case["workload"]["tiles_an_image"] == 1
        assert case["counts"]["prompt_tokens_reused"] == 0
        cost = 1e6 * 3 / (60 * case["qpm"]["median"])
        assert case["cost_per_million_images"] == pytest.approx(cost)
        assert f"{case['name']}: {case['qpm']['median']:,.0f} questions a minute" in done.stdout


def test_an_artifact_on_two_devices(artifact: Path, folder: Path) -> None:
    done = call(
        *("bench", artifact, "--images", folder, "--requests", 2, "--tiles", "single"),
        *("--device", "cpu", "--devices", 2, "--max-new-tokens", 2, "--json"),
    )
    assert done.exit_code == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    check_case(case)
    assert case["subject"]["devices"] == 2


def test_scores_of_several_questions_with_reuse(artifact: Path, folder: Path) -> None:
    done = call(
        *("bench", artifact, "--images", folder, "--requests", 3, "--tiles", "single"),
        *("--question", "Is it a room?", "--question", "Is it a street?", "--choices", "yes, no"),
        *("--prefix-cache", "content", "--device", "cpu", "--engine", "eager", "--json"),
    )
    assert done.exit_code == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    check_case(case)
    assert case["workload"]["images"] == 2 and case["workload"]["requests"] == 4
    assert case["workload"]["choices"] == ["yes", "no"]
    assert case["subject"]["engine"] == "eager"
    assert case["counts"]["new_tokens"] == 0
    # The second question about an image reuses its tile, in each run anew.
    assert case["counts"]["prompt_tokens_reused"] >= 3 * 2 * 256
    assert case["counts"]["tiles_encoded"] == 3 * 2


def test_smaller_steps_are_more(artifact: Path, folder: Path) -> None:
    steps = []
    for tokens in (256, 4096):
        done = call(
            *("bench", artifact, "--images", folder / IMAGES[0], "--tiles", "single"),
            *("--max-new-tokens", 1, "--max-batch-tokens", tokens, "--device", "cpu", "--json"),
        )
        (case,) = json.loads(done.stdout)["cases"]
        assert case["subject"]["max_batch_tokens"] == tokens
        steps.append(case["counts"]["steps"])
    assert steps == [6, 3]


def test_the_ladder_of_an_artifact_says_what_it_cannot_show(artifact: Path, tmp_path: Path) -> None:
    picture, output = tmp_path / "wide.jpg", tmp_path / "report"
    picture.write_bytes(jpeg(450, 225, 0))  # 3 tiles by the published rule, 1 by the native one
    done = call(
        *("bench", artifact, "--images", picture, "--ladder", "--device", "cpu"),
        *("--max-new-tokens", 1, "-o", output),
    )
    assert done.exit_code == 0, done.stderr
    values = read_reports(output)
    ladder = {rung["lever"]: rung for rung in values["ladder"]}
    missing = {lever: rung["missing"] for lever, rung in ladder.items() if rung["missing"]}
    assert set(missing) == {"features", "graphs", "quantization"}
    assert "give a second one" in missing["quantization"]
    cases = values["cases"]
    for case in cases:
        check_case(case)
    subjects = [case["subject"] for case in cases]
    assert [one["resampler"] for one in subjects] == ["pillow", "opencv", "opencv", "opencv"]
    assert [one["engine"] for one in subjects] == ["eager", "eager", "onnxruntime", "onnxruntime"]
    assert [case["workload"]["tiles_an_image"] for case in cases] == [3, 3, 3, 1]
    first, last = ladder["baseline"], ladder["tiles"]
    assert last["of_baseline"] == pytest.approx(last["qpm"] / first["qpm"])
    assert last["of_previous"] == pytest.approx(last["qpm"] / ladder["engine"]["qpm"])
    assert "not shown: CUDA graphs: they are for GPUs" in done.stdout


def test_the_second_artifact_of_a_ladder_is_quantized(artifact: Path, tmp_path: Path) -> None:
    picture = tmp_path / "square.jpg"
    picture.write_bytes(jpeg(320, 320, 0))
    done = call(
        *("bench", artifact, artifact, "--ladder", "--images", picture, "--tiles", "single"),
        *("--device", "cpu", "--max-new-tokens", 1, "--json"),
    )
    assert done.exit_code == 0, done.stderr
    values = json.loads(done.stdout)
    assert [rung["lever"] for rung in values["ladder"] if rung["missing"] is None] == [
        *("baseline", "resampler", "engine", "tiles", "quantization")
    ]
    assert values["cases"][-1]["workload"]["tiles_an_image"] == 1
