"""Low-rank pairs that fine-tuning left unmerged count as if they had been merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.checkpoint import edit
from tests.checkpoint.refusal import refusal
from tests.models.language.sequences import sequence
from tests.models.loaded import load, tiles
from vlmc.checkpoint.source import open_checkpoint
from vlmc.models.vision.tower import normalize_tiles

VISION_RANK, LANGUAGE_RANK = 4, 3
QKV = "vision_model.encoder.layers.0.attn.qkv"
WQKV = "language_model.model.layers.1.attention.wqkv"
# What the original wraps in tower and language model.
VISION_TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
LANGUAGE_TARGETS = {
    "internlm2-300m": (
        "attention.wqkv",
        "attention.wo",
        "feed_forward.w1",
        "feed_forward.w2",
        "feed_forward.w3",
    ),
    "phi3-300m": ("mlp.down_proj", "mlp.gate_up_proj", "self_attn.o_proj", "self_attn.qkv_proj"),
    "qwen2-300m": (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
        "mlp.up_proj",
    ),
}
RANKS = {"use_backbone_lora": VISION_RANK, "use_llm_lora": LANGUAGE_RANK}

Tensors = dict[str, Tensor]


def modules(name: str, values: Tensors) -> dict[str, int]:
    """The wrapped linears of a miniature, and the rank of each."""
    wrapped = {}
    for key in values:
        module = key.removesuffix(".weight")
        if key.startswith("vision_model.") and module.endswith(VISION_TARGETS):
            wrapped[module] = VISION_RANK
        elif key.startswith("language_model.") and module.endswith(LANGUAGE_TARGETS[name]):
            wrapped[module] = LANGUAGE_RANK
    return wrapped


def pair(values: Tensors, module: str, rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`A` (rank, in) and `B` (out, rank), large enough to change every answer."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = values[f"{module}.weight"].shape
    down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
    up = torch.randn(outputs, rank, generator=generator) * 0.2
    return down.bfloat16(), up.bfloat16()


@dataclass(frozen=True, slots=True)
class Style:
    """How PEFT names tensors: by its version, by what was saved, by the adapter's name."""

    base_layer: bool
    wrapper: str
    adapter: str

    def name(self, plain: str, *, base: bool) -> str:
        """A plain tensor name in this style; `base` marks a tensor of a wrapped linear."""
        part, rest = plain.split(".", 1)
        if part in ("vision_model", "language_model"):
            plain = f"{part}.{self.wrapper}{rest}"
        module, kind = plain.rsplit(".", 1)
        return f"{module}.base_layer.{kind}" if base and self.base_layer else plain


STYLES = {
    "peft": Style(base_layer=True, wrapper="base_model.model.", adapter=".default"),
    "old-peft": Style(base_layer=False, wrapper="base_model.model.", adapter=".default"),
    "unwrapped": Style(base_layer=True, wrapper="", adapter=".default"),
    "nameless": Style(base_layer=False, wrapper="", adapter=""),
}


