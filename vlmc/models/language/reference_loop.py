"""Prefill, decode and score for a batch of prompts that share a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.errors import NotFiniteError
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.kv_cache import KVCache
from vlmc.models.language.splice import splice

# In place of a token, where none can be chosen.
_NOT_FINITE = -1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters. `temperature` 0 is greedy; `seed` makes other sampling repeatable."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Prefilled:
    """Prompts after prefill; `logits` (rows, vocabulary), fp32, are those of the next token.

    The first `shared` tokens were computed for the first row and copied to the other rows.
    """

    cache: KVCache
    logits: Tensor
    shared: int


def embed(
    decoder: Decoder, ids: Sequence[int], image_token_id: int, features: Sequence[Tensor]
) -> Tensor:
    """Token embeddings (tokens, hidden), with `features` in place of the image tokens."""
    return splice(decoder.embed_tokens.weight, ids, image_token_id, features)


def prefill(
    decoder: Decoder, rows: Sequence[Tensor], shared: int, *, reserve_tokens: int
) -> Prefilled:
    """Run prompts that share their first `shared` tokens.

    The shared prefix is computed once; its keys and values are copied to the other rows.

    Args:
        decoder: the language model.
        rows: embedded prompts, each (tokens, hidden).
        shared: length of the common prefix; 0 runs every prompt separately.
        reserve_tokens: capacity of the cache beyond the longest prompt.
    """
    device, dtype = rows[0].device, rows[0].dtype
    lengths = torch.tensor([len(row) for row in rows], device=device)
    capacity = int(lengths.max()) + reserve_tokens
    if len(rows) == 1 or not can_share(decoder, lengths, shared):
        shared = 0
    rests = torch.nn.utils.rnn.pad_sequence([row[shared:] for row in rows], batch_first=True)
    if shared:
        # Rope scaling is the same for all rows here, so the length of any row will do.
        first = KVCache(decoder.config, 1, shared, dtype=dtype, device=device)
        decoder(rows[0][None, :shared], first, total_lengths=lengths[:1])
        cache = first.select(torch.zeros(len(rows), dtype=torch.int64, device=device), capacity)
    else:
        cache = KVCache(decoder.config, len(rows), capacity, dtype=dtype, device=device)
    counts = lengths - shared
    states = decoder(rests, cache, token_counts=counts, total_lengths=lengths)
    last = states[torch.arange(len(rows), device=device), counts - 1]
    return Prefilled(cache, decoder.logits(last), shared)


def can_share(decoder: Decoder, lengths: Tensor, shared: int) -> bool:
    """Whether rows of these lengths can share the keys of a common prefix.

    Rope scaling depends on the length of the whole row. Phi-3 switches factors at the original
    window. Beyond its window, InternLM2's base depends on the exact length.
    """
    if shared == 0:
        return False
    scaling, longest = decoder.config.rope_scaling, int(lengths.max())
    if scaling.kind == "longrope":
        window = scaling.original_positions
        return longest <= window or int(lengths.min()) > window
    return scaling.kind != "dynamic" or longest <= decoder.config.max_positions


def generate(
    decoder: Decoder, start: Prefilled, sampling: Sampling, stop_id: int
) -> list[tuple[int, ...]]:
    """Generate tokens for each row, up to and including the stop token.

    A row whose logits are NaN or infinite before it stops has no tokens.
    """
    rows = len(start.logits)
    answers: list[list[int]] = [[] for _ in range(rows)]
    generators = [torch.Generator().manual_seed(sampling.seed) for _ in range(rows)]
    logits, ended = start.logits, (stop_id, _NOT_FINITE)
    for step in range(sampling.max_new_tokens):
        chosen = _choose(logits, sampling, generators)
        for answer, token in zip(answers, chosen.tolist(), strict=True):
            if not answer or answer[-1] not in ended:
                answer.append(token)
        finished = all(answer[-1] in ended for answer in answers)
        if finished or step == sampling.max_new_tokens - 1:
            break
        states = decoder(decoder.embed_tokens(chosen.clamp(min=0)[:, None]), start.cache)
        logits = decoder.logits(states[:, -1])
    return [() if answer[-1] == _NOT_FINITE else tuple(answer) for answer in answers]


def score(decoder: Decoder, start: Prefilled, choices: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probability of every choice, summed over its tokens: (rows, choices) fp32.

    It is NaN if logits that it depends on are NaN or infinite.
    """
    device = start.logits.device
    rows, longest = len(start.logits), max(len(choice) for choice in choices)
    first = _log_softmax(start.logits)[:, [choice[0] for choice in choices]]
    if longest == 1:
        return first
    counts = torch.tensor([len(choice) for choice in choices], device=device)
    padded = torch.zeros(len(choices), longest, dtype=torch.int64, device=device)
    for index, choice in enumerate(choices):
        padded[index, : len(choice)] = torch.tensor(choice)
    pairs = torch.arange(rows, device=device).repeat_interleave(len(choices))
    cache = start.cache.select(pairs, int(start.cache.lengths.max()) + longest)
    inputs = padded[:, :-1].repeat(rows, 1)
    states = decoder(decoder.embed_tokens(inputs), cache)
    following = _log_softmax(decoder.logits(states))  # (rows · choices, longest - 1, tokens)
    targets = padded[:, 1:].repeat(rows, 1)
    gathered = following.gather(-1, targets[:, :, None])[:, :, 0]
    real = torch.arange(1, longest, device=device) < counts.repeat(rows)[:, None]
    return first + gathered.where(real, 0.0).sum(-1).view(rows, len(choices))


def _choose(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """The next token of each row, or `_NOT_FINITE`."""
    finite = _are_finite(logits)
    if sampling.temperature == 0:
        return logits.argmax(-1).where(finite, _NOT_FINITE)
    logits = logits.where(finite[:, None], 0.0)
    # On the CPU with one generator per row, so that samples depend neither on batch nor on device.
    # Subtract the maximum and use fp64, because fp32 overflows at small temperatures.
    shifted = (logits - logits.amax(-1, keepdim=True)).double()
    probabilities = (shifted / sampling.temperature).softmax(-1).cpu()
    sampled = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(sampled).to(logits.device).where(finite, _NOT_FINITE)


def _are_finite(logits: Tensor) -> Tensor:
    """(…, tokens) → (…): whether none is NaN or infinite, which a sum in fp32 keeps."""
    return logits.sum(-1).isfinite()


def _log_softmax(logits: Tensor) -> Tensor:
    finite = _are_finite(logits)[..., None]
    return logits.log_softmax(-1).where(finite, torch.nan)


def not_finite_error(dtype: torch.dtype) -> NotFiniteError:
    """The error of a prompt that has no answer because its logits are NaN or infinite."""
    advice = (
        "The language model computes in fp16, whose values end at 65,504: build it with "
        "model.dtype bf16, which has fp32's range."
        if dtype == torch.float16
        else "The features of its images or the language model overflow; run `vlmc verify "
        "accuracy`, which compares both with the source model."
    )
    return NotFiniteError(f"the model's scores for this prompt are NaN or infinite. {advice}")
