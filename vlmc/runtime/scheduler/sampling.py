"""Draw a token at a temperature above 0."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.runtime.scheduler.sequence import LiveSequence, Sampling


def draw(logits: Tensor, sequence: LiveSequence) -> int:
    """A token of one row of logits (vocabulary,), by the sequence's own generator.

    On the CPU, so that a draw depends neither on batch nor on device. Distances to the best are
    taken in fp64: a small temperature would divide fp32 into infinities.
    """
    sampling = sequence.work
    if not isinstance(sampling, Sampling):
        raise TypeError("only generated answers are drawn")
    if sequence.generator is None:
        sequence.generator = torch.Generator().manual_seed(sampling.seed)
    distances = (logits - logits.amax()).double().cpu()
    chances = (distances / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = chances.sort(descending=True)
        # A token stays while those before it add up to less than top_p, so the first always does.
        dropped = order[ordered.cumsum(-1) - ordered >= sampling.top_p]
        chances[dropped] = 0
    return int(torch.multinomial(chances, 1, generator=sequence.generator))
