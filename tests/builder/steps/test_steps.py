"""What a change rebuilds, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from tests.artifacts import write_recipe
from tests.builder.steps.recipe_steps import keys, steps_of
from vlmc.artifact.manifest import read_manifest
from vlmc.builder.build import build, build_steps
from vlmc.builder.steps import step_key
from vlmc.builder.store.step_cache import StepCache
from vlmc.cli.main import main
from vlmc.errors import BuildError, UsageError
from vlmc.recipe.read import read_recipe

VISION = {"vision.weights", "vision.golden", "vision.graph"}
LANGUAGE = {"language.settings", "language.tokenizer", "language.weights"}
# Override → steps that it changes.
CHANGES: dict[str, set[str]] = {
    "name=other": set(),
    "image.tiles.rule=single": set(),
    "image.resampler=pillow": set(),
    "image.exif=apply": set(),
    "image.high_bit_depth=scale": set(),
    "model.system_message=Be brief.": set(),
    "model.template=Hermes-2": set(),  # its stop token is this template's, too
    "accuracy={dataset: eval.jsonl, normalize: [nfkc], min_answer_agreement: 0.5}": set(),
    "accuracy.max_recall_drop=0.02": set(),
    "runtime.max_batch_tokens=4096": set(),
    "accuracy.reference_dtype=fp32": set(),
    "accuracy.min_feature_cosine=0.9": set(),
    "model.dtype=fp16": {"language.settings", "language.weights"},
}


def changed(one: dict[str, str], other: dict[str, str]) -> set[str]:
    assert one.keys() == other.keys() == VISION | LANGUAGE
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize("override", CHANGES)
def test_recipe_changes_what_acts_on_it(override: str, miniature: Path, tmp_path: Path) -> None:
    usual = keys(steps_of(miniature, tmp_path / "recipe.yaml"))
    other = keys(steps_of(miniature, tmp_path / "recipe.yaml", (override,)))
    assert changed(usual, other) == CHANGES[override]


def _edit(name: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        for key, value in changes.items():
            *above, last = key.split("__")
            target = values
            for part in above:
                target = target[part]
            target[last] = value
        (folder / name).write_text(json.dumps(values))

    return edit


def _add_code(folder: Path) -> None:
    (folder / "modeling_internvl_chat.py").write_text("raise SystemExit")


def _add_one(prefix: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(tensors) if name.startswith(prefix))
        tensors[name] = tensors[name] + 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


# Change of the checkpoint → steps that it changes.
SOURCES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "note": (_edit("generation_config.json", note=1), set()),
    "tiles": (_edit("config.json", max_dynamic_patch=4), set()),
    "code": (_add_code, set()),
    "epsilon": (_edit("config.json", vision_config__layer_norm_eps=1e-3), VISION),
    "select layer": (_edit("config.json", select_layer=-2), VISION),
    "rope": (_edit("config.json", llm_config__rope_theta=77.0), {"language.settings"}),
    "weights": (
        _add_one("language_model."),  # one file holds them all
        VISION | {"language.weights"},
    ),
    "tokenizer": (_edit("tokenizer_config.json", note=1), {"language.tokenizer"}),
}


@pytest.mark.parametrize("change", SOURCES)
def test_checkpoint_changes_what_is_made_of_it(
    change: str, miniature: Path, tmp_path: Path
) -> None:
    edit, expected = SOURCES[change]
    copy = shutil.copytree(miniature, tmp_path / "elsewhere" / miniature.name)
    recipe = tmp_path / "recipe.yaml"
    assert changed(keys(steps_of(miniature, recipe)), keys(steps_of(copy, recipe))) == set()
    edit(copy)
    assert changed(keys(steps_of(miniature, recipe)), keys(steps_of(copy, recipe))) == expected


def test_shards_of_one_wing_leave_the_other(miniature: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(miniature, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {
        name: "b.safetensors" if name.startswith("language_model.") else "a.safetensors"
        for name in tensors
    }

    def write() -> None:
        for file in set(placed.values()):
            save_file({n: t for n, t in tensors.items() if placed[n] == file}, folder / file)

    write()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    before = keys(steps_of(folder, tmp_path / "recipe.yaml"))
    name = next(name for name in tensors if name.startswith("language_model."))
    tensors[name] = tensors[name] + 1
    write()
    after = keys(steps_of(folder, tmp_path / "recipe.yaml"))
    assert changed(before, after) == {"language.weights"}


def test_tool_versions_are_part_of_the_key(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(steps_of(miniature, tmp_path / "recipe.yaml"))
    real = step_key.version
    for tool, expected in {
        "onnxscript": {"vision.graph"},
        "safetensors": {"vision.weights", "language.weights"},
        "torch": VISION | {"language.weights"},
    }.items():
        monkeypatch.setattr(
            step_key, "version", lambda name, tool=tool: "9" if name == tool else real(name)
        )
        assert changed(before, keys(steps_of(miniature, tmp_path / "recipe.yaml"))) == expected


def test_tool_that_is_not_installed(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise step_key.PackageNotFoundError(name)

    monkeypatch.setattr(step_key, "version", missing)
    with pytest.raises(UsageError, match=r"needs the package torch.*\[build\]"):
        steps_of(miniature, tmp_path / "recipe.yaml")


def test_machines_share_the_work(
    artifact: Path, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One brings the vision steps into the cache, one the rest, and a third builds of them."""
    recipe = read_recipe(
        write_recipe(tmp_path / "recipe.yaml", miniature),
        ("model.dtype=fp32", "image.resampler=pillow", f"name={artifact.name}"),
    )
    monkeypatch.chdir(tmp_path)
    cache = StepCache(tmp_path / "cache")
    graph = keys(steps_of(miniature, tmp_path / "recipe.yaml"))["vision.graph"]
    exported = StepCache().folder / "steps" / graph  # by the fixture; it takes seconds
    shutil.copytree(exported, cache.folder / "steps" / graph)
    vision = build_steps(recipe, ["vision"], cache=cache)
    assert {outcome.step.name for outcome in vision} == VISION
    assert {entry.name for entry in cache.entries()} == VISION
    language = build_steps(
        recipe,
        ["language.weights", "language.settings", "language.tokenizer"],
        cache=cache,
    )
    assert {outcome.state for outcome in language} == {"built"}
    assert not (tmp_path / "artifacts").exists()
    built = build(recipe, tmp_path / artifact.name, cache=cache)
    report = json.loads((built / "reports" / "build.json").read_text())
    assert {step["state"] for step in report["steps"]} == {"cached"}
    payload = read_manifest(artifact).payload
    assert {k: v for k, v in read_manifest(built).payload.items() if k != "recipe.yaml"} == {
        k: v for k, v in payload.items() if k != "recipe.yaml"
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("visoin", "did you mean vision"),
        ("vision.weight", "did you mean vision.weights"),
        ("", "known: vision, vision.weights"),
    ],
)
def test_unknown_step_is_refused(name: str, said: str, miniature: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", miniature), ())
    with pytest.raises(UsageError, match=f"--steps {name}: no such step.*{said}"):
        build_steps(recipe, [name])
    with pytest.raises(UsageError, match=f"--force {name}: no such step.*{said}"):
        build(recipe, tmp_path / "artifact", force=[name])


def test_command_brings_steps_into_the_cache(miniature: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    made = keys(steps_of(miniature, recipe))
    command = ["build", str(recipe), "--steps", "language.settings, language.tokenizer"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    names = ("language.settings", "language.tokenizer")
    assert result.stdout.splitlines() == [f"{name} {made[name]}" for name in names]
    result = CliRunner().invoke(main, [*command, "--force", "language.settings", "--json"])
    told = json.loads(result.stdout)["steps"]
    assert [(step["name"], step["state"]) for step in told] == [
        ("language.settings", "built"),
        ("language.tokenizer", "cached"),
    ]
    for wrong in (["-o", str(tmp_path / "x")], ["--force", "vision.graph"]):
        result = CliRunner().invoke(main, [*command, *wrong])
        assert result.exit_code == 2
        assert result.stdout == ""


def test_forced_step_is_made_anew(miniature: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", miniature), ())
    cache = StepCache(tmp_path / "cache")
    for force, state in (((), "built"), ((), "cached"), (("language",), "built")):
        outcomes = build_steps(recipe, ["language"], force=force, cache=cache)
        assert {outcome.state for outcome in outcomes} == {state}


def test_source_that_changes_meanwhile_is_noticed(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(miniature, tmp_path / "checkpoint")
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", copy), ())
    cache = StepCache(tmp_path / "cache")

    def write(_: object, folder: Path, __: str) -> None:
        (folder / "model.safetensors").write_bytes(b"x")
        _add_one("language_model.")(copy)

    monkeypatch.setattr("vlmc.compile.language.weights.write_weights", write)
    with pytest.raises(BuildError, match=r"model\.safetensors was changed during the build"):
        build_steps(recipe, ["language.weights"], cache=cache)
    assert cache.entries() == []


COMMAND = """
import sys
from vlmc.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code, error.code
print(*sys.modules, file=sys.stderr)
"""


def test_cached_build_is_quick_since_nothing_heavy_is_imported(
    miniature: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    build(read_recipe(recipe, ()), tmp_path / "first")
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", COMMAND, "build", str(recipe), "-o", str(tmp_path / "second")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    seconds = time.perf_counter() - start
    assert finished.stdout.strip() == str(tmp_path / "second")
    assert "vision.graph: cached" in finished.stderr
    modules = set(finished.stderr.splitlines()[-1].split())
    assert "yaml" in modules
    assert modules & {"torch", "onnx", "onnxscript", "onnxruntime", "cv2", "transformers"} == set()
    # Three seconds are promised for a machine that does nothing else.
    assert seconds < 10
    identity = read_manifest(tmp_path / "first").identity
    assert read_manifest(tmp_path / "second").identity == identity
