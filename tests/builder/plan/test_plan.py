"""What a plan says before a build, and what the build then does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from tests.builder.headers import write_headers_8b, write_headers_8b_awq
from tests.builder.plan.processor_time import of_children
from vlmc.artifact.integrity import payload_files
from vlmc.artifact.manifest import MANIFEST
from vlmc.builder.build import build
from vlmc.builder.plan.plan import Plan, make_plan
from vlmc.builder.plan.plan_json import plan_json
from vlmc.builder.steps.samples import read_samples
from vlmc.builder.store.step_cache import StepCache
from vlmc.errors import CheckpointError, UsageError
from vlmc.machine.gpu import Gpu
from vlmc.recipe.read import read_recipe

QUICKSTART = Path(__file__).parents[3] / "recipes" / "quickstart" / "recipe.yaml"
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "cv2", "PIL", "transformers")


@pytest.fixture
def planned(miniature: Path, tmp_path: Path) -> Callable[..., Plan]:
    """`planned(*overrides, cache=…)` plans the miniature, with an empty cache if none is given."""
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)

    def plan(*overrides: str, cache: StepCache | None = None) -> Plan:
        return make_plan(read_recipe(recipe, overrides), cache or StepCache(tmp_path / "cache"))

    return plan


@pytest.fixture
def built(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact of the miniature, whose steps and digests are in the cache that tests share."""
    # Digests of files as young as the miniature's are not remembered otherwise.
    monkeypatch.setattr("vlmc.builder.store.file_digests._SETTLED_NS", 0)
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    return build(read_recipe(recipe), tmp_path / "artifact")


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> StepCache:
    """What the shared cache has of `built`, and nothing that other tests put there."""
    shared, own = StepCache().folder, tmp_path / "own-cache"
    (own / "steps").mkdir(parents=True)
    (own / "digests").symlink_to(shared / "digests")
    for step in json.loads((built / "reports" / "build.json").read_bytes())["steps"]:
        (own / "steps" / step["key"]).symlink_to(shared / "steps" / step["key"])
    return StepCache(own)


@pytest.fixture(scope="module")
def headers_8b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headers_8b(tmp_path_factory.mktemp("headers") / "8b")


def states(plan: Plan) -> dict[str, str]:
    return {step.name: step.state for step in plan.steps}


def reasons(plan: Plan) -> dict[str, str]:
    return {step.name: step.reason for step in plan.steps}


