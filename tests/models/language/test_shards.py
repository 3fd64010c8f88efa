"""The shards of a decoder: each tensor in parts that make the whole, and no more than that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.linears.quantized import FP8, w4a16, write_language
from vlmc.checkpoint.huggingface import language_tensors
from vlmc.checkpoint.quantization import Quantization
from vlmc.checkpoint.source import open_checkpoint
from vlmc.distributed.group import Group
from vlmc.distributed.shard import Shard
from vlmc.errors import CheckpointError
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.language.parameter_slice import LinearSpec
from vlmc.runtime.language import load_language

CPU = torch.device("cpu")
TWO = (Shard(0, 2), Shard(1, 2))
# Of the miniature's heads of 16: queries and keys of four and two.
QUERY, KEY = 64, 32


def shards_of(folder: Path) -> list[Decoder]:
    """The whole decoder of a checkpoint, and its two halves."""
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config.language
        return [
            load_decoder(
                config,
                language_tensors(checkpoint.weights, config),
                dtype=torch.float32,
                device=CPU,
                group=Group(shard),
            )
            for shard in (Shard(), *TWO)
        ]


def halves(weight: Tensor, blocks: list[int]) -> list[Tensor]:
    """Rows of each half: a half of every block."""
    parts = [part.chunk(2) for part in weight.split(blocks)]
    return [torch.cat([part[half] for part in parts]) for half in (0, 1)]


@pytest.mark.parametrize("name", ["internlm2-300m", "qwen2-300m", "phi3-300m"])
def test_halves_make_the_whole(name: str, miniatures: object) -> None:
    whole, *parts = shards_of(miniatures(name))  # type: ignore[operator]
    key = whole.config.kv_heads * whole.config.head_dim
    for rank, part in enumerate(parts):
        for layer, own in zip(whole.layers, part.layers, strict=True):
            expected = halves(layer.self_attn.qkv_proj.weight, [QUERY, key, key])[rank]
            assert torch.equal(own.self_attn.qkv_proj.weight, expected)
            expected = halves(layer.mlp.gate_up_proj.weight, [96, 96])[rank]
            assert torch.equal(own.mlp.gate_up_proj.weight, expected)
            for found, linear in (
                (own.self_attn.o_proj, layer.self_attn.o_proj),
                (own.mlp.down_proj, layer.mlp.down_proj),
            ):
                assert torch.equal(found.weight, linear.weight.chunk(2, dim=1)[rank])
        assert part.embed_tokens.weight.shape[0] == (0 if rank else whole.config.vocab_size)
    heads = [part.lm_head.weight for part in parts]
    assert torch.equal(torch.cat(heads), whole.lm_head.weight)


@pytest.mark.parametrize(
    "quantization", [w4a16(16, symmetric=False), w4a16(16, symmetric=True), FP8]
)
def test_quantized_halves_sum_to_the_whole(quantization: Quantization, tmp_path: Path) -> None:
    write_language(tmp_path, quantization, width=128, layers=1)
    whole, *parts = (
        load_language(tmp_path, torch.float32, CPU, group=Group(shard)) for shard in (Shard(), *TWO)
    )
    for path in ("self_attn.o_proj", "mlp.down_proj"):
        found = [part.layers[0].get_submodule(path).weight for part in parts]
        assert torch.equal(torch.cat(found, dim=1), whole.layers[0].get_submodule(path).weight)
    blocks = [part.layers[0].mlp.gate_up_proj.weight.chunk(2) for part in parts]
    rows = torch.cat([blocks[0][0], blocks[1][0], blocks[0][1], blocks[1][1]])
    assert torch.equal(rows, whole.layers[0].mlp.gate_up_proj.weight)


def test_only_one_part_adds_the_bias_of_a_sum() -> None:
    spec = LinearSpec("model.layers.0.self_attn.o_proj", (8,), 16, cuts_inputs=True)
    parts = [spec.cut("bias", "o_proj.bias", torch.ones(8), shard) for shard in TWO]
    assert torch.equal(sum(parts), torch.ones(8))


@pytest.mark.parametrize("shape", [(7, 16), (9, 16), (8, 7), (8, 15), (8, 17)])
def test_a_tensor_of_the_wrong_shape_is_refused(shape: tuple[int, int]) -> None:
    spec = LinearSpec("model.layers.0.mlp.down_proj", (8,), 16, cuts_inputs=True)
    with pytest.raises(CheckpointError, match=r"down_proj\.weight has shape"):
        spec.cut("weight", "down_proj.weight", torch.zeros(shape), TWO[0])
