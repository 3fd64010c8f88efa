"""The artifact appears whole, where it should, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import read_manifest
from vlmc.errors import (
    BuildError,
    CheckpointError,
    IntegrityError,
    RecipeError,
    TokenizerError,
    UsageError,
    VlmcError,
)
from vlmc.progress.events import Event

Build = Callable[..., Path]
STEPS = [
    "vision.weights",
    "vision.golden",
    "vision.graph",
    "language.settings",
    "language.tokenizer",
    "language.weights",
]


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_artifact_is_named_by_its_identity_and_linked(
    quick_build: Build, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    folder = quick_build()
    identity = open_artifact(folder).identity
    assert folder == Path("artifacts") / f"miniature-{identity[:8]}"
    assert listing(tmp_path / "artifacts") == ["miniature", folder.name]
    assert Path("artifacts/miniature").readlink() == Path(folder.name)
    report = json.loads((folder / "reports" / "build.json").read_text())
    assert report["identity"] == identity
    assert report["accuracy_dataset"] is None
    assert Path(report["checkpoint"]).is_dir()
    assert [step["name"] for step in report["steps"]] == STEPS
    assert {step["state"] for step in report["steps"]} <= {"built", "cached"}
    assert said()[-1] == f"built {folder}"


def test_link_moves_to_the_newest_and_back(quick_build: Build) -> None:
    link = Path("artifacts/miniature")
    first = quick_build(["model.dtype=fp32"])
    second = quick_build(["model.dtype=fp16"])
    assert first != second
    assert link.resolve() == second.resolve()
    assert quick_build(["model.dtype=fp32"]) == first
    assert link.resolve() == first.resolve()
    assert listing(link.parent) == sorted(["miniature", first.name, second.name])


def test_output_is_the_folder_named(quick_build: Build, tmp_path: Path) -> None:
    output = tmp_path / "some" / "where"
    assert quick_build(output=output) == output
    assert open_artifact(output).manifest.name == "miniature"
    assert listing(tmp_path / "some") == ["where"]
    assert not (tmp_path / "artifacts").exists()
    identity = read_manifest(output).identity
    assert quick_build(output=output) == output, "an equal artifact is kept"
    assert read_manifest(output).identity == identity


def test_recipe_in_the_artifact_is_a_whole_recipe(quick_build: Build, miniature: Path) -> None:
    folder = quick_build(["image.tiles={rule: native, max: 3}"])
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["model"].pop("checkpoint") == miniature.name
    assert str(miniature) not in (folder / "recipe.yaml").read_text()
    system_message = recipe["model"].pop("system_message")
    assert system_message.startswith("你是由上海人工智能实验室")
    assert recipe == {
        "version": 1,
        "name": "miniature",
        "model": {"dtype": "bf16", "template": "internlm2-chat"},
        "image": {
            "resampler": "opencv",
            "exif": "ignore",
            "high_bit_depth": "original",
            "tiles": {
                "rule": "native",
                "min": 1,
                "max": 3,
                "thumbnail": False,
                "tolerance": 0.05,
            },
            "prune": {"keep": 1.0},
        },
        "vision": {
            "precision": "fp32",
            "engines": [{"engine": "onnxruntime"}],
            "profiles": [{"min": 1, "opt": 4, "max": 13}],
        },
        "language": {"scheme": "none"},
        "runtime": {"cuda_graphs": True, "prefix_cache": "content", "max_batch_tokens": 16384},
        "accuracy": {
            "dataset": None,
            "reference_dtype": "auto",
            "normalize": ["nfkc", "casefold", "strip_punctuation"],
            "min_feature_cosine": 0.99999,
            "min_answer_agreement": 0.95,
            "max_recall_drop": 0.01,
        },
    }


def test_building_the_resolved_recipe_gives_the_same_artifact(
    quick_build: Build, miniature: Path
) -> None:
    first = quick_build(["image.tiles={rule: single}", "model.dtype=fp16"])
    resolved = yaml.safe_load((first / "recipe.yaml").read_text(encoding="utf-8"))
    resolved["model"]["checkpoint"] = str(miniature)
    again = quick_build([f"{key}={json.dumps(value)}" for key, value in resolved.items()])
    assert again == first


def test_source_is_recorded_by_content(quick_build: Build, miniature: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(miniature, tmp_path / "elsewhere" / miniature.name)
    (copy / "modeling_internvl_chat.py").write_text("raise SystemExit")
    (copy / "README.md").write_text("x")
    first, second = quick_build(), quick_build(checkpoint=copy)
    assert first == second, "code and documentation of a checkpoint change nothing"
    manifest = read_manifest(first)
    assert set(manifest.source) == {path.name for path in miniature.iterdir()}
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(settings | {"note": 1}))
    assert read_manifest(quick_build(checkpoint=copy)).source != manifest.source


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _cut_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def _unknown_template(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"template": "vicuna"}))


FAILURES: dict[str, tuple[Callable[[Path], None], type[VlmcError]]] = {
    "no folder": (shutil.rmtree, CheckpointError),
    "no config": (_no_config, CheckpointError),
    "cut weights": (_cut_weights, CheckpointError),
    "no tokenizer": (_no_tokenizer, TokenizerError),
    "unknown template": (_unknown_template, RecipeError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_bad_checkpoint_leaves_nothing_behind(
    failure: str, quick_build: Build, miniature: Path, tmp_path: Path
) -> None:
    damage, expected = FAILURES[failure]
    checkpoint = shutil.copytree(miniature, tmp_path / "checkpoint")
    damage(checkpoint)
    with pytest.raises(expected):
        quick_build(checkpoint=checkpoint)
    assert listing(tmp_path / "artifacts") == []
    with pytest.raises(expected):
        quick_build(output=tmp_path / "output" / "artifact", checkpoint=checkpoint)
    assert listing(tmp_path / "output") == []


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(28, "No space left"), SystemExit()])
def test_failing_step_leaves_nothing_and_moves_no_link(
    error: BaseException, quick_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = quick_build()
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vlmc.compile.vision.write_weights", fail)
    expected = BuildError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="No space left" if expected is BuildError else None):
        quick_build(["model.dtype=fp16"])
    assert listing(tmp_path / "artifacts") == ["miniature", good.name]
    assert Path("artifacts/miniature").resolve() == good.resolve()


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_output_in_the_way_is_refused_before_the_work(
    what: str, quick_build: Build, tmp_path: Path, events: list[Event]
) -> None:
    output = tmp_path / "taken"
    if what == "file":
        output.write_text("precious")
    elif what == "folder":
        output.mkdir()
    else:
        output.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists and is not an artifact"):
        quick_build(output=output)
    assert events == []


def test_another_artifact_is_never_replaced(quick_build: Build, tmp_path: Path) -> None:
    output = quick_build(output=tmp_path / "output")
    identity = read_manifest(output).identity
    with pytest.raises(UsageError, match="is another artifact"):
        quick_build(["model.dtype=fp16"], output=output)
    assert open_artifact(output).identity == identity
    assert [name for name in listing(tmp_path) if "partial" in name] == []


def test_damaged_artifact_is_not_taken_for_built(quick_build: Build) -> None:
    folder = quick_build()
    with (folder / "language" / "model.safetensors").open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(IntegrityError, match="Remove it, then build again"):
        quick_build()
    shutil.rmtree(folder)
    assert open_artifact(quick_build()).folder == folder.resolve()


def test_name_taken_by_a_folder_is_refused_before_the_work(
    quick_build: Build, events: list[Event]
) -> None:
    Path("artifacts/miniature").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not a link; move it away"):
        quick_build()
    assert events == []
    assert listing(Path("artifacts")) == ["miniature"]


def test_place_that_cannot_be_written_to_is_refused_before_the_work(
    quick_build: Build, tmp_path: Path, events: list[Event]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file cannot be written to; name another folder"):
        quick_build(output=tmp_path / "file" / "artifact")
    assert events == []