def test_nothing_is_written(planned: Callable[..., Plan], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    planned()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_first_plan_misses_everything(planned: Callable[..., Plan]) -> None:
    plan = planned()
    assert set(states(plan).values()) == {"miss"}
    assert set(reasons(plan).values()) == {"never built in this cache"}
    assert plan.estimated


def test_hits_misses_and_what_changed(planned: Callable[..., Plan], cache: StepCache) -> None:
    again = planned(cache=cache)
    assert set(states(again).values()) == {"hit"}
    assert again.new_cache_bytes == 0 and again.unread_bytes == 0
    assert not again.estimated
    assert all(step.seconds == 0 for step in again.steps)

    changed = planned("model.dtype=fp16", "model.system_message=x", cache=cache)
    missed = [step.name for step in changed.steps if step.state == "miss"]
    assert missed == ["language.settings", "language.weights"]
    weights = next(step for step in changed.steps if step.name == "language.weights")
    assert weights.reason == "dtype bfloat16 → float16"
    assert weights.basis == "earlier build" and weights.seconds > 0


def test_a_source_that_was_never_read_is_unknown(
    planned: Callable[..., Plan], cache: StepCache, miniature: Path
) -> None:
    (cache.folder / "digests").unlink()
    plan = planned(cache=cache)
    assert states(plan)["vision.weights"] == "unknown"
    assert "model.safetensors" in reasons(plan)["vision.weights"]
    assert states(plan)["language.settings"] == "hit"  # made of the configuration alone
    assert plan.unread_bytes >= (miniature / "model.safetensors").stat().st_size


def test_disk_is_that_of_the_built_artifact(planned: Callable[..., Plan], built: Path) -> None:
    assert planned().artifact_bytes == pytest.approx(size_of(built), rel=0.2)


def test_disk_of_the_quickstart(tmp_path: Path) -> None:
    recipe = read_recipe(QUICKSTART)
    expected = make_plan(recipe, StepCache(tmp_path / "cache")).artifact_bytes
    folder = build(recipe, tmp_path / "artifact")
    assert expected == pytest.approx(size_of(folder), rel=0.2)


def size_of(folder: Path) -> int:
    return sum(payload_files(folder).values()) + (folder / MANIFEST).stat().st_size


def test_images(planned: Callable[..., Plan], miniature: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    plan = make_plan(
        read_recipe(recipe, ["image.tiles={rule: native}"]),
        StepCache(tmp_path / "cache"),
        [(480, 320), (640, 480), (1080, 1440)],
    )
    assert [(i.columns, i.rows, i.tiles, i.tokens) for i in plan.images] == [
        (2, 1, 2, 512),
        (2, 2, 4, 1024),
        (3, 4, 12, 3072),
    ]
    original = {(i.width, i.height): i.tiles for i in planned().images}
    assert original[480, 320] == 7 and original[640, 480] == 13
    with pytest.raises(UsageError, match="0x480"):
        make_plan(read_recipe(recipe), StepCache(tmp_path / "cache"), [(0, 480)])


def test_memory_of_an_8b(headers_8b: Path, tmp_path: Path) -> None:
    """Against the sizes by hand: 304 M + 33.6 M in fp32, 7.738 B in bf16, 128 KiB a token."""
    recipe = write_recipe(tmp_path / "recipe.yaml", headers_8b)
    cache = StepCache(tmp_path / "cache")
    memory = make_plan(read_recipe(recipe), cache).memory
    assert memory.vision_weights_bytes == 4 * (304_012_288 + 33_570_816)
    assert memory.language_weights_bytes == 2 * 7_737_782_272
    assert memory.cache_bytes_per_token == 128 << 10
    assert memory.cache_bytes == (128 << 10) * 16384
    assert memory.prefill_bytes == 16384 * 2 * 14336 * 2

    small = make_plan(
        read_recipe(recipe, ["language.scheme=w4a16", "calibration.dataset=x.jsonl"]), cache
    )
    # 32 layers of 218.1 M weights: half a byte each, and 2.5 bytes for a group of 128.
    quantized = 32 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14336)
    kept = 7_737_782_272 - quantized
    expected = quantized // 2 + quantized // 128 * 5 // 2 + 2 * kept
    assert small.memory.language_weights_bytes == expected

    found = write_headers_8b_awq(tmp_path / "awq")
    published = make_plan(read_recipe(write_recipe(tmp_path / "awq.yaml", found)), cache)
    assert published.memory.language_weights_bytes == expected
    assert published.source_quantization == "awq" and published.refusals == ()
    (weights,) = [step for step in published.steps if step.name == "language.weights"]
    assert weights.bytes == pytest.approx(expected, rel=0.001)


def test_gpus_that_an_8b_needs(headers_8b: Path, tmp_path: Path) -> None:
    """Half of 15.5 GB of weights fits on a T4 of 16 GB beside the tower, the whole does not."""
    recipe = write_recipe(tmp_path / "recipe.yaml", headers_8b)
    cache = StepCache(tmp_path / "cache")
    engines = "vision={precision: fp16, engines: [{engine: tensorrt, targets: [sm75, sm89]}]}"
    plan = make_plan(read_recipe(recipe, [engines, "model.dtype=fp16"]), cache)
    assert [(one.target, one.devices) for one in plan.devices] == [("sm75", 2), ("sm89", 1)]
    small, large = plan.devices
    assert str(small) == "needs 2 × 16 GB (T4): --devices 2"
    assert str(large) == "1 × 24 GB (RTX 4090)"
    assert small.one_device_bytes == large.fullest_bytes == large.one_device_bytes
    embeddings, step = 2 * 92553 * 4096, 2 * 16384
    shared = plan.memory.language_weights_bytes - embeddings
    whole = 10**9 + plan.memory.vision_weights_bytes + embeddings
    # Nine tenths of what the weights leave hold a step and the least cache, 128 KiB a token.
    one = step * (4 * 4096 + 2 * 48 * 128 + 3 * 14336) + 3584 * (128 << 10)
    half = step * (4 * 4096 + 2 * 24 * 128 + 3 * 7168) + 3584 * (64 << 10)
    assert small.one_device_bytes == pytest.approx(whole + shared + one / 0.9, abs=1)
    assert small.fullest_bytes == pytest.approx(whole + shared // 2 + half / 0.9, abs=1)
    values = plan_json(plan)["devices"]
    assert [one["devices"] for one in values] == [2, 1]
    assert make_plan(read_recipe(recipe), cache).devices == ()

    wide = make_plan(read_recipe(recipe, [engines, "model.dtype=fp32"]), cache)
    assert [one.devices for one in wide.devices] == [4, 2]
    for tokens, numbers in ((65536, [4, 2]), (1_000_000, [None, None])):
        steps = [engines, "model.dtype=fp16", f"runtime.max_batch_tokens={tokens}"]
        plan = make_plan(read_recipe(recipe, steps), cache)
        assert [one.devices for one in plan.devices] == numbers
    assert str(plan.devices[0]) == (
        "too large for any number of T4 (16 GB) that divides its heads, at this "
        "runtime.max_batch_tokens"
    )


def test_calibrating_an_8b_on_a_cpu_is_said_to_take_long(headers_8b: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", headers_8b)
    asked = ["language.scheme=w4a16", "calibration.dataset=x.jsonl"]
    plan = make_plan(read_recipe(recipe, asked), StepCache(tmp_path / "cache"))
    steps = {step.name: step for step in plan.steps}
    for name in ("language.calibration", "language.weights"):
        assert steps[name].basis == "estimate" and steps[name].seconds > 3600
    # What lies in the cache only is no part of the artifact.
    weights = steps["language.weights"].bytes
    assert weights < plan.artifact_bytes < weights + 2.5e9
    assert steps["language.calibration"].bytes > 1e9
    assert any("x.jsonl cannot be read" in refusal for refusal in plan.refusals)


def test_an_8b_is_planned_quickly_and_without_torch(headers_8b: Path, tmp_path: Path) -> None:
    """The whole process, headers of 16 GB and the imports with it."""
    recipe = write_recipe(tmp_path / "recipe.yaml", headers_8b)
    code = (
        "import sys\n"
        "from vlmc.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    finished: list[subprocess.CompletedProcess[str]] = []

    def plan() -> None:
        finished.append(
            subprocess.run(
                [sys.executable, "-c", code, "plan", str(recipe), "--json"],
                env={"VLMC_CACHE": str(tmp_path / "cache"), "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            )
        )

    seconds = of_children(plan)
    (done,) = finished
    assert done.stderr.splitlines()[-1] == "[]"
    values = json.loads(done.stdout)
    assert 17e9 < values["disk_bytes"] < 18e9
    assert seconds < 1.5


def test_a_disk_that_is_too_small_is_told(
    headers_8b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.yaml", headers_8b))
    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    for free, short in ((1 << 50, False), (17 << 30, True)):
        # 16.3 GiB go into the cache, and as many into the artifact on the same disk.
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage._replace(free=free))
        plan = make_plan(recipe, StepCache(tmp_path / "cache"))
        assert bool(plan.shortages) == short
    (shortage,) = plan.shortages
    assert shortage.needed_bytes == plan.artifact_bytes + plan.new_cache_bytes
    assert "17.0 GiB free" in str(shortage) and str(tmp_path / "cache") in str(shortage)


def test_the_last_build_of_the_recipe_is_compared_with(
    planned: Callable[..., Plan], cache: StepCache
) -> None:
    """Not the most similar step, which another recipe left."""
    last = {step.name: step for step in planned(cache=cache).steps}
    other = planned("model.dtype=fp16", cache=cache)
    assert other.compared_with == "most similar steps"
    near = cache.find(str(last["language.weights"].key))
    assert near is not None
    # Another recipe's step, nearer to what is planned than the last build's.
    (cache.folder / "steps" / "nearer").mkdir()
    record = json.loads((near.folder.parent / "step.json").read_bytes())
    record |= {"key": "nearer", "files": {}, "created": near.created + 1}
    record["ingredients"]["parameters"] |= {"dtype": "float16", "kv_heads": 3}
    (cache.folder / "steps" / "nearer" / "step.json").write_text(json.dumps(record))
    assert reasons(planned("model.dtype=fp16", cache=cache))["language.weights"] == (
        "kv_heads 3 → 2"
    )
    cache.remember_build("miniature", {name: str(step.key) for name, step in last.items()})
    cache.remember_build("other", {"language.weights": "nearer"})
    plan = planned("model.dtype=fp16", cache=cache)
    assert plan.compared_with == "last build"
    assert reasons(plan)["language.weights"] == "dtype bfloat16 → float16"


def test_a_build_is_remembered_under_the_recipes_name(built: Path) -> None:
    last = StepCache().last_build("miniature")
    told = json.loads((built / "reports" / "build.json").read_bytes())["steps"]
    assert {name: entry.key for name, entry in last.items()} == {
        step["name"]: step["key"] for step in told
    }
    assert StepCache().last_build("never") == {}


def test_a_missing_checkpoint_leaves_tiles_and_tokens(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "nowhere")
    cache, sizes = StepCache(tmp_path / "cache"), [(480, 320), (640, 480)]
    plan = make_plan(read_recipe(recipe), cache, sizes)
    assert [image.tiles for image in plan.images] == [7, 13]
    assert (plan.steps, plan.memory) == ((), None)
    assert "nowhere does not exist, so steps, memory, disk and time are unknown" in plan.unknown[0]
    assert "assumed as in the released models: min 1, max 12, with a thumb" in plan.unknown[1]
    values = plan_json(plan)
    assert [values[key] for key in ("memory_bytes", "memory", "disk", "seconds")] == [None] * 4
    assert [image["tokens"] for image in values["images"]] == [1792, 3328]
    native = make_plan(read_recipe(recipe, ["image.tiles={rule: native}"]), cache, sizes)
    assert [image.tiles for image in native.images] == [2, 4]
    assert len(native.unknown) == 1


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    recipe = write_recipe(tmp_path / "recipe.yaml", tmp_path / "empty")
    with pytest.raises(CheckpointError):
        make_plan(read_recipe(recipe), StepCache(tmp_path / "cache"))


def test_what_cannot_be_made_here_is_said(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.compile.engines.tensorrt.gpus", lambda: ())
    assert planned().obstacles == ()
    plan = planned("vision.engines=[{engine: tensorrt, targets: [sm89]}]")
    (obstacle,) = plan.obstacles
    assert obstacle.step == "vision.tensorrt-sm89"
    assert "must run on a machine with an sm89 GPU" in obstacle.reason
    assert plan_json(plan)["cannot_run_here"] == [
        {"step": obstacle.step, "reason": obstacle.reason}
    ]


def test_calibration_is_reckoned_on_the_gpu_that_has_room(
    headers_8b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", headers_8b)
    wanted = ["language.scheme=w4a16", "vision.precision=int8", "calibration.dataset=x.jsonl"]

    def times() -> dict[str, float]:
        plan = make_plan(read_recipe(recipe, wanted), StepCache(tmp_path / "cache"))
        return {"gpu": float(plan.gpu is not None)} | {s.name: s.seconds for s in plan.steps}

    monkeypatch.setattr("vlmc.builder.plan.here.gpu_is_there", lambda: False)
    cpu = times()
    monkeypatch.setattr("vlmc.builder.plan.here.gpu_is_there", lambda: True)
    monkeypatch.setattr("vlmc.builder.plan.here.torch_cuda", lambda: "13.0")
    for memory, fits in ((8 << 30, False), (80 << 30, True)):
        card = Gpu("NVIDIA H100", "sm90", memory)
        monkeypatch.setattr("vlmc.builder.plan.here.gpus", lambda card=card: (card,))
        found = times()
        assert found["gpu"] == fits
        quicker = {name for name in cpu if found[name] < cpu[name]}
        assert quicker == (
            {"vision.ranges", "language.calibration", "language.weights"} if fits else set()
        )
    monkeypatch.setattr("vlmc.builder.plan.here.torch_cuda", lambda: "none")
    assert times() == cpu, "torch's build for the CPU calibrates on none"


def test_no_image_is_decoded(
    miniature: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"image": str(path), "prompt": "What?"} for path in sorted(images.glob("*.jpg"))[:2]]
    dataset = tmp_path / "calibration.jsonl"
    dataset.write_text("\n".join(map(json.dumps, lines)))
    recipe = read_recipe(
        write_recipe(tmp_path / "recipe.yaml", miniature),
        ["vision.precision=int8", f"calibration={{dataset: {dataset}, samples: 2}}"],
    )
    expected = read_samples(recipe)

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("vlmc.image.decode.decode", decode)
    assert read_samples(recipe, decode_images=False) == expected
    plan = make_plan(recipe, StepCache(tmp_path / "cache"))
    assert plan.refusals == () and "vision.ranges" in states(plan)


def test_json(planned: Callable[..., Plan]) -> None:
    values = json.loads(json.dumps(plan_json(planned())))
    assert {"steps", "images", "memory_bytes", "disk_bytes"} <= values.keys()
    assert {"width", "height", "grid", "tiles", "tokens"} <= values["images"][0].keys()
    assert values["disk_bytes"] == values["disk"]["artifact_bytes"]
    memory = values["memory"]
    parts = ("vision_weights_bytes", "language_weights_bytes", "cache_bytes", "prefill_bytes")
    assert values["memory_bytes"] == sum(memory[part] for part in parts)
