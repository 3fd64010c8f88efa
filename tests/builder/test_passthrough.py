"""Builds from checkpoints that are quantized already: they pass through with the same integers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.artifacts import AS_ORACLE, build_from, write_recipe
from tests.checkpoint.edit import edit_config
from tests.command import call
from tests.miniature.quantized import LANGUAGE_FILE, Layout, write_dequantized, write_quantized
from vlmc.artifact.manifest import read_manifest
from vlmc.builder.plan.plan import make_plan
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.recipe_steps import make_steps, source_files
from vlmc.builder.store.step_cache import StepCache
from vlmc.checkpoint.source import open_checkpoint
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import resolve
from vlmc.runtime.language import load_language
from vlmc.runtime.load import load
from vlmc.verify.source import language_bytes

Folder = Callable[[str], Path]
QUESTIONS = ("What is this?", "Is a ladder visible?")
CASES: list[tuple[str, Layout, bool]] = [
    ("internlm2-300m", "awq", False),
    ("qwen2-300m", "gptq", True),
    ("llama-yi-6b", "pack-quantized", False),
]


def answers(artifact: Path, images: Path) -> list[tuple[str, list[int]]]:
    with load(artifact, device="cpu") as model:
        requests = [(images / "480x320.jpg", question) for question in QUESTIONS]
        found = model.generate(requests, max_new_tokens=5)
        return [(answer.text, list(answer.token_ids)) for answer in found]


@pytest.mark.parametrize(("name", "layout", "symmetric"), CASES)
def test_it_answers_as_its_integers_do(
    name: str, layout: Layout, symmetric: bool, miniatures: Folder, images: Path, tmp_path: Path
) -> None:
    source = miniatures(name)
    made = write_quantized(source, tmp_path / "made", layout, symmetric=symmetric)
    artifact = build_from(made, tmp_path / "artifact")
    assert call("verify", "integrity", artifact).exit_code == 0
    assert "scheme w4a16" in call("inspect", artifact).stdout
    manifest = read_manifest(artifact)
    assert manifest.language_scheme == "w4a16" and manifest.calibration == {}
    assert not list((artifact / "reports").glob("language-quantization.*"))
    settings = json.loads((artifact / "language" / "config.json").read_bytes())
    group = settings["quantization_config"]["config_groups"]["group_0"]
    assert group["weights"]["symmetric"] == symmetric and group["weights"]["group_size"] == 32
    # A usual checkpoint whose weights are what the integers say, to the last bit.
    dense = build_from(
        write_dequantized(source, tmp_path / "dense", symmetric=symmetric),
        tmp_path / "dense-artifact",
    )
    assert answers(artifact, images) == answers(dense, images)


@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("layout", ["awq", "gptq"])
def test_export_gives_the_words_back(
    layout: Layout, group_size: int, miniatures: Folder, tmp_path: Path
) -> None:
    """Of Qwen2, whose linears have the same names and outputs in both layouts."""
    made = write_quantized(
        miniatures("qwen2-300m"), tmp_path / "made", layout, group_size=group_size
    )
    artifact = build_from(made, tmp_path / "artifact")
    done = call("export", artifact, "--to", layout, "-o", tmp_path / "exported")
    assert done.exit_code == 0, done.stderr
    found = load_file(tmp_path / "exported" / "model.safetensors")
    layers = {
        name.removeprefix("language_model."): tensor
        for name, tensor in load_file(made / LANGUAGE_FILE).items()
        if name.endswith(("qweight", "qzeros", "scales", "g_idx"))
    }
    assert len(layers) == (3 if layout == "awq" else 4) * 2 * 7
    for name, tensor in layers.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    settings = json.loads((tmp_path / "exported" / "config.json").read_bytes())
    assert settings["quantization_config"]["group_size"] == group_size


def test_fp8_is_verified_against_its_source(miniature: Path, images: Path, tmp_path: Path) -> None:
    """The source runs through the same linears; the gate has nothing to say."""
    made = write_quantized(miniature, tmp_path / "made", "float-quantized", place="")
    # Rounded activations of a random model tell bf16 from fp32.
    overrides = (*AS_ORACLE, "accuracy.reference_dtype=fp32")
    artifact = build_from(made, tmp_path / "artifact", overrides)
    assert read_manifest(artifact).language_scheme == "fp8"
    check_accuracy(artifact, images, tmp_path)
    done = call("export", artifact, "--to", "awq", "-o", tmp_path / "exported")
    assert done.exit_code == 2 and "language.scheme fp8" in done.stderr


def check_accuracy(artifact: Path, images: Path, folder: Path) -> None:
    lines = [
        {"image": str(images / "448x448.jpg"), "prompt": question, "label": "yes"}
        for question in QUESTIONS
    ]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = call("verify", "accuracy", artifact, "--dataset", folder / "eval.jsonl", "--json")
    assert done.exit_code == 0, done.stderr
    (engine,) = json.loads(done.stdout)["engines"]
    assert engine["answers"]["agreement"]["value"] == 1


def test_the_source_of_4_bits_is_verified_against(
    miniature: Path, images: Path, tmp_path: Path
) -> None:
    made = write_quantized(miniature, tmp_path / "made", "awq")
    check_accuracy(build_from(made, tmp_path / "artifact"), images, tmp_path)


@pytest.mark.parametrize("layout", ["awq", "gptq", "pack-quantized", "float-quantized"])
def test_a_plan_knows_its_size(layout: Layout, miniature: Path, tmp_path: Path) -> None:
    made = write_quantized(miniature, tmp_path / "made", layout)
    recipe = write_recipe(tmp_path / "recipe.yaml", made)
    plan = make_plan(read_recipe(recipe), StepCache(tmp_path / "cache"))
    assert plan.refusals == ()
    shown = call("plan", recipe).stdout
    found = "w4a16" if layout == "pack-quantized" else layout.replace("float-quantized", "fp8")
    assert f"language weights, quantized already ({found}) and kept so" in shown
    assert json.loads(call("plan", recipe, "--json").stdout)["source_quantization"] == found
    tensors = load_file(made / LANGUAGE_FILE)
    stored = sum(t.nbytes for name, t in tensors.items() if not name.endswith(".g_idx"))
    assert plan.memory.language_weights_bytes == stored
    assert {step.name for step in plan.steps} >= {"language.weights", "language.settings"}
    assert not any("calibration" in step.name for step in plan.steps)


def test_memory_of_the_source(miniature: Path, tmp_path: Path) -> None:
    """A CPU unpacks the weights, a GPU does not."""
    made = write_quantized(miniature, tmp_path / "made", "gptq")
    dense = write_dequantized(miniature, tmp_path / "dense")
    with open_checkpoint(made) as quantized, open_checkpoint(dense) as plain:
        unpacked = language_bytes(quantized, torch.float16, unpacked=True)
        for as_unpacked in (True, False):
            assert language_bytes(plain, torch.float16, unpacked=as_unpacked) == unpacked
        packed = language_bytes(quantized, torch.float16, unpacked=False)
    stored = load_file(made / LANGUAGE_FILE).items()
    assert packed == sum(t.nbytes for name, t in stored if not name.endswith(".g_idx"))


@pytest.mark.parametrize("scheme", ["w4a16", "fp8"])
def test_another_scheme_is_refused(scheme: str, miniature: Path, tmp_path: Path) -> None:
    """The same one too: its method, group size and samples would act on nothing."""
    made = write_quantized(miniature, tmp_path / "made", "awq")
    recipe = write_recipe(tmp_path / "recipe.yaml", made)
    options = ["--set", f"language={{scheme: {scheme}}}"]
    if scheme == "w4a16":
        options = ["--set", "language={scheme: w4a16, method: rtn, group_size: 32}"]
    for verb in ("plan", "build"):
        done = call(verb, recipe, *options)
        assert done.exit_code == 2
        assert f"language.scheme is {scheme}, but the checkpoint's weights" in done.stderr
        assert "quantized already (awq, groups of 32)" in done.stderr


def test_other_settings_of_the_same_file_are_another_step(miniature: Path, tmp_path: Path) -> None:
    made = write_quantized(miniature, tmp_path / "made", "gptq")
    before = keys(made)
    edit_config(made, {"llm_config.quantization_config.checkpoint_format": "gptq_v2"})
    after = keys(made)
    assert {name for name in before if before[name] != after[name]} == {"language.weights"}


def keys(checkpoint: Path) -> dict[str, str]:
    recipe = read_recipe(write_recipe(checkpoint.with_suffix(".yaml"), checkpoint))
    with open_checkpoint(checkpoint) as opened:
        digests = {path.name: "0" * 64 for path in source_files(checkpoint)}
        context = BuildContext(resolve(recipe, opened.config), opened, digests, None)
        steps = make_steps(context)
        return {step.name: step.key for step in steps}


def test_transformers_computes_the_same(miniature: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    made = write_quantized(miniature, tmp_path / "made", "awq", keep=["1.attention.wqkv"])
    folder = build_from(made, tmp_path / "artifact") / "language"
    decoder = load_language(folder, torch.float32, torch.device("cpu"))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours = decoder.logits(decoder(decoder.embed_tokens(ids)))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        found = theirs(ids).logits
    assert float((ours - found).abs().max() / ours.abs().max()) < 1e-4
