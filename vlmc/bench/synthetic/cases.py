"""Pictures and tile rules whose figures are published, by their number of tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlmc.bench.synthetic.pictures import jpeg
from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule

# A run reads other pictures each time by the marks of `Workload`; these differ in their pixels too.
_PICTURES = 32
_CPU_REQUESTS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """Pictures of one size under one tile rule; `requests` fill some seconds of an H100."""

    tiles: int
    width: int
    height: int
    rule: TileRule
    requests: int

    def images(self, count: int) -> list[bytes]:
        """So many JPEG files."""
        drawn = [jpeg(self.width, self.height, seed) for seed in range(min(count, _PICTURES))]
        return [drawn[index % len(drawn)] for index in range(count)]

    def usual_requests(self, device: torch.device) -> int:
        """Requests of a run where nobody says how many."""
        return self.requests if device.type == "cuda" else _CPU_REQUESTS


CASES = {
    case.tiles: case
    for case in (
        Case(13, 640, 480, TileRule("original"), 40),
        Case(7, 480, 320, TileRule("original"), 80),
        Case(2, 480, 320, TileRule("native"), 280),
        Case(1, 480, 320, TileRule("single"), 480),
    )
}


def find_case(tiles: int) -> Case:
    """The case of so many tiles.

    Raises:
        UsageError: there is none.
    """
    if tiles not in CASES:
        known = ", ".join(map(str, CASES))
        raise UsageError(f"there is no case of {tiles} tiles; --cases takes any of {known}")
    return CASES[tiles]
