"""The steps of engines: what their keys are made of, and who has to make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from tests.builder.inductor import NEEDS, compiles_here
from tests.builder.steps.recipe_steps import keys, steps_of
from vlmc.artifact.engine_summary import engine_layers
from vlmc.artifact.integrity import open_artifact
from vlmc.builder.build import build, build_steps
from vlmc.builder.plan.plan import make_plan
from vlmc.builder.steps.engines import EngineTarget, engine_targets
from vlmc.builder.steps.step import Step
from vlmc.builder.store.step_cache import StepCache
from vlmc.errors import HardwareError, UsageError
from vlmc.machine.gpu import Gpu
from vlmc.machine.packages import EnginePackage
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, StepStarted
from vlmc.recipe.read import read_recipe
from vlmc.recipe.schema import EnginePart

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart"
RTX = "vision.engines=[{engine: tensorrt-rtx, targets: [sm86, sm89]}, {engine: onnxruntime}]"
LOCAL = "vision.engines=[{engine: tensorrt}, {engine: onnxruntime}]"
INDUCTOR = "vision.engines=[{engine: inductor, targets: [sm90]}, {engine: onnxruntime}]"
PACKAGE = "vision.inductor-sm90"
PLANS = {"vision.tensorrt-rtx-sm86", "vision.tensorrt-rtx-sm89"}


def test_a_target_more_makes_a_step_more(miniature: Path, tmp_path: Path) -> None:
    """And leaves the others as they are, in the cache."""
    both = keys(steps_of(miniature, tmp_path / "recipe.yaml", (RTX,)))
    one = keys(steps_of(miniature, tmp_path / "recipe.yaml", (RTX.replace("sm86, ", ""),)))
    none = keys(steps_of(miniature, tmp_path / "recipe.yaml"))
    assert both.keys() == none.keys() | PLANS
    assert one.items() < both.items()
    assert none.items() < one.items()


def test_profiles_and_versions_are_in_the_keys_of_plans_alone(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = keys(steps_of(miniature, tmp_path / "recipe.yaml", (RTX,)))
    profiles = "vision.profiles=[{min: 1, opt: 1, max: 13}]"
    other = keys(steps_of(miniature, tmp_path / "recipe.yaml", (RTX, profiles)))
    assert {name for name in usual if usual[name] != other[name]} == PLANS
    monkeypatch.setattr(EnginePackage, "version", property(lambda package: "9.9"))
    newer = keys(steps_of(miniature, tmp_path / "recipe.yaml", (RTX,)))
    assert {name for name in usual if usual[name] != newer[name]} == PLANS


def test_engine_without_targets_is_for_this_machines_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    part = EnginePart(engine="tensorrt")
    cards = (Gpu("NVIDIA H100", "sm90", 80 << 30), Gpu("NVIDIA L4", "sm89", 24 << 30))
    monkeypatch.setattr("vlmc.builder.steps.engines.gpus", lambda: cards)
    assert engine_targets([part]) == [EngineTarget("tensorrt", "sm90")]
    monkeypatch.setattr("vlmc.builder.steps.engines.gpus", lambda: ())
    assert engine_targets([part]) == [EngineTarget("tensorrt", "local")]


def test_plan_needs_neither_gpu_nor_package(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.builder.steps.engines.gpus", lambda: ())
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", miniature), (LOCAL,))
    plan = make_plan(recipe, StepCache(tmp_path / "cache"))
    (step,) = (step for step in plan.steps if step.name == "vision.tensorrt-local")
    assert (step.state, step.reason) == ("miss", "never built in this cache")
    assert step.bytes > 0
    assert step.seconds > 0


def test_build_without_the_gpu_says_who_must_build(
    quick_build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.builder.steps.engines.gpus", lambda: ())
    monkeypatch.setattr("vlmc.compile.engines.tensorrt.gpus", lambda: ())
    monkeypatch.setattr("vlmc.machine.aoti_environment.gpus", lambda: ())
    with pytest.raises(HardwareError, match="holds tensorrt without targets"):
        quick_build([LOCAL])
    with pytest.raises(HardwareError, match="must run on a machine with an sm89 GPU"):
        quick_build([LOCAL.replace("tensorrt}", "tensorrt, targets: [sm89]}")])
    with pytest.raises(HardwareError, match="holds inductor without targets"):
        quick_build([LOCAL.replace("tensorrt}", "inductor}")])
    with pytest.raises(
        HardwareError,
        match=rf"{PACKAGE} must run on a machine with an sm90 GPU, .*no GPU.*--steps {PACKAGE}",
    ):
        quick_build([INDUCTOR])


def test_what_cannot_be_made_here_is_refused_before_the_first_step(
    miniature: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", miniature), (INDUCTOR,))
    events: list[Event] = []
    with receiving(events.append), pytest.raises(HardwareError, match="must run on a machine"):
        build(recipe, tmp_path / "artifact", cache=StepCache(tmp_path / "cache"))
    assert not any(isinstance(event, StepStarted) for event in events)


def test_inductor_is_made_of_the_tower_and_not_of_the_graph(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*overrides: str) -> Step:
        steps = steps_of(miniature, tmp_path / "recipe.yaml", (INDUCTOR, *overrides))
        return next(step for step in steps if step.name == PACKAGE)

    assert [need.name for need in made().needs] == ["vision.weights"]
    alone = INDUCTOR.replace(", {engine: onnxruntime}", "")
    bf16 = made(alone, "vision.precision=bf16")  # which onnxruntime does not run
    assert [need.name for need in bf16.needs] == ["vision.weights"]
    fp16 = made("vision.precision=fp16")
    assert [need.name for need in fp16.needs] == ["vision.weights", "vision.ranges"]
    keys = {made().key, fp16.key, bf16.key}
    keys.add(made("vision.profiles=[{min: 1, opt: 1, max: 13}]").key)
    monkeypatch.setattr("vlmc.builder.steps.engines.torch_cuda", lambda: "99.9")
    keys.add(made().key)
    monkeypatch.setattr(EnginePackage, "version", property(lambda package: "9.9"))
    keys.add(made().key)
    assert len(keys) == 6


def test_inductor_is_planned_without_a_gpu(miniature: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", miniature), (INDUCTOR,))
    plan = make_plan(recipe, StepCache(tmp_path / "cache"))
    (step,) = (step for step in plan.steps if step.name == PACKAGE)
    assert plan.refusals == ()
    assert (step.state, step.reason) == ("miss", "never built in this cache")
    assert step.bytes > 0
    assert step.seconds > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_package_of_another_machine_is_taken_from_the_cache(
    precision: str,
    quick_build: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLMC_CACHE", str(tmp_path / "cache"))
    overrides = [INDUCTOR, f"vision.precision={precision}"]
    with monkeypatch.context() as there:
        compiles_here(there)
        first = quick_build(overrides, tmp_path / "first")
    folder = quick_build(overrides, tmp_path / "second")
    assert (folder / "manifest.json").read_bytes() == (first / "manifest.json").read_bytes()
    manifest = open_artifact(folder).manifest
    assert "language/kernels-sm90.zip" in manifest.payload
    package, graph = manifest.engines
    assert (package.file, package.precision) == ("vision/inductor-sm90.pt2", precision)
    assert package.versions == {"inductor": version("torch"), **NEEDS.versions()}
    assert package.profiles == graph.profiles
    assert (engine_layers(folder, manifest, package) or {})["matrix_multiply"].keys() == {precision}


@pytest.mark.skipif(
    EnginePackage("tensorrt", ("tensorrt",)).version is not None, reason="it is installed here"
)
def test_missing_package_is_told(
    quick_build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = (Gpu("NVIDIA L4", "sm89", 24 << 30),)
    monkeypatch.setattr("vlmc.compile.engines.tensorrt.gpus", lambda: cards)
    with pytest.raises(UsageError, match=r"needs the package tensorrt, .*pypi\.nvidia\.com"):
        quick_build([LOCAL.replace("tensorrt}", "tensorrt, targets: [sm89]}")])


@pytest.mark.parametrize(
    "targets", [("sm89",), pytest.param(("sm86", "sm89"), marks=pytest.mark.slow)]
)
def test_the_quickstart_for_cards(targets: tuple[str, ...]) -> None:
    """Calibrated and planned by the real builder, a plan for each card."""
    pytest.importorskip("tensorrt_rtx", reason="has wheels for Linux on x86-64 alone")
    overrides = (
        "vision.precision=int8",
        "calibration={dataset: calibration.jsonl, samples: 4}",
        RTX.replace("sm86, sm89", ", ".join(targets)),
    )
    recipe = read_recipe(QUICKSTART / "recipe.yaml", overrides)
    outcomes = build_steps(recipe, ["vision"])
    plans = [one.entry.folder for one in outcomes if one.step.name in PLANS]
    assert len(plans) == len(targets)
    for folder in plans:
        (told,) = (folder / "report").glob("*.json")
        report = json.loads(told.read_text())
        in_int8 = report["layers"]["matrix_multiply"]["int8"]
        assert in_int8 >= 14, "of 18 linears; a few may stay in 16 bits"
        assert report["products"]["int8"] == len(recipe.vision.profiles) * in_int8
