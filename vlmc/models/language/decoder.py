"""One decoder for the family's four language models.

InternLM2, Qwen2, Phi-3 and Llama share their arithmetic: grouped-query attention, SwiGLU, RMSNorm,
rotary embedding on halves of a head. They differ in biases, rope scaling and the packing of
projections in checkpoints, which `vlmc.models.language.parameter_map` handles.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.checkpoint.config import LanguageConfig
from vlmc.distributed.group import ALONE, Group
from vlmc.distributed.shard import shard_config
from vlmc.models.language.kv_cache import KVCache
from vlmc.models.language.rope import RotaryEmbedding, rotate
from vlmc.models.norm import RMSNorm


class Decoder(nn.Module):
    """Embeddings to hidden states. `logits` is separate, so you compute only the rows you need.

    `tokens` is the size of the tokenizer's vocabulary. The model's may be padded beyond it.

    In a group each process holds its shard of the layers and of the LM head, and rank 0 alone the
    embeddings: what it embeds, the others receive. All must make the same calls in the same order.
    `config` has the sizes of the shard.
    """

    def __init__(self, config: LanguageConfig, group: Group = ALONE) -> None:
        super().__init__()
        self.group, shard = group, group.shard
        self.config = config = shard_config(config, shard)
        self.tokens = config.vocab_size
        self.embed_tokens: TokenEmbedding | ReceivedEmbedding = (
            TokenEmbedding(config.vocab_size, config.hidden_size)
            if shard.rank == 0
            else ReceivedEmbedding(config.hidden_size)
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, index, group) for index in range(config.layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        first, end = shard.span(config.vocab_size)
        self.lm_head = TokenHead(config.hidden_size, end - first, bias=False)
        self.rotary = RotaryEmbedding(config)

    def forward(
        self,
        embeddings: Tensor,
        cache: KVCache | None = None,
        *,
        token_counts: Tensor | None = None,
        total_lengths: Tensor | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run new tokens after those in the cache.

        Args:
            embeddings: (rows, tokens, hidden), right-padded.
            cache: the earlier tokens. The new ones are appended; lengths grow by `token_counts`.
            token_counts: (rows,) int64, tokens without padding; default all.
            total_lengths: (rows,) int64, sequence lengths for rope scaling. Pass the length of the
                whole prompt if you run it in parts. The default is the length after these tokens
                in a first run, the length up to each token in later runs (as if tokens came one
                by one), and the length that `positions` reaches if given.
            positions: (rows, tokens) int64; default consecutive. Not allowed with a cache.
            mask: (rows or 1, 1, tokens, tokens) bool, True where attended; default causal. Not
                allowed with a cache.

        Returns:
            (rows, tokens, hidden), normalized. Values at padding tokens are undefined.
        """
        rows, tokens = embeddings.shape[:2]
        if cache is not None and (positions is not None or mask is not None):
            raise ValueError("positions and mask cannot be combined with a cache")
        start = None if cache is None else cache.lengths
        counts = (
            torch.full((rows,), tokens, dtype=torch.int64, device=embeddings.device)
            if token_counts is None
            else token_counts
        )
        is_first = start is None or bool((start == 0).all())
        ends = counts if start is None else start + counts
        lengths = ends
        if positions is not None:
            lengths = positions.amax(dim=1) + 1
        else:
            positions = torch.arange(tokens, device=embeddings.device).expand(rows, tokens)
            if start is not None:
                positions = positions + start[:, None]
            if not is_first:
                lengths = positions + 1
        if total_lengths is not None:
            lengths = total_lengths
        angles = self.rotary(positions, lengths, embeddings.dtype)
        step = _Step(angles, positions, mask, cache, is_first=is_first)
        if start is not None and not is_first:
            step.reach = int(start.max()) + tokens
            keys = torch.arange(step.reach, device=embeddings.device)
            step.mask = keys <= positions[:, None, :, None]
        states = self.group.broadcast(embeddings)
        for layer in self.layers:
            states = layer(states, step)
        if cache is not None:
            cache.lengths = ends
        normed: Tensor = self.norm(states)
        return normed

    def logits(self, states: Tensor) -> Tensor:
        """(…, hidden) → (…, tokens), cast to fp32 as the original does; without padded ids."""
        width = self.group.shard.width(self.config.vocab_size)
        scores = self.group.gather_columns(self.lm_head(states), width)
        return scores[..., : self.tokens].float()


