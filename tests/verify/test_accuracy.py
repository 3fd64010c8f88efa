"""`vlmc verify accuracy` on real artifacts: a good one passes, and what is broken is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from tests.artifacts import build_from
from tests.command import call
from vlmc.artifact.accuracy_status import read_accuracy
from vlmc.artifact.manifest import EngineRecord, Manifest, read_manifest
from vlmc.artifact.write import seal
from vlmc.image.tiles import TileRule
from vlmc.verify.ladder import RUNGS


def verify(artifact: Path, *options: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object (empty if none) and stderr."""
    result = call("verify", "accuracy", artifact, "--json", *options)
    return result.exit_code, json.loads(result.stdout or "{}"), result.stderr


def resealed(folder: Path, change: Callable[[Manifest], Manifest] = lambda m: m) -> Path:
    """The folder with a manifest that is true of what lies in it, which makes it another artifact:
    the build's report, and with it where the source was, no longer counts."""
    seal(folder, change(read_manifest(folder)))
    return folder


def test_good_artifact_passes(copied: Path, questions: Path) -> None:
    code, told, _ = verify(copied, "--dataset", questions, "--explain")
    assert code == 0, "the source is where the build found it"
    assert told["status"] == "passed"
    (engine,) = told["engines"]
    assert (engine["engine"], engine["target"], engine["status"]) == (
        "onnxruntime",
        "cpu",
        "passed",
    )
    assert engine["reference"]["same_source"] is True
    assert engine["pixels"]["max"] == 0, "Pillow, bit for bit"
    assert engine["pixels"]["tiles"] == 1 + 7
    assert engine["features"]["worst_cosine"] > 0.999999
    assert engine["features"]["by_batch_tiles"].keys() >= {"1", "14"}
    assert engine["answers"]["agreement"]["value"] == 1
    assert engine["answers"]["exact_match"] == engine["answers"]["agreement"]
    assert engine["answers"]["questions"].keys() == {"presence", "other"}
    assert engine["disagreements"] == engine["explanations"] == []
    ladder = engine["ladder"]
    assert [rung["name"] for rung in ladder["rungs"]] == list(RUNGS)
    assert {(rung["agreement"], rung["exact"], rung["n"]) for rung in ladder["rungs"]} == {
        (1, 1, 6)
    }
    assert all(rung["recall"] == 0 and rung["qpm"] > 0 for rung in ladder["rungs"])
    assert ladder["steepest"] is None
    assert set(engine["underpowered"]) == {"min_answer_agreement", "max_recall_drop"}

    report = Path(told.pop("report"))
    assert Path(told.pop("page")) == report.with_suffix(".html")
    assert report == copied / "reports" / f"accuracy-{told['dataset']['digest']}.json"
    assert {**json.loads(report.read_text()), "status": "passed"} == told
    assert call("verify", "integrity", copied).exit_code == 0, "reports are no payload"
    assert json.loads(call("inspect", copied, "--json").stdout)["accuracy"] == "passed"
    assert "accuracy passed" in call("inspect", copied).stdout


def test_a_model_on_two_devices_is_verified(copied: Path, questions: Path) -> None:
    options = ("--dataset", questions, "--limit", 2, "--devices", 2)
    code, told, error = verify(copied, *options)
    assert code == 0, error
    (engine,) = told["engines"]
    assert engine["features"]["worst_cosine"] > 0.999999
    # A batch is shared out, so its sizes are those of both engines.
    assert engine["features"]["by_batch_tiles"].keys() >= {"1", "27"}
    assert engine["answers"]["agreement"]["value"] == 1