def unmerged(values: Tensors, wrapped: dict[str, int], style: Style) -> Tensors:
    """The tensors as PEFT would have saved them with adapters in place."""
    found = {
        style.name(key, base=key.rsplit(".", 1)[0] in wrapped): value
        for key, value in values.items()
    }
    for module, rank in wrapped.items():
        for letter, value in zip("AB", pair(values, module, rank), strict=True):
            plain = f"{module}.lora_{letter}{style.adapter}.weight"
            found[style.name(plain, base=False)] = value
    return found


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", LANGUAGE_TARGETS)
@torch.inference_mode()
def test_unmerged_pairs_compute_as_merged_weights(
    name: str, style: str, miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    source = miniatures(name)
    values = edit.tensors(source)
    wrapped = modules(name, values)
    assert len(wrapped) == 2 * (len(VISION_TARGETS) + len(LANGUAGE_TARGETS[name]))
    lora = edit.copy(source, tmp_path / "lora")
    edit.write_tensors(lora, unmerged(values, wrapped, STYLES[style]))
    edit.edit_config(lora, RANKS)
    merged = edit.copy(source, tmp_path / "merged")
    for module, rank in wrapped.items():
        down, up = pair(values, module, rank)
        weight = values[f"{module}.weight"].float() + 2 * up.float() @ down.float()
        values[f"{module}.weight"] = weight
    edit.write_tensors(merged, values)

    pixels = normalize_tiles(tiles("480x320.jpg", 1), torch.float32)
    results = []
    for folder in (lora, merged, source):
        loaded = load(folder)
        embedded = sequence(loaded.decoder, 12)[None]
        logits = loaded.decoder.logits(loaded.decoder(embedded))
        results.append((loaded.tower(pixels), logits))
    for found, expected, plain in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert (found - plain).abs().max() > 0.1


def lora_copy(folder: Path, module: str = WQKV, rank: int = LANGUAGE_RANK) -> tuple[str, str]:
    """Give one module of an editable miniature a pair; returns the names of its two tensors."""
    down, up = pair(edit.tensors(folder), module, rank)
    names = (f"{module}.lora_A.default.weight", f"{module}.lora_B.default.weight")
    edit.edit_tensors(folder, dict(zip(names, (down, up), strict=True)))
    edit.edit_config(folder, RANKS)
    return names


def refused(folder: Path) -> str:
    return refusal(open_checkpoint, folder)


def test_a_single_pair_is_accepted(editable: Path) -> None:
    lora_copy(editable)
    with open_checkpoint(editable) as checkpoint:
        assert checkpoint.weights.lora_ranks("language_model.") == {LANGUAGE_RANK}
        assert checkpoint.weights.lora_ranks("vision_model.") == set()
        assert checkpoint.weights.tensor(f"{WQKV}.weight").dtype == torch.float32


@pytest.mark.parametrize(("module", "key"), [(WQKV, "use_llm_lora"), (QKV, "use_backbone_lora")])
@pytest.mark.parametrize("rank", [0, 2, 8])
def test_another_rank_than_the_configurations_is_refused(
    module: str, key: str, rank: int, editable: Path
) -> None:
    lora_copy(editable, module, 5)
    edit.edit_config(editable, {key: rank})
    message = refused(editable)
    assert "LoRA pairs of rank [5]" in message
    assert f"config.json says {key} {rank}" in message


def test_two_ranks_are_refused(editable: Path) -> None:
    lora_copy(editable)
    lora_copy(editable, WQKV.replace("wqkv", "wo"), 5)
    assert "LoRA pairs of rank [3, 5]" in refused(editable)


def test_half_a_pair_is_refused(editable: Path) -> None:
    down, up = lora_copy(editable)
    whole = edit.tensors(editable)
    edit.edit_tensors(editable, {up: None})
    assert f"holds {down} without its {up}" in refused(editable)
    edit.write_tensors(editable, {name: value for name, value in whole.items() if name != down})
    assert up in refused(editable)


def test_a_pair_without_its_base_is_refused(editable: Path) -> None:
    down, _ = lora_copy(editable)
    edit.edit_tensors(editable, {f"{WQKV}.weight": None})
    assert f"holds {down} without its base weight" in refused(editable)


@pytest.mark.parametrize(
    ("half", "shape"),
    [
        (0, (3, 63)),
        (0, (3,)),
        (0, ()),
        (0, (3, 64, 1)),
        (1, (128, 4)),
        (1, (64, 3)),
        (1, (128, 3, 1)),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(
    half: int, shape: tuple[int, ...], editable: Path
) -> None:
    names = lora_copy(editable)
    edit.edit_tensors(editable, {names[half]: torch.ones(shape)})
    message = refused(editable)
    assert f"{names[half]} {shape}" in message
    assert "do not fit their base weight (128, 64)" in message


def test_a_pair_on_what_is_no_matrix_is_refused(editable: Path) -> None:
    module = "language_model.model.norm"
    pieces = {
        f"{module}.lora_A.weight": torch.ones(3),
        f"{module}.lora_B.weight": torch.ones(64, 3),
    }
    edit.edit_tensors(editable, dict(pieces))
    edit.edit_config(editable, RANKS)
    assert "do not fit their base weight (64,)" in refused(editable)


def test_two_adapters_for_one_weight_are_refused(editable: Path) -> None:
    down, up = lora_copy(editable)
    values = edit.tensors(editable)
    second = {name.replace("default", "other"): values[name] for name in (down, up)}
    edit.edit_tensors(editable, dict(second))
    assert f"two adapters for {WQKV}.weight" in refused(editable)


@pytest.mark.parametrize("half", [0, 1])
def test_a_pair_of_whole_numbers_is_refused(half: int, editable: Path) -> None:
    names = lora_copy(editable)
    value = edit.tensors(editable)[names[half]].to(torch.int8)
    edit.edit_tensors(editable, {names[half]: value})
    message = refused(editable)
    assert f"{WQKV}.weight is I8, expected one of BF16, F16, F32" in message


@pytest.mark.parametrize(
    "kind",
    [
        "lora_magnitude_vector.default.weight",
        "lora_magnitude_vector",
        "lora_embedding_A.default",
        "modules_to_save.default.weight",
        "ia3_l.default",
        "hada_w1_a.default",
    ],
)
def test_other_adapters_are_refused(kind: str, editable: Path) -> None:
    lora_copy(editable)
    edit.edit_tensors(editable, {f"{WQKV}.{kind}": torch.ones(128)})
    message = refused(editable)
    assert f"{WQKV}.{kind}" in message
    assert "adapter that vlmc cannot merge" in message


def test_a_bias_of_a_pair_is_refused(editable: Path) -> None:
    lora_copy(editable)
    edit.edit_tensors(editable, {f"{WQKV}.lora_B.default.bias": torch.ones(128)})
    assert "lora_B.default.bias" in refused(editable)
