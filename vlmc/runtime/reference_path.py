"""The plain path of a request through an artifact, which a job's answers can be audited with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmc.models.language import reference_loop
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.prune import prune_tokens
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.sequence import ChoiceScores, Generated, Sampling


class ReferencePath:
    """One request at a time, by the engine without graphs and by the reference loop.

    It shares the weights and takes nothing from caches: no features, keys or values of earlier
    requests, no batches, no CUDA graphs. In a group the followers run each request too.
    """

    def __init__(
        self,
        decoder: Decoder,
        engine: VisionEngine,
        stop_id: int,
        tokens_per_tile: int,
        lead: Lead,
    ) -> None:
        self._decoder, self._engine, self._lead = decoder, engine, lead
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
        choices = work.choices if isinstance(work, ChoiceTrie) else None
        new = work.max_new_tokens if isinstance(work, Sampling) else 0
        with self._lead.reference(len(row), new, self._stop_id, choices):
            result = run_row(decoder, row, new, self._stop_id, choices)
        if result is None:
            raise reference_loop.not_finite_error(row.dtype)
        return result

    def _features(self, image: PreparedImage) -> Tensor:
        """(tokens, hidden) of all tiles of an image, in the language model's dtype."""
        weight = self._decoder.embed_tokens.weight
        # A copy: tiles from another process may be read only.
        tiles = torch.tensor(image.tiles, device=self._engine.device)
        kept = prune_tokens(self._engine.infer(tiles), self._tokens_per_tile)
        return kept.flatten(0, 1).to(weight.device, weight.dtype)


def run_row(
    decoder: Decoder,
    row: Tensor,
    max_new_tokens: int,
    stop_id: int,
    choices: Sequence[tuple[int, ...]] | None,
) -> Generated | ChoiceScores | None:
    """Greedy tokens after an embedded prompt, or the scores of choices; None if not finite.

    All ranks of a group call it together; the prompt's embeddings count on rank 0 alone.
    """
    start = reference_loop.prefill(decoder, [row], 0, reserve_tokens=max_new_tokens)
    if choices is not None:
        scores = reference_loop.score(decoder, start, choices)
        finite = bool(scores.isfinite().all())
        return ChoiceScores(tuple(scores[0].tolist()), {}) if finite else None
    greedy = reference_loop.Sampling(max_new_tokens)
    (tokens,) = reference_loop.generate(decoder, start, greedy, stop_id)
    return Generated(tokens, ()) if tokens else None
