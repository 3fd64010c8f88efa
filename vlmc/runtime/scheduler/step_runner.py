"""Run planned steps on the device, and read what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vlmc.models.flops import RowWork
from vlmc.models.language.packed_batch import Row, pack
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.runtime.requests.timeline import span
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.decode_graphs import DecodeGraphs
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.sampling import draw
from vlmc.runtime.scheduler.scheduler import Share
from vlmc.runtime.scheduler.sequence import LiveSequence, Sampling


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step computed, still on the device until `read`.

    `tokens` (n,) int64 and `logprobs` (n,) belong to `generating`, and so do `top_tokens` and
    `top_logprobs` (n, k), k as the most that one of them asks for; `scores` hold the
    log-probabilities of the children of each node in `scoring`; `finite` (m,) says of both, in
    that order, whether all logits of the row were finite.
    """

    generating: tuple[LiveSequence, ...]
    scoring: tuple[LiveSequence, ...]
    tokens: Tensor
    logprobs: Tensor
    top_tokens: Tensor
    top_logprobs: Tensor
    scores: tuple[Tensor, ...]
    finite: Tensor
    ready: torch.cuda.Event | None


class StepRunner:
    """Embeds, runs and samples; keeps each lane's last token on the device.

    A decoding row takes its input from there, so that a step can be launched before the host has
    read the tokens of the step before. In a group, rank 0 announces through `lead` what the runners
    of the others `follow`.
    """

    def __init__(self, packed: PackedDecoder, lanes: int, lead: Lead) -> None:
        self._packed, self.lead = packed, lead
        self._table = packed.decoder.embed_tokens.weight
        self._device = self._table.device
        self.last_tokens = torch.zeros(lanes + 1, dtype=torch.int64, device=self._device)
        self.graphs: DecodeGraphs | None = None

    @property
    def packed(self) -> PackedDecoder:
        """What runs the steps."""
        return self._packed

    @property
    def device(self) -> torch.device:
        """Where the steps run."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """What the language model computes in."""
        return self._table.dtype

    def run(self, shares: Sequence[Share]) -> StepResult:
        """Launch one step. Rows of one token come first in `shares`."""
        rows = [
            Row(share.start, share.count, _rope_length(share), share.sequence.pages)
            for share in shares
        ]

        def work() -> list[RowWork]:
            return [share.work for share in shares]

        if self.graphs is not None and self.graphs.takes(len(rows)) and all(map(_decodes, shares)):
            sequences = tuple(share.sequence for share in shares)
            self.lead.replay(rows)
            size = self.graphs.fill(rows, [sequence.lane for sequence in sequences])
            with span("language", self._device, rows=work):
                logits = self.graphs.replay(size)
            return self._result(sequences, (), logits[: len(rows)])
        ending = [index for index, share in enumerate(shares) if share.ends_prompt]
        generating = [i for i in ending if isinstance(shares[i].sequence.work, Sampling)]
        scoring = [i for i in ending if isinstance(shares[i].sequence.work, ChoiceTrie)]
        chosen = generating + scoring
        self.lead.step(rows, chosen)
        batch = pack(rows, self._device)
        embedded = self._embed(shares)
        with span("language", self._device, rows=work):
            states = self._packed.forward(embedded, batch)
            logits = self._packed.logits(states[self._index(chosen)])
        return self._result(
            tuple(shares[index].sequence for index in generating),
            tuple(shares[index].sequence for index in scoring),
            logits,
        )

    def follow(self, rows: Sequence[Row], chosen: Sequence[int]) -> None:
        """Run this rank's part of a step that rank 0 runs."""
        batch = pack(rows, self._device)
        received = self._table.new_empty(batch.tokens, self._table.shape[1])
        states = self._packed.forward(received, batch)
        self._packed.logits(states[self._index(chosen)])

    def follow_replay(self, rows: Sequence[Row]) -> None:
        """Replay this rank's part of a decode graph that rank 0 replays."""
        if self.graphs is not None:
            self.graphs.replay(self.graphs.fill(rows, [0] * len(rows)))

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page of the cache, in order with the steps."""
        self.lead.copy_page(source, target)
        self._packed.cache.copy_page(source, target)

    def close(self) -> None:
        """End the followers. Graphs go first, because they hold operations of the group."""
        if self.lead.is_alone:
            return
        if self.graphs is not None:
            torch.cuda.synchronize(self._device)
            self.graphs.close()
        self._packed.decoder.group.close()
        self.lead.close()

    def _result(
        self,
        generating: tuple[LiveSequence, ...],
        scoring: tuple[LiveSequence, ...],
        logits: Tensor,
    ) -> StepResult:
        """Sample and score from the logits of all rows that a token or score follows from."""
        finite = logits.isfinite().all(-1)
        count = len(generating)
        tokens, logprobs = self._sample(generating, logits[:count])
        asked = max(map(_top_logprobs, generating), default=0)
        top = logits[:count].topk(min(asked, logits.shape[-1]), dim=-1)
        normalizer = logits[:count].logsumexp(-1, keepdim=True) if asked else 0
        scores = []
        for row, sequence in zip(logits[count:], scoring, strict=True):
            scores.append(row.log_softmax(-1)[self._index(_children(sequence))])
        result = StepResult(
            generating=generating,
            scoring=scoring,
            tokens=_to_host(tokens),
            logprobs=_to_host(logprobs),
            top_tokens=_to_host(top.indices),
            top_logprobs=_to_host(top.values - normalizer),
            scores=tuple(map(_to_host, scores)),
            finite=_to_host(finite),
            ready=torch.cuda.Event() if self._device.type == "cuda" else None,  # type: ignore[no-untyped-call]
        )
        if result.ready is not None:
            result.ready.record()
        return result

    def _embed(self, shares: Sequence[Share]) -> Tensor:
        """Embeddings (tokens, hidden), image tokens overwritten by features."""
        ids: list[int] = []
        lanes: list[int] = []
        for share in shares:
            sequence, end = share.sequence, share.start + share.count
            if _decodes(share):
                lanes.append(sequence.lane)
                ids.append(0)
            else:
                ids += sequence.ids[share.start : end]
        tokens = self._index(ids)
        if lanes:
            # Rows that decode come first among the rows of one token, or are mixed with ends of
            # prompts and forks, so each is placed by itself.
            places = [index for index, share in enumerate(shares) if _decodes(share)]
            tokens[self._index(places)] = self.last_tokens[self._index(lanes)]
        states = functional.embedding(tokens, self._table)
        at = 0
        for share in shares:
            _place_features(states[at : at + share.count], share)
            at += share.count
        return states

    def _sample(self, sequences: Sequence[LiveSequence], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Next tokens (n,) and their log-probabilities (n,); kept as the lanes' last tokens."""
        tokens = logits.argmax(-1)
        drawn = [i for i, sequence in enumerate(sequences) if _temperature(sequence) > 0]
        for index in drawn:
            tokens[index] = draw(logits[index], sequences[index])
        if sequences:
            lanes = self._index([sequence.lane for sequence in sequences])
            self.last_tokens[lanes] = tokens
        best = logits.gather(-1, tokens[:, None])[:, 0]
        return tokens, best - logits.logsumexp(-1)

    def _index(self, values: Sequence[int]) -> Tensor:
        tensor = torch.tensor(values, dtype=torch.int64)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor


