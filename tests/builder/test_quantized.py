"""Builds with a quantized language model: what is written, who reads it, what each key changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from tests.artifacts import write_recipe
from tests.quantized import dequantized, nibbles
from vlmc.artifact.manifest import read_manifest
from vlmc.builder.build import build, build_steps
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.recipe_steps import make_steps, source_files, with_needs
from vlmc.builder.steps.samples import read_samples
from vlmc.checkpoint.config import parse_language_config
from vlmc.checkpoint.source import open_checkpoint
from vlmc.cli.main import main
from vlmc.compile.language.quantization.run import run_job
from vlmc.errors import BuildError
from vlmc.models.language.load import load_decoder
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Progress
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import resolve

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart"
DOWN = "model.layers.0.mlp.down_proj"
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of an AWQ word holds its outputs 0 to 7."""
# One process builds what these tests share.
pytestmark = pytest.mark.xdist_group("builder.quantized")
W4A16 = ("language.scheme=w4a16", "language.group_size=32", f"language.keep=[{DOWN}]")


@pytest.fixture(scope="module")
def w4a16(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's artifact with rounded weights, one linear kept, in fp32."""
    folder = tmp_path_factory.mktemp("w4a16")
    return _built(miniature, folder / "artifact", *W4A16, "language.method=rtn", "model.dtype=fp32")


@pytest.fixture(scope="module")
def fp8(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's artifact in fp8, one linear kept."""
    folder = tmp_path_factory.mktemp("fp8")
    return _built(miniature, folder / "artifact", "language.scheme=fp8", W4A16[2])


def _built(checkpoint: Path, output: Path, *overrides: str) -> Path:
    recipe = write_recipe(output.with_name("recipe.yaml"), checkpoint)
    return build(read_recipe(recipe, overrides), output)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def config_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return values


def test_the_artifact_says_what_it_holds(w4a16: Path, fp8: Path) -> None:
    manifest = read_manifest(w4a16)
    assert manifest.language_scheme == "w4a16" and manifest.calibration == {}
    quantization = config_of(w4a16 / "language")["quantization_config"]
    assert quantization["format"] == "pack-quantized"
    assert quantization["ignore"] == ["lm_head", DOWN]
    assert (w4a16 / "reports" / "language-quantization.svg").is_file()
    assert not (w4a16 / "language" / "report").exists()
    assert not any("quantization" in name for name in manifest.payload)
    assert read_manifest(fp8).language_scheme == "fp8"
    assert config_of(fp8 / "language")["quantization_config"]["format"] == "float-quantized"


def test_fp8_values_and_scales(fp8: Path, artifact: Path) -> None:
    stored, original = tensors_of(fp8 / "language"), tensors_of(artifact / "language")
    assert stored[f"{DOWN}.weight"].dtype == torch.bfloat16
    name = "model.layers.1.mlp.up_proj.weight"
    values, scale = stored[name], stored[f"{name}_scale"]
    assert values.dtype == torch.float8_e4m3fn and scale.shape == (96, 1)
    assert float(values.float().abs().amax()) == 448
    lost = (values.float() * scale.float() - original[name]).abs()
    # Three bits of fraction, and the smallest step beside the largest value.
    assert bool((lost <= original[name].abs() / 15 + 2**-9 * scale.float()).all())


@pytest.mark.parametrize("scheme", ["w4a16", "fp8"])
def test_transformers_computes_the_same(scheme: str, request: pytest.FixtureRequest) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = request.getfixturevalue(scheme) / "language"
    config = config_of(folder)
    stored = tensors_of(folder)
    if scheme == "w4a16":
        whole = dequantized(stored)
    else:
        whole = {
            name: tensor.float() * stored[f"{name}_scale"].float()
            if f"{name}_scale" in stored
            else tensor.float()
            for name, tensor in stored.items()
            if not name.endswith("_scale")
        }
    decoder = load_decoder(
        parse_language_config(config, folder / "config.json"),
        whole.items(),
        dtype=torch.float32,
        device="cpu",
    )
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours = decoder.logits(decoder(decoder.embed_tokens(ids)))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        found = theirs(ids).logits
    # Activations of fp8 are rounded there, token by token, and not here.
    limit = 1e-4 if scheme == "w4a16" else 0.1
    assert float((ours - found).abs().max() / ours.abs().max()) < limit


def read_awq(parts: dict[str, Tensor]) -> Tensor:
    """Weights (outputs, inputs) by AutoAWQ's definition, (q − z) · scale."""

    def ordered(words: Tensor) -> Tensor:
        return nibbles(words).unflatten(-1, (-1, 8))[..., list(AWQ_PLACES)].flatten(-2)

    q, z, scale = ordered(parts["qweight"]), ordered(parts["qzeros"]), parts["scales"].float()
    size = len(q) // len(z)
    return ((q - z.repeat_interleave(size, 0)) * scale.repeat_interleave(size, 0)).T


def read_gptq(parts: dict[str, Tensor]) -> Tensor:
    """Weights (outputs, inputs) by AutoGPTQ's definition: zero points are stored less one."""
    q = nibbles(parts["qweight"].T).T
    z = (nibbles(parts["qzeros"]) + 1) & 15
    groups = parts["g_idx"].long()
    return ((q - z[groups]) * parts["scales"].float()[groups]).T


@pytest.mark.parametrize(("layout", "read"), [("awq", read_awq), ("gptq", read_gptq)])
def test_export(
    layout: str, read: Callable[[dict[str, Tensor]], Tensor], w4a16: Path, tmp_path: Path
) -> None:
    output = tmp_path / "exported"
    done = CliRunner().invoke(
        main, ["export", str(w4a16), "--to", layout, "-o", str(output), "--json"]
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["folder"], printed["to"]) == (str(output), layout)
    assert "not in it" in printed["notes"][0]
    expected, found = dequantized(tensors_of(w4a16 / "language")), tensors_of(output)
    packed = [name for name in found if name.endswith(".qweight")]
    assert len(packed) == 2 * 7 - 1
    for name in packed:
        linear = name.removesuffix(".qweight")
        parts = {key: found[f"{linear}.{key}"] for key in ("qweight", "qzeros", "scales")}
        if layout == "gptq":
            parts["g_idx"] = found[f"{linear}.g_idx"]
        # Scales are fp16 there.
        torch.testing.assert_close(read(parts), expected[f"{linear}.weight"], rtol=1e-3, atol=1e-7)
    assert torch.equal(found[f"{DOWN}.weight"], expected[f"{DOWN}.weight"])
    settings = config_of(output)["quantization_config"]
    assert (settings["quant_method"], settings["bits"], settings["group_size"]) == (layout, 4, 32)
    assert DOWN in json.dumps(settings).replace("\\\\.", ".")
    again = CliRunner().invoke(main, ["export", str(w4a16), "--to", layout, "-o", str(output)])
    assert again.exit_code == 2 and "exists" in again.stderr


def test_export_needs_4_bits(artifact: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["export", str(artifact), "--to", "awq", "-o", str(tmp_path / "none")]
    )
    assert done.exit_code == 2 and "language.scheme none" in done.stderr


def calibrated(folder: Path, images: Path, miniature: Path) -> Path:
    """A recipe of the miniature with four calibration samples."""
    names = ("320x480", "448x448", "480x320", "640x480")
    lines = [
        {"image": str(images / f"{name}.jpg"), "prompt": f"What is {name}?", "answer": "yes"}
        for name in names
    ]
    (folder / "calibration.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return write_recipe(folder / "recipe.yaml", miniature)


CALIBRATED = (
    "language.scheme=w4a16",
    "language.group_size=32",
    "calibration={dataset: calibration.jsonl, samples: 3}",
    "image.tiles={rule: single}",
)


@pytest.mark.parametrize(
    "override",
    [
        "language.method=gptq",
        "language.group_size=16",
        "language.symmetric=true",
        "language.keep=['*.o_proj']",
        "calibration={dataset: calibration.jsonl, samples: 2}",
        "calibration={dataset: calibration.jsonl, samples: 3, seed: 1}",
        "calibration={dataset: calibration.jsonl, samples: 3, modality: text}",
        "image.resampler=pillow",
        "image.exif=apply",
        "image.high_bit_depth=scale",
        "model.system_message=Be brief.",
    ],
)
def test_every_key_makes_other_weights(
    override: str, images: Path, miniature: Path, tmp_path: Path
) -> None:
    recipe = calibrated(tmp_path, images, miniature)
    before, after = keys_of(recipe, *CALIBRATED), keys_of(recipe, *CALIBRATED, override)
    assert before.keys() == after.keys() >= {"language.calibration"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"language.weights", "language.settings"}
    assert ("language.calibration" in changed) == (not override.startswith("language."))


@pytest.mark.parametrize(
    "override",
    [
        "image.resampler=pillow",
        "image.exif=apply",
        "image.high_bit_depth=scale",
        "image.tiles={rule: native}",
    ],
)
def test_every_rule_of_pictures_makes_other_ranges(
    override: str, images: Path, miniature: Path, tmp_path: Path
) -> None:
    recipe = calibrated(tmp_path, images, miniature)
    overrides = (*CALIBRATED, "vision.precision=fp16")
    before, after = keys_of(recipe, *overrides), keys_of(recipe, *overrides, override)
    assert before["vision.ranges"] != after["vision.ranges"]


def keys_of(recipe: Path, *overrides: str) -> dict[str, str]:
    read = read_recipe(recipe, overrides)
    with open_checkpoint(Path(read.model.checkpoint)) as opened:
        digests = {path.name: "0" * 64 for path in source_files(opened.folder)}
        context = BuildContext(resolve(read, opened.config), opened, digests, read_samples(read))
        steps = make_steps(context)
        return {step.name: step.key for step in with_needs(steps)}


def test_calibration_is_recorded(images: Path, miniature: Path, tmp_path: Path) -> None:
    """A whole build, in the process of its own that builds use."""
    recipe = read_recipe(calibrated(tmp_path, images, miniature), CALIBRATED)
    events: list[Event] = []
    with receiving(events.append):
        folder = build(recipe, tmp_path / "artifact")
    seen = [event for event in events if isinstance(event, Progress)]
    layers = [Progress("layers", done, 2, step="language.weights") for done in (1, 2)]
    assert [event for event in seen if event.step == "language.weights"] == layers
    samples = read_samples(recipe)
    assert samples is not None
    assert read_manifest(folder).calibration == {"language": samples.digest}
    written = (folder / "recipe.yaml").read_text()
    assert "dataset: calibration.jsonl" in written and str(tmp_path) not in written
    report = json.loads((folder / "reports" / "language-quantization.json").read_bytes())
    assert report["settings"]["method"] == "awq" and report["notes"] == []
    assert report["samples"] > report["held_out_samples"] > 0
    assert all(part["output_error"] < 0.3 for part in report["linears"])
    assert not list(folder.rglob("00000.safetensors"))


# AWQ's search takes longest, and the build above runs it on the miniature.
@pytest.mark.parametrize("method", [pytest.param("awq", marks=pytest.mark.slow), "gptq"])
def test_the_quickstart_by_both_methods(method: str) -> None:
    """The shipped model, with images and prompts: few, since a search takes a while."""
    overrides = (
        "model.dtype=bf16",  # scales of 16 bits
        "language.scheme=w4a16",
        f"language.method={method}",
        "calibration={dataset: calibration.jsonl, samples: 4}",
        "image.tiles={rule: native, max: 2}",
    )
    recipe = read_recipe(QUICKSTART / "recipe.yaml", overrides)
    outcomes = build_steps(recipe, ["language"])
    (weights,) = [one.entry for one in outcomes if one.step.name == "language.weights"]
    report = json.loads((weights.folder / "report" / "language-quantization.json").read_bytes())
    assert report["notes"] == []
    assert report["bits_per_weight"] == pytest.approx(4 + 20 / 128)
    assert max(part["output_error"] for part in report["linears"]) < 0.2
    assert {part["bits"] for part in report["linears"]} == {4}


def test_a_failing_process_is_told(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(BuildError, match=r"quantizing the language model failed:\n(.|\n)*JSON"):
        run_job(tmp_path)