class TokenEmbedding(nn.Embedding):
    """An embedding without random initialization.

    Initialization on the meta device makes torch import its compiler, which takes 1.4 s.
    """

    def reset_parameters(self) -> None:
        """Leave the weight uninitialized."""


class ReceivedEmbedding(nn.Module):
    """The embedding of a process that receives what rank 0 embeds: uninitialized memory for it."""

    weight: Tensor  # (0, hidden), for dtype and device

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0, hidden_size))

    def forward(self, ids: Tensor) -> Tensor:
        """(…) → (…, hidden)."""
        return self.weight.new_empty((*ids.shape, self.weight.shape[1]))


class TokenHead(nn.Linear):
    """The LM head. Its weight is padded to a multiple of 64 rows, for which cuBLAS is faster."""

    _MULTIPLE = 64
    padded: Tensor | None = None

    def allocate(self, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
        """Allocate the weight, with zeros in the padding rows."""
        rows = self.out_features + -self.out_features % self._MULTIPLE
        padded = torch.empty(rows, self.in_features, dtype=dtype, device=device)
        padded[self.out_features :] = 0
        self.weight = nn.Parameter(padded[: self.out_features], requires_grad=False)
        self.padded = padded
        return self.weight

    def forward(self, states: Tensor) -> Tensor:
        """(…, hidden) → (…, vocabulary)."""
        weight = self.weight if self.padded is None else self.padded
        return functional.linear(states, weight)[..., : self.out_features]


class _Step:
    """State that all layers share during one forward pass."""

    def __init__(
        self,
        angles: tuple[Tensor, Tensor],
        positions: Tensor,
        mask: Tensor | None,
        cache: KVCache | None,
        *,
        is_first: bool,
    ) -> None:
        self.cosine, self.sine = angles
        self.positions = positions
        self.mask = mask
        self.cache = cache
        self.is_first = is_first
        self.reach = 0


class DecoderLayer(nn.Module):
    """Pre-norm attention and SwiGLU."""

    def __init__(self, config: LanguageConfig, index: int, group: Group) -> None:
        super().__init__()
        self.group = group
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = DecoderAttention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = DecoderMLP(config)

    def forward(self, states: Tensor, step: _Step) -> Tensor:
        """(rows, tokens, hidden), same shape out."""
        reduce = self.group.all_reduce
        states = states + reduce(self.self_attn(self.input_layernorm(states), step))
        return states + reduce(self.mlp(self.post_attention_layernorm(states)))


class DecoderAttention(nn.Module):
    """Grouped-query attention with one fused projection for queries, keys and values."""

    def __init__(self, config: LanguageConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.widths = [
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
            config.kv_heads * config.head_dim,
        ]
        self.head_dim = config.head_dim
        self.grouped = config.heads != config.kv_heads
        self.qkv_proj = nn.Linear(config.hidden_size, sum(self.widths), bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.widths[0], config.hidden_size, bias=config.output_bias)

    def forward(self, states: Tensor, step: _Step) -> Tensor:
        """(rows, tokens, hidden), same shape out."""
        query, key, value = (
            part.view(*part.shape[:2], -1, self.head_dim).transpose(1, 2)
            for part in self.qkv_proj(states).split(self.widths, dim=-1)
        )
        query = rotate(query, step.cosine, step.sine)
        key = rotate(key, step.cosine, step.sine)
        if step.cache is not None:
            step.cache.write(self.index, step.positions, key, value)
            if not step.is_first:
                key, value = step.cache.read(self.index, step.reach)
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=step.mask,
            is_causal=step.mask is None,
            enable_gqa=self.grouped,
        )
        mixed: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return mixed


class DecoderMLP(nn.Module):
    """SwiGLU with one fused projection for gate and up."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(rows, tokens, hidden), same shape out."""
        gate, up = self.gate_up_proj(states).chunk(2, dim=-1)
        mixed: Tensor = self.down_proj(functional.silu(gate) * up)
        return mixed
