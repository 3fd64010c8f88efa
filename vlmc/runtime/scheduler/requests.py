"""From a prepared request to a sequence of the scheduler."""

from __future__ import annotations

from collections.abc import Callable

from vlmc.artifact.manifest import PrefixCachePolicy
from vlmc.checkpoint.config import LanguageConfig
from vlmc.models.vision.prune import prune_image
from vlmc.runtime.cache.block_key import ImageRun, block_keys
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.sequence import LiveSequence, OnDone, Sampling


def image_runs(request: PreparedRequest) -> list[ImageRun]:
    """Where the tokens of each image are in the prompt.

    An image whose features were given has no digest that vouches for them.
    """
    runs, at = [], 0
    tiles = sum(len(image.tiles) for image in request.images)
    for image in request.images:
        start = request.prompt_ids.index(request.image_token_id, at)
        # Every tile has as many.
        tokens = request.image_tokens * len(image.tiles) // tiles
        runs.append(ImageRun(start, tokens, b"" if image.features is not None else image.digest))
        at = start + tokens
    return runs


def make_sequence(
    request: PreparedRequest,
    work: Sampling | ChoiceTrie,
    on_done: OnDone,
    *,
    policy: PrefixCachePolicy,
    salt: bytes,
    config: LanguageConfig,
    cancelled: Callable[[], bool] = lambda: False,
) -> LiveSequence:
    """The sequence of a request.

    Args:
        salt: all that its keys and values depend on beside prompt and images.
        cancelled: whether nobody waits for the answer any more.
    """
    runs = image_runs(request)
    return LiveSequence(
        ids=request.prompt_ids,
        images=runs,
        work=work,
        on_done=on_done,
        cancelled=cancelled,
        keys=block_keys(request.prompt_ids, runs, policy, salt, config),
        sources=request.images,
        features=[
            image.features
            if image.features is None
            else prune_image(image.features, len(image.tiles), run.tokens // len(image.tiles))
            for image, run in zip(request.images, runs, strict=True)
        ],
    )
