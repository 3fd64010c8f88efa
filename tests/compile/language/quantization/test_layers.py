"""Quantized miniatures: layout, errors, what is kept, and how trouble is met."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.compile.language.quantization.conftest import Quantize, Quantized
from tests.miniature import write_checkpoint
from vlmc.compile.language.quantization.settings import Method
from vlmc.errors import BuildError, CheckpointError

DOWN = "model.layers.0.mlp.down_proj"


def outputs_of(quantized: Quantized) -> list[float]:
    return [part["output_error"] for part in quantized.report["linears"] if part["bits"] == 4]


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_layers_are_packed_and_close(method: Method, quantize: Quantize) -> None:
    done = quantize(method)
    stored, whole = done.stored, done.whole
    assert whole.keys() == done.original.keys()
    assert all(whole[name].shape == tensor.shape for name, tensor in done.original.items())
    assert torch.equal(whole["lm_head.weight"], done.original["lm_head.weight"])
    packed = stored[f"{DOWN}.weight_packed"]
    assert packed.dtype == torch.int32 and packed.shape == (64, 96 // 8)
    assert stored[f"{DOWN}.weight_scale"].dtype == torch.bfloat16
    assert stored[f"{DOWN}.weight_zero_point"].shape == (64 // 8, 96 // 32)
    assert done.report["notes"] == []
    assert all(0 < error < 0.2 for error in outputs_of(done))
    assert done.report["bits_per_weight"] == 4 + (16 + 4) / 32
    assert done.report["bytes_after"] * 8 == pytest.approx(
        done.report["bits_per_weight"] * done.report["quantized_weights"]
    )
    assert done.report["worst"][0] in {part["name"] for part in done.report["linears"]}
    plot = (done.folder / "report" / "language-quantization.svg").read_text()
    assert plot.count("<polyline") == 7 and "mlp.down_proj" in plot


def test_calibrated_methods_lose_less_than_rounding(quantize: Quantize) -> None:
    rounded = sum(outputs_of(quantize("rtn")))
    assert sum(outputs_of(quantize("gptq"))) < 0.8 * rounded


@pytest.mark.parametrize("group_size", [32, 64])
def test_rounding_is_to_the_nearest_of_each_group(group_size: int, quantize: Quantize) -> None:
    """Without samples, and against the definition."""
    keep = (DOWN, "model.layers.1.mlp.down_proj") if group_size == 64 else ()
    done = quantize("rtn", samples=False, group_size=group_size, keep=keep)
    name = "model.layers.1.mlp.up_proj.weight"
    weight = done.original[name].unflatten(1, (-1, group_size))
    low = weight.amin(-1, keepdim=True).clamp(max=0)
    high = weight.amax(-1, keepdim=True).clamp(min=0)
    step = (high - low) / 15
    lost = (done.whole[name].unflatten(1, (-1, group_size)) - weight).abs()
    # Half a step, and what the zero point's and the scale's rounding add at the ends.
    assert bool((lost <= 1.1 * step).all()) and float((lost / step).mean()) < 0.3
    part = done.linear("model.layers.1.mlp.up_proj")
    assert part["output_error"] is None and part["dead_inputs"] is None
    assert 0.01 < part["weight_error"] < 0.2


def test_symmetric_has_no_zero_points(quantize: Quantize) -> None:
    done = quantize("rtn", samples=False, symmetric=True)
    assert not [name for name in done.stored if name.endswith("zero_point")]
    assert done.report["bits_per_weight"] == 4 + 16 / 32


def test_kept_layers_stay_as_they_are(quantize: Quantize) -> None:
    done = quantize("gptq", keep=(DOWN,))
    assert torch.equal(done.whole[f"{DOWN}.weight"], done.original[f"{DOWN}.weight"])
    assert done.linear(DOWN)["bits"] == 16 and done.report["notes"] == []
    assert done.linear("model.layers.1.mlp.down_proj")["bits"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2-300m", "phi3-300m", "llama-yi-6b"])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_every_architecture(
    method: Method, name: str, quantize: Quantize, miniatures: object
) -> None:
    done = quantize(method, miniatures(name))  # type: ignore[operator]
    assert done.whole.keys() == done.original.keys()
    assert done.report["notes"] == []
    assert all(0 < error < 0.2 for error in outputs_of(done))


def changed(folder: Path, **tensors: Tensor) -> Path:
    """A checkpoint whose tensors of these names, without `language_model.model.layers.`, are
    replaced."""
    write_checkpoint(folder, "LlamaForCausalLM", tower="300m", dtype="float16")
    path = folder / "model.safetensors"
    values = load_file(path)
    for name, tensor in tensors.items():
        values[f"language_model.model.layers.{name.replace('__', '.')}.weight"] = tensor
    save_file(values, path, metadata={"format": "pt"})
    return folder


def test_weights_that_are_no_numbers_are_named(quantize: Quantize, tmp_path: Path) -> None:
    bad = torch.zeros(64, 96, dtype=torch.float16)
    bad[3, 5] = float("nan")
    folder = changed(tmp_path / "bad", **{"1__mlp__down_proj": bad})
    with pytest.raises(
        CheckpointError,
        match=r"model\.safetensors: tensor .*\.layers\.1\.mlp\.down_proj\.weight holds NaN",
    ):
        quantize("rtn", folder, samples=False)


def test_dead_channels_are_told_and_rounded(quantize: Quantize, tmp_path: Path) -> None:
    """A norm that lets channels through to nobody: no method may turn their weights to nothing."""
    norm = torch.ones(64, dtype=torch.float16)
    norm[:3] = 0
    folder = changed(tmp_path / "dead", **{"0__input_layernorm": norm})
    for method in ("gptq", "awq"):
        done = quantize(method, folder)
        assert done.linear("model.layers.0.self_attn.q_proj")["dead_inputs"] == 3
        name = "model.layers.0.self_attn.q_proj.weight"
        kept = done.whole[name][:, :3].norm() / done.original[name][:, :3].norm()
        assert 0.5 < kept < 2


def test_outlier_channels_are_told(quantize: Quantize, tmp_path: Path) -> None:
    norm = torch.ones(64, dtype=torch.float16)
    norm[7] = 3000
    folder = changed(tmp_path / "outlier", **{"0__input_layernorm": norm})
    done = quantize("gptq", folder)
    assert done.linear("model.layers.0.self_attn.q_proj")["outlier_inputs"] == 1


def enlarged(folder: Path, **factors: float) -> Path:
    """A checkpoint in fp32 whose linears of layer 0 of these names are multiplied."""
    write_checkpoint(folder, "LlamaForCausalLM", tower="300m", dtype="float32")
    path = folder / "model.safetensors"
    values = load_file(path)
    for name, factor in factors.items():
        values[f"language_model.model.layers.0.mlp.{name}.weight"] *= factor
    save_file(values, path, metadata={"format": "pt"})
    return folder


def test_a_model_of_no_finite_outputs_is_refused(quantize: Quantize, tmp_path: Path) -> None:
    folder = enlarged(tmp_path / "huge", gate_proj=1e30, up_proj=1e30)
    with pytest.raises(BuildError, match=r"no layer .*outputs are not finite in float32"):
        quantize("awq", folder, dtype="float32")


def test_a_hessian_without_factor_is_damped_then_kept(quantize: Quantize, tmp_path: Path) -> None:
    """Inputs whose squares are beyond fp32, of one linear."""
    done = quantize("gptq", enlarged(tmp_path / "strong", up_proj=1e24), dtype="float32")
    notes = [(note["name"], note["problem"], note["action"]) for note in done.report["notes"]]
    said = "its Hessian has no Cholesky factor"
    assert notes == [
        (DOWN, said, "tried again in float32 with damping 0.1"),
        (DOWN, said, "tried again in float32 with damping 1"),
        (DOWN, said, "left in 16 bits"),
    ]
    bits = {part["name"]: part["bits"] for part in done.report["linears"]}
    assert [name for name, value in bits.items() if value == 16] == [DOWN]
    assert torch.equal(done.whole[f"{DOWN}.weight"], done.original[f"{DOWN}.weight"])


def test_awq_without_a_finite_loss_leaves_the_layer(quantize: Quantize, tmp_path: Path) -> None:
    """Outputs that are finite, and squares of their differences that are not."""
    done = quantize("awq", enlarged(tmp_path / "large", down_proj=1e21), dtype="float32")
    first, *_ = done.report["notes"]
    assert first["name"] == "model.layers.0" and "finite loss" in first["problem"]
    assert first["action"] == "left in 16 bits"
    bits = {part["name"].split(".")[2]: part["bits"] for part in done.report["linears"]}
    assert bits == {"0": 16, "1": 4}
