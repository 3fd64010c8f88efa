"""What every image token should know of the thing that it shows, as a training signal.

A linear head, used in training alone, reads it from the projector's output; so the language model
finds it there too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.quickstart.training.parts import Thing
from recipes.quickstart.training.prompts import IGNORED
from recipes.quickstart.training.words import COLOURS, KINDS, WORDS

CELLS = 16
"""Image tokens along one side of a tile."""
NOTHING = len(KINDS)
NUMBER = len(WORDS)
PARTS = (len(KINDS) + 1, len(COLOURS), 2, len(WORDS) + 1, 10, 10)
"""Classes of kind, colour, state, word, tens and ones; the last class of a word is "a number"."""
NAMES = ("kind", "colour", "state", "word", "tens", "ones")
_LEAST_COVERED = 0.25


def describe(thing: Thing) -> list[int]:
    """Classes of a thing in the order of `NAMES`; `IGNORED` where it has none."""
    text = thing.text
    number = text if text is not None and text.isdigit() else None
    word = IGNORED if text is None else NUMBER if number is not None else WORDS.index(text)
    return [
        KINDS.index(thing.kind),
        IGNORED if thing.colour is None else COLOURS.index(thing.colour),
        IGNORED if thing.in_order is None else int(thing.in_order),
        word,
        IGNORED if number is None else int(number[0]),
        IGNORED if number is None else int(number[1]),
    ]


class DenseHead(nn.Module):
    """Scores of all classes and of being the middle of a thing, for every image token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden, sum(PARTS) + 1)

    def forward(self, features: Tensor) -> Tensor:
        """(…, hidden) → (…, classes)."""
        scores: Tensor = self.scores(features)
        return scores


def dense_targets(windows: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Classes of every image token.

    Args:
        windows: (rows, tiles, 4), the part of the image that a tile shows: x0, y0, x1, y1 as
            shares of its width and height.
        boxes: (rows, things, 4), likewise; an absent thing has an empty box outside the image.
        classes: (rows, things, 6) int64.

    Returns:
        (rows, tiles · 256, 6) int64 and (rows, tiles · 256) bool, the latter True for the token
        that a thing's middle lies in.
    """
    step = torch.arange(CELLS, device=windows.device) / CELLS
    width, height = windows[..., 2] - windows[..., 0], windows[..., 3] - windows[..., 1]
    left = windows[..., 0, None] + width[..., None] * step  # (rows, tiles, 16)
    top = windows[..., 1, None] + height[..., None] * step
    left, top = (
        left[:, :, None, :].expand(-1, -1, CELLS, -1).flatten(1)[..., None],
        top[:, :, :, None].expand(-1, -1, -1, CELLS).flatten(1)[..., None],
    )  # (rows, tokens, 1)
    cell_width = (width / CELLS).repeat_interleave(CELLS**2, dim=1)[..., None]
    cell_height = (height / CELLS).repeat_interleave(CELLS**2, dim=1)[..., None]
    x0, y0, x1, y1 = boxes[:, None].unbind(-1)  # (rows, 1, things)
    wide = (torch.minimum(left + cell_width, x1) - torch.maximum(left, x0)).clamp(min=0)
    high = (torch.minimum(top + cell_height, y1) - torch.maximum(top, y0)).clamp(min=0)
    covered = wide * high / (cell_width * cell_height)  # (rows, tokens, things)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    middle = (middle_x >= left) & (middle_x < left + cell_width)
    middle &= (middle_y >= top) & (middle_y < top + cell_height)
    score, chosen = (covered + middle).max(dim=2)
    found = torch.gather(classes, 1, chosen[..., None].expand(-1, -1, classes.shape[2]))
    empty = torch.full_like(found, IGNORED)
    empty[..., 0] = NOTHING
    return torch.where((score > _LEAST_COVERED)[..., None], found, empty), middle.any(dim=2)


def dense_loss(scores: Tensor, targets: Tensor, middle: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of the parts' cross-entropies; background and things weigh the same in the kind's.

    Args:
        scores: (rows, tokens, classes) as `DenseHead` gives them.

    Returns:
        The loss and each part's accuracy over the tokens that have it, detached.
    """
    parts = torch.split(scores.float(), [*PARTS, 1], dim=-1)
    total = scores.new_zeros((), dtype=torch.float32)
    accuracy: dict[str, Tensor] = {}
    for index, name in enumerate(NAMES):
        wanted = targets[..., index].flatten()
        logits = parts[index].flatten(0, 1)
        losses = functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="none")
        right = logits.argmax(dim=-1) == wanted
        known = wanted != IGNORED
        if index == 0:
            total = total + _mean(losses, wanted == NOTHING)
            known = wanted != NOTHING
        total = total + _mean(losses, known)
        accuracy[name] = _mean(right.float(), known).detach()
    spot = parts[-1].flatten()
    losses = functional.binary_cross_entropy_with_logits(
        spot, middle.flatten().float(), reduction="none"
    )
    total = total + _mean(losses, middle.flatten()) + 4 * _mean(losses, ~middle.flatten())
    accuracy["middle"] = _mean((spot > 0).float(), middle.flatten()).detach()
    return total / (len(NAMES) + 1), accuracy


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    weights = chosen.float()
    return (values * weights).sum() / weights.sum().clamp(min=1)