def _rope_length(share: Share) -> int:
    """A prompt goes by its whole length, a generated token by the length up to it."""
    return max(share.sequence.prompt_length, share.start + share.count)


def _decodes(share: Share) -> bool:
    """Whether the share is one token that the sequence itself generated."""
    return share.start >= share.sequence.prompt_length


def _children(sequence: LiveSequence) -> list[int]:
    trie = sequence.work
    if not isinstance(trie, ChoiceTrie):
        return []
    return list((sequence.node or trie.root).children)


def _place_features(states: Tensor, share: Share) -> None:
    """Overwrite the embeddings of image tokens between the share's first and last token."""
    end = share.start + share.count
    sequence = share.sequence
    for image, features in zip(sequence.images, sequence.features, strict=True):
        first, last = max(image.start, share.start), min(image.start + image.tokens, end)
        if first < last and features is not None:
            part = features[first - image.start : last - image.start]
            states[first - share.start : last - share.start] = part.to(states.dtype)


def _temperature(sequence: LiveSequence) -> float:
    return sequence.work.temperature if isinstance(sequence.work, Sampling) else 0.0


def _top_logprobs(sequence: LiveSequence) -> int:
    return sequence.work.top_logprobs if isinstance(sequence.work, Sampling) else 0


def _to_host(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)
    return tensor