def test_few_questions_fail_when_it_is_strict(copied: Path, questions: Path) -> None:
    code, told, error = verify(copied, "--dataset", questions, "--limit", 2, "--strict")
    assert code == 3
    assert (told["dataset"]["questions"], told["dataset"]["limit"]) == (2, 2)
    assert told["status"] == told["engines"][0]["status"] == "not_run"
    assert "the questions are too few" in error and "min_answer_agreement: 1.0000" in error
    shown = call("verify", "accuracy", copied, "--dataset", questions, "--limit", 2)
    assert shown.exit_code == 0
    for part in (
        "2 questions on 1 images, the first 2 of the file",
        "language model bfloat16, on cpu",
        "pillow against Pillow: mean 0.000, 99 % within 0, at most 0 levels",
        "passed  min_answer_agreement: 1.0000 [0.3424, 1.0000], at least 0.95, n 2, underpowered",
        "a limited run never passes",
    ):
        assert part in shown.stdout


def test_run_tells_and_requires(copied: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = ["run", copied, questions.parent / "448x448.jpg", "--prompt", "A room?", "-o", out]
    required = [*command, "--require-verified"]
    refused = call(*required)
    assert refused.exit_code == 3 and not out.exists()
    assert "is not_run, and --require-verified needs it passed" in refused.stderr
    assert verify(copied, "--dataset", questions, "--limit", 2)[0] == 0
    limited = call(*required)
    assert limited.exit_code == 3 and not out.exists()
    assert "covers only the first 2 questions" in limited.stderr
    assert verify(copied, "--dataset", questions)[0] == 0
    other = call(*required, "--tiles", "native:max=2")
    assert other.exit_code == 3 and not out.exists()
    assert "unverified, since the artifact's tile rule is original" in other.stderr
    ran = call(*required)
    assert ran.exit_code == 0
    assert "accuracy passed" in ran.stderr
    report = next(
        path
        for path in (copied / "reports").glob("accuracy-*.json")
        if json.loads(path.read_text())["dataset"]["limit"] is None
    )
    values = json.loads(report.read_text())
    report.write_text(json.dumps({**values, "identity": "0" * 64}))
    again = call(*command)
    assert "accuracy not_run" in again.stderr
    assert f"{report} belongs to another artifact, 00000000; ignored" in again.stderr
    shown = call("inspect", copied)
    assert "accuracy not_run" in shown.stdout and "ignored" in shown.stdout


def scaled(folder: Path) -> None:
    """One weight matrix of the graph, half as large again."""
    path = folder / "vision" / "model.onnx"
    model = onnx.load(path)
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    largest = max(weights, key=lambda tensor: tensor.dims[0] * tensor.dims[1])
    values = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(1.5 * values, largest.name))
    onnx.save(model, path)


def test_scaled_weight_is_caught(copied: Path, questions: Path, miniature: Path) -> None:
    scaled(copied)
    code, told, error = verify(
        resealed(copied), "--source", miniature, "--dataset", questions, "--explain"
    )
    assert code == 3
    assert "min_feature_cosine" in error and "in a batch of" in error
    (engine,) = told["engines"]
    assert engine["status"] == "failed"
    assert engine["features"]["worst_cosine"] < 0.9999
    (worst, *_) = engine["features"]["below"]
    assert worst["cosine"] == engine["features"]["worst_cosine"]
    for explanation in engine["explanations"]:
        assert explanation["level"] == "features"
        assert explanation["answers"]["source features"] == explanation["reference"]
    assert engine["ladder"]["steepest"] == "vision engine"
    assert json.loads(call("inspect", copied, "--json").stdout)["accuracy"] == "failed"


