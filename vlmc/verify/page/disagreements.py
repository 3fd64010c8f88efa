"""The disagreements on the page, each with its images and the tiles that both sides make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmc.image.tiles import Grid
from vlmc.report import html
from vlmc.report.tile_grid import Thumbnail, define_images, draw_tile_grid
from vlmc.verify.page.grid_images import GridImage

MOST_IMAGES = 4
"""Of one question."""

Views = Mapping[Path, tuple[GridImage, GridImage]]


def draw_disagreements(entry: Mapping[str, Any], images: Views) -> Iterator[str]:
    """Parts of the page of an engine's entry in a report."""
    total = round((1 - entry["answers"]["agreement"]["value"]) * entry["answers"]["agreement"]["n"])
    listed, explanations = entry["disagreements"], entry["explanations"]
    if not total:
        yield html.paragraph("None: after normalization, all answers are the source's.")
        return
    yield html.paragraph(
        f"{len(listed)} of {total}: first the finds that the artifact loses, then those that the "
        "source was surest of. An image is stretched to its grid; lines are borders of tiles."
    )
    if explanations:
        counts = Counter(found["level"] for found in explanations)
        yield html.table(
            ("arises at", "disagreements"), ((k, str(n)) for k, n in counts.most_common())
        )
    uris: dict[Thumbnail, str] = {}
    for views in images.values():
        for view in views:
            uris.setdefault(view.image, f"image-{len(uris)}")
    yield define_images({name: image for image, name in uris.items()})
    causes = {found["line"]: found for found in explanations}
    for pair in listed:
        yield html.section(_case(pair, causes.get(pair["line"]), images, uris))


def image_paths(entry: Mapping[str, Any]) -> Iterator[Path]:
    """Images that the disagreements of an engine's entry show, in their order."""
    for pair in entry["disagreements"]:
        yield from _paths(pair)[:MOST_IMAGES]


def _paths(pair: Mapping[str, Any]) -> list[Path]:
    images = pair["image"]
    return [Path(name) for name in ([images] if isinstance(images, str) else images)]


def _case(
    pair: Mapping[str, Any],
    cause: Mapping[str, Any] | None,
    images: Views,
    uris: Mapping[Thumbnail, str],
) -> Iterator[str]:
    yield html.heading(f"Line {pair['line']}", 3)
    yield html.fields(_case_fields(pair, cause))
    for path in _paths(pair)[:MOST_IMAGES]:
        yield html.fields([("image", str(path))])
        if path in images:
            yield html.row(_figures(*images[path], uris))
        else:
            yield html.paragraph(
                "Not shown: the images above fill what the page holds, or this one can no longer "
                "be read.",
                dim=True,
            )
    more = len(_paths(pair)) - MOST_IMAGES
    if more > 0:
        yield html.paragraph(f"{more} more images are not shown.", dim=True)


def _case_fields(
    pair: Mapping[str, Any], cause: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    probability = math.exp(pair["reference_first_logprob"])
    yield "prompt", pair["prompt"]
    if pair["label"] is not None:
        yield "label", pair["label"]
    yield f"source, first token's probability {probability:.3f}:", _answer(pair["reference"])
    yield "artifact:", _answer(pair["answer"])
    if cause is not None:
        yield f"arises at the {cause['level']}:", cause["cause"]
        for parts, answer in cause["answers"].items():
            yield f"with {parts}:", _answer(answer)


def _answer(text: str) -> str:
    return text or "(empty)"


def _figures(
    source: GridImage, artifact: GridImage, uris: Mapping[Thumbnail, str]
) -> Iterator[str]:
    if source == artifact:
        yield _figure("source and artifact", source, uris)
    else:
        yield _figure("source", source, uris)
        yield _figure("artifact", artifact, uris)


def _figure(side: str, view: GridImage, uris: Mapping[Thumbnail, str]) -> str:
    grid = view.grid
    caption = f"{side}: {_grid_text(grid)}"
    return draw_tile_grid(uris[view.image], view.image, grid.columns, grid.rows, caption)


def _grid_text(grid: Grid) -> str:
    if grid.tiles == 1:
        return "1 tile"
    thumbnail = " and the whole image" if grid.thumbnail else ""
    return f"{grid.columns} × {grid.rows} tiles{thumbnail}, {grid.tiles} in all"
