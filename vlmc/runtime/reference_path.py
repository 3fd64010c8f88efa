"""The plain path of a request through an artifact, which a job's answers can be audited with."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.models.language import reference_loop
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.prune import prune_tokens
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.sequence import ChoiceScores, Generated, Sampling


class ReferencePath:
    """One request at a time, by the engine without graphs and by the reference loop.

    It shares the weights and takes nothing from caches: no features, keys or values of earlier
    requests, no batches, no CUDA graphs.
    """

    def __init__(
        self, decoder: Decoder, engine: VisionEngine, stop_id: int, tokens_per_tile: int
    ) -> None:
        self._decoder, self._engine = decoder, engine
        self._stop_id, self._tokens_per_tile = stop_id, tokens_per_tile

    @torch.inference_mode()
    def run(
        self, request: PreparedRequest, work: Sampling | ChoiceTrie
    ) -> Generated | ChoiceScores:
        """Greedy tokens, or the scores of choices; the tokens have no log-probabilities.

        Raises:
            NotFiniteError: logits are NaN or infinite.
        """
        decoder = self._decoder
        features = [self._features(image) for image in request.images]
        row = reference_loop.embed(decoder, request.prompt_ids, request.image_token_id, features)
        reserve = work.max_new_tokens if isinstance(work, Sampling) else 0
        start = reference_loop.prefill(decoder, [row], 0, reserve_tokens=reserve)
        if isinstance(work, ChoiceTrie):
            scores = reference_loop.score(decoder, start, work.choices)
            if not bool(scores.isfinite().all()):
                raise reference_loop.not_finite_error(row.dtype)
            return ChoiceScores(tuple(scores[0].tolist()), {})
        greedy = reference_loop.Sampling(work.max_new_tokens)
        (tokens,) = reference_loop.generate(decoder, start, greedy, self._stop_id)
        if not tokens:
            raise reference_loop.not_finite_error(row.dtype)
        return Generated(tokens, ())

    def _features(self, image: PreparedImage) -> Tensor:
        """(tokens, hidden) of all tiles of an image, in the language model's dtype."""
        weight = self._decoder.embed_tokens.weight
        tiles = torch.from_numpy(image.tiles).to(self._engine.device)
        kept = prune_tokens(self._engine.infer(tiles), self._tokens_per_tile)
        return kept.flatten(0, 1).to(weight.device, weight.dtype)