def test_another_resampler_is_caught(copied: Path, questions: Path, miniature: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        return replace(manifest, image=replace(manifest.image, resampler="opencv"))

    code, told, error = verify(
        resealed(copied, change), "--source", miniature, "--dataset", questions
    )
    assert code == 3
    assert "pixels" in error and "480x320.jpg: pixels that the recipe's resampler, pillow" in error
    # A picture of a tile's own size is not resized at all.
    assert len(told["engines"][0]["pixels"]["wrong"]) == 1


def test_fewer_tiles_are_caught(copied: Path, questions: Path, miniature: Path) -> None:
    def change(manifest: Manifest) -> Manifest:
        return replace(manifest, image=replace(manifest.image, tiles=TileRule("native", max=1)))

    code, _, error = verify(resealed(copied, change), "--source", miniature, "--dataset", questions)
    assert code == 3
    assert "480x320.jpg: 1 tiles, and the recipe's rule original" in error


def test_rule_is_blamed_for_what_it_changes(
    miniature: Path, questions: Path, tmp_path: Path
) -> None:
    """An artifact that means to read fewer tiles: its pixels are its recipe's, its answers not the
    source's."""
    folder = build_from(
        miniature,
        tmp_path / "few",
        ("model.dtype=fp32", "image.resampler=pillow", "image.tiles={rule: native, max: 1}"),
    )
    code, told, error = verify(folder, "--dataset", questions, "--explain")
    (engine,) = told["engines"]
    assert engine["pixels"]["wrong"] == []
    assert code == 3 and "min_answer_agreement" in error
    assert {found["level"] for found in engine["explanations"]} == {"pixels"}
    assert engine["ladder"]["steepest"] == "tile rule"
    assert all("tile rule native:max=1" in found["cause"] for found in engine["explanations"])
    assert {found["image"] for found in engine["explanations"]} == {
        str(questions.parent / "480x320.jpg")
    }


def test_gate_is_the_recipes(miniature: Path, questions: Path, tmp_path: Path) -> None:
    """The same artifact with lax thresholds passes; the questions lie where the recipe said."""
    folder = build_from(
        miniature,
        tmp_path / "few",
        (
            "model.dtype=fp32",
            "image.tiles={rule: native, max: 1}",
            f"accuracy.dataset={questions}",
            "accuracy.reference_dtype=bf16",
            "accuracy.normalize=[nfkc]",
            "accuracy.min_answer_agreement=0.25",
            "accuracy.max_recall_drop=0.5",
        ),
    )
    recipe = (folder / "recipe.yaml").read_text()
    assert "dataset: eval.jsonl" in recipe and str(tmp_path) not in recipe
    code, told, error = verify(folder)
    assert code == 0, error
    (engine,) = told["engines"]
    assert engine["reference"]["language_dtype"] == "bfloat16"
    assert {v["name"]: v["threshold"] for v in engine["verdicts"]} == {
        "pixels": None,
        "min_feature_cosine": 0.99999,
        "min_answer_agreement": 0.25,
        "max_recall_drop": 0.5,
    }
    assert engine["pixels"]["max"] > 0, "OpenCV is not Pillow"
    assert engine["answers"]["agreement"]["value"] < 0.95


def test_language_model_is_blamed(
    copied: Path, questions: Path, miniature: Path, tmp_path: Path
) -> None:
    """One layer turned over, so that the source's features do not help."""
    path = copied / "language" / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if ".layers.0." in name]:
        tensors[name] = tensors[name] * -2
    save_file(tensors, path, metadata={"format": "pt"})
    source = shutil.copytree(miniature, tmp_path / "source")
    (source / "generation_config.json").write_text("{}")
    code, told, _ = verify(
        resealed(copied), "--source", source, "--dataset", questions, "--explain"
    )
    (engine,) = told["engines"]
    assert code == 3
    assert engine["reference"]["same_source"] is False, "it is compared all the same"
    assert engine["features"]["worst_cosine"] > 0.999999
    assert {found["level"] for found in engine["explanations"]} == {"language"}
    assert engine["ladder"]["steepest"] == "language model"


def test_reference_takes_the_sources_place(
    copied: Path, questions: Path, miniature: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nname: small\nmodel: {{checkpoint: {miniature}, dtype: fp32}}\n"
        "image: {resampler: pillow}\nvision: {precision: fp32}\n"
        f"accuracy: {{dataset: {questions}, reference_dtype: fp32}}\n"
    )
    made = call("verify", "reference", recipe, "-o", tmp_path / "reference", "--json")
    assert made.exit_code == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["answers"], told["images"], told["tiles"]) == (6, 2, 8)
    moved = shutil.copytree(questions.parent, tmp_path / "elsewhere") / questions.name
    code, told, error = verify(copied, "--reference", tmp_path / "reference", "--dataset", moved)
    assert code == 0, error
    (engine,) = told["engines"]
    assert engine["reference"]["kind"] == "file"
    assert engine["reference"]["same_source"] is True
    assert engine["answers"]["agreement"]["value"] == 1
    assert engine["pixels"]["decoded_otherwise"] == 0
    # The path where it was made serves while it is there.
    assert verify(copied, "--reference", tmp_path / "reference", "--limit", 1)[0] == 0
    shutil.rmtree(questions.parent)
    code, _, error = verify(copied, "--reference", tmp_path / "reference")
    assert code == 2 and "Give it with --dataset" in error
    moved.write_text(moved.read_text().replace("room", "kitchen"))
    code, _, error = verify(copied, "--reference", tmp_path / "reference", "--dataset", moved)
    assert code == 2 and "the reference has no answer to this prompt" in error


