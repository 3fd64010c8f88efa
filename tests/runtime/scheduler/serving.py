"""A loop over a miniature's decoder with features drawn at random, and what the reference says."""

from __future__ import annotations

import queue
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlmc.artifact.manifest import RuntimeRules
from vlmc.models.language import reference_loop
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.loop import ServingLoop
from vlmc.runtime.scheduler.requests import make_sequence
from vlmc.runtime.scheduler.sequence import (
    ChoiceScores,
    Generated,
    Result,
    Sampling,
    Spent,
)
from vlmc.runtime.scheduler.service import serve

IMAGE_TOKEN = 5
NO_STOP = -1
TILE_TOKENS = 256


class RandomEncoder:
    """Features that depend on the digest alone, each computed once; counts what it encoded."""

    batch_tiles = 4

    def __init__(self, hidden: int, device: torch.device) -> None:
        self.hidden, self.device = hidden, device
        self.encoded: list[bytes] = []
        self.kept: dict[bytes, Tensor] = {}

    def features(self, image: PreparedImage) -> Tensor:
        generator = torch.Generator().manual_seed(int.from_bytes(image.digest[:7], "little"))
        shape = (TILE_TOKENS * len(image.tiles), self.hidden)
        return (torch.randn(shape, generator=generator) * 0.5).to(self.device)

    def encode(self, images: Sequence[PreparedImage]) -> list[Tensor]:
        for image in images:
            if image.digest not in self.kept:
                self.encoded.append(image.digest)
                self.kept[image.digest] = self.features(image)
        return [self.kept[image.digest] for image in images]


def picture(seed: int, tiles: int = 1) -> PreparedImage:
    return PreparedImage(seed.to_bytes(32, "little"), np.zeros((tiles, 1, 1, 3), np.uint8))


def request(
    images: Sequence[PreparedImage], question: Sequence[int], before: Sequence[int] = (1, 2, 3)
) -> PreparedRequest:
    ids = list(before)
    for image in images:
        ids += [6, *[IMAGE_TOKEN] * (TILE_TOKENS * len(image.tiles)), 7]
    return PreparedRequest((*ids, *question), IMAGE_TOKEN, tuple(images), 0.0)


@dataclass
class Service:
    """A loop, its encoder, and what came back in order of submission."""

    decoder: Decoder
    loop: ServingLoop
    encoder: RandomEncoder
    stop_id: int
    policy: str

    def ask(
        self,
        asked: Sequence[tuple[PreparedRequest, Sampling | ChoiceTrie]],
        *,
        timeout_s: float = 300,
    ) -> list[tuple[Result, Spent]]:
        results: queue.Queue[tuple[int, Result, Spent]] = queue.Queue()
        for index, (prepared, work) in enumerate(asked):

            def done(result: Result, spent: Spent, index: int = index) -> None:
                results.put((index, result, spent))

            self.loop.submit(
                make_sequence(
                    prepared,
                    work,
                    done,
                    policy=self.policy,  # type: ignore[arg-type]
                    salt=b"artifact",
                    config=self.decoder.config,
                )
            )
        found = [results.get(timeout=timeout_s) for _ in asked]
        assert results.empty(), "a request was answered twice"
        assert sorted(index for index, _, _ in found) == list(range(len(asked)))
        return [(result, spent) for _, result, spent in sorted(found, key=lambda f: f[0])]

    def expected(
        self, prepared: PreparedRequest, work: Sampling | ChoiceTrie
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Tokens of an answer, or log-probabilities of choices, by the reference loop alone."""
        features = [self.encoder.features(image) for image in prepared.images]
        with torch.inference_mode():
            row = reference_loop.embed(
                self.decoder, prepared.prompt_ids, prepared.image_token_id, features
            )
            reserve = work.max_new_tokens if isinstance(work, Sampling) else 0
            start = reference_loop.prefill(self.decoder, [row], 0, reserve_tokens=reserve)
            if isinstance(work, ChoiceTrie):
                scores = reference_loop.score(self.decoder, start, work.choices)
                return (), tuple(scores[0].tolist())
            sampling = reference_loop.Sampling(work.max_new_tokens, work.temperature, work.seed)
            (tokens,) = reference_loop.generate(self.decoder, start, sampling, self.stop_id)
            return tokens, ()

    def check(self, prepared: PreparedRequest, work: Sampling | ChoiceTrie, result: Result) -> None:
        tokens, scores = self.expected(prepared, work)
        if isinstance(work, ChoiceTrie):
            assert isinstance(result, ChoiceScores), result
            np.testing.assert_allclose(result.logprobs, scores, atol=1e-3)
        else:
            assert isinstance(result, Generated), result
            assert result.token_ids == tokens


def drawn(seed: int, count: int) -> list[tuple[PreparedRequest, Sampling | ChoiceTrie]]:
    """Requests that share pictures, beginnings and neither, in a random order."""
    chance = random.Random(seed)
    asked = []
    for _ in range(count):
        images = [picture(chance.randrange(4)) for _ in range(chance.choice((0, 1, 1, 1, 2)))]
        question = [chance.randrange(8, 60) for _ in range(chance.choice((1, 4, 16, 17, 40)))]
        before = [chance.randrange(8, 60)] * chance.choice((1, 16, 20))
        work: Sampling | ChoiceTrie = Sampling(chance.choice((1, 2, 5)))
        if chance.random() < 0.3:
            work = ChoiceTrie([(9,), (9, 10), (9, 10, 11), (12, 13)][: chance.randrange(1, 5)], 2)
        asked.append((request(images, question, before), work))
    return asked


def start(
    decoder: Decoder,
    *,
    policy: str = "content",
    max_batch_tokens: int = 700,
    cache_tokens: int = 4096,
    stop_id: int = NO_STOP,
    cuda_graphs: bool = True,
    lead: Lead | None = None,
) -> Service:
    encoder = RandomEncoder(decoder.config.hidden_size, decoder.embed_tokens.weight.device)
    loop = serve(
        decoder,
        encoder,
        stop_id=stop_id,
        rules=RuntimeRules(cuda_graphs=cuda_graphs, max_batch_tokens=max_batch_tokens),
        cache_tokens=cache_tokens,
        lead=lead,
    )
    return Service(decoder, loop, encoder, stop_id, policy)
