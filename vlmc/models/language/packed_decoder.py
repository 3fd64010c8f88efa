"""The decoder over packed tokens and paged keys and values.

The same function as `Decoder.forward`, which stays the reference: tokens of many sequences in one
product, fused element-wise work on CUDA, and in the last layer nothing that no answer needs.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vlmc.models.language import packed_ops as ops
from vlmc.models.language.decoder import Decoder, DecoderLayer
from vlmc.models.language.packed_batch import PackedBatch
from vlmc.models.language.packed_values import Heads, Quantized
from vlmc.models.language.paged_cache import PagedCache
from vlmc.models.linears.fp8 import Fp8Linear


class PackedDecoder:
    """Runs steps of a decoder's own weights; it holds no state but the cache."""

    def __init__(self, decoder: Decoder, cache: PagedCache) -> None:
        self.decoder, self.cache = decoder, cache
        self._layers = [cast(DecoderLayer, layer) for layer in decoder.layers]
        config = decoder.config
        self._heads = Heads(config.heads, config.kv_heads, config.head_dim)

    def forward(self, states: Tensor, batch: PackedBatch) -> Tensor:
        """Run one step.

        Args:
            states: (T, hidden) embeddings of the batch's tokens, of rank 0 in a group; overwritten.
            batch: their positions; their keys and values are written to the cache.

        Returns:
            (R, hidden): the normed state of the last new token of each row.
        """
        cosine, sine = (
            part[0, 0]
            for part in self.decoder.rotary(
                batch.positions[None], batch.lengths[None], states.dtype
            )
        )
        group = self.decoder.group
        group.broadcast(states)
        mixed: Tensor | None = None
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            attention, mlp = layer.self_attn, layer.mlp
            normed = ops.add_norm(states, mixed, layer.input_layernorm, _is_fp8(attention.qkv_proj))
            packed = _multiply(attention.qkv_proj, normed)
            keys, values = self.cache.layer(index)
            query = ops.rotate_and_store(
                packed, cosine, sine, batch.slots, keys, values, self._heads
            )
            if index == last:
                # Of the last layer every token's key and value is needed, and nothing else but
                # of the tokens that something follows on.
                query, states = query[batch.last], states[batch.last]
                attended = ops.attend_last(query, keys, values, batch, self._heads)
            else:
                attended = ops.attend(query, keys, values, batch, self._heads)
            mixed = group.all_reduce(_linear(attention.o_proj, attended))
            normed = ops.add_norm(
                states, mixed, layer.post_attention_layernorm, _is_fp8(mlp.gate_up_proj)
            )
            gated = ops.swiglu(_multiply(mlp.gate_up_proj, normed), _is_fp8(mlp.down_proj))
            mixed = group.all_reduce(_multiply(mlp.down_proj, gated))
        return cast(Tensor, ops.add_norm(states, mixed, self.decoder.norm, fp8=False))

    def logits(self, states: Tensor) -> Tensor:
        """(rows, hidden) → (rows, vocabulary) in fp32."""
        return self.decoder.logits(states)


def _is_fp8(linear: nn.Module) -> bool:
    return isinstance(linear, Fp8Linear)


def _multiply(linear: nn.Module, states: Tensor | Quantized) -> Tensor:
    """A linear of what `ops` prepared for it: states, or values with a scale a token."""
    if isinstance(states, Quantized):
        return cast(Fp8Linear, linear).multiply(states.values, states.scales, states.dtype)
    return cast(Tensor, linear(states))


def _linear(linear: nn.Module, states: Tensor) -> Tensor:
    return cast(Tensor, linear(states))