def test_graph_stands_in_for_engines_that_do_not_run_here(
    copied: Path, questions: Path, miniature: Path
) -> None:
    def change(manifest: Manifest) -> Manifest:
        (engine,) = manifest.engines
        other = replace(engine, engine="tensorrt-rtx", target="sm89")
        return replace(manifest, engines=(engine, other))

    folder = resealed(copied, change)
    code, told, _ = verify(
        folder, "--source", miniature, "--engine", "onnxruntime", "--dataset", questions
    )
    assert code == 0
    assert [(one["engine"], one["status"]) for one in told["engines"]] == [
        ("onnxruntime", "passed"),
        ("tensorrt-rtx", "onnx_only"),
    ]
    row = "<tr><td>tensorrt-rtx</td><td>sm89</td><td>onnx_only</td></tr>"
    assert row in Path(told["page"]).read_text("utf-8")
    found = read_accuracy(folder, read_manifest(folder).identity)
    by_name: dict[str, EngineRecord] = {e.engine: e for e in read_manifest(folder).engines}
    assert found.status(by_name["tensorrt-rtx"]) == "onnx_only"
    assert found.overall(read_manifest(folder)) == "onnx_only"


BAD: list[tuple[list[str], str]] = [
    ([], "Give it with --dataset"),
    (["--source", "a", "--reference", "b"], "leave one out"),
    (["--reference", "none"], "is not a valid reference file"),
    (["--explain", "--reference", "none"], "give --source in place of"),
    (["--engine", "tensort"], "holds no engine 'tensort'; it holds onnxruntime."),
    (["--dataset", "none.jsonl"], r"none.jsonl cannot be read"),
    (["--devices", "2", "--explain"], "--explain and --sweep run on one device"),
    (["--devices", "2", "--against", "other"], "--devices has no effect beside --against"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_bad_calls(options: list[str], said: str, copied: Path) -> None:
    code, told, error = verify(copied, *options)
    assert (code, told) == (2, {})
    assert said in error
    assert not list((copied / "reports").glob("accuracy-*"))


def test_missing_source_is_told(copied: Path, questions: Path) -> None:
    (copied / "reports" / "build.json").unlink()
    code, _, error = verify(copied, "--dataset", questions)
    assert code == 2 and "--source" in error and "--reference" in error
    code, _, error = verify(copied, "--source", questions.parent / "no", "--dataset", questions)
    assert code == 1 and "is not a folder" in error


def test_features_and_scores_that_are_not_finite_never_pass(
    copied: Path, questions: Path, miniature: Path
) -> None:
    """One NaN of the graph: the gate says so, and the ladder where it is."""
    path = copied / "vision" / "model.onnx"
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = float("nan")
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)
    code, told, error = verify(
        resealed(copied), "--source", miniature, "--dataset", questions, "--explain"
    )
    assert code == 3
    assert "finite: scores that are NaN or infinite, n 6" in error
    assert "artifact '(scores are NaN or infinite)'" in error
    (engine,) = told["engines"]
    assert engine["features"]["worst_cosine"] == -1
    assert engine["divergence"] is None
    assert engine["answers"]["agreement"]["value"] == 0
    assert engine["ladder"]["steepest"] == "vision engine"
    assert {found["level"] for found in engine["explanations"]} == {"features"}
