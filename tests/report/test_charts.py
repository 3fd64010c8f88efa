"""Columns, histograms, ladders, sweeps, matrices and tile grids: true to their values."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vlmc.report import html
from vlmc.report.columns import draw_columns
from vlmc.report.histogram import draw_histograms
from vlmc.report.ladder import LadderRung, draw_ladder
from vlmc.report.matrix import draw_matrix
from vlmc.report.sweep import SweepPoint, draw_sweep
from vlmc.report.tile_grid import Thumbnail, define_images, draw_tile_grid

SVG = "{http://www.w3.org/2000/svg}"


def parsed(parts: list[str]) -> ElementTree.Element:
    return ElementTree.fromstring(html.page("page", parts).removeprefix("<!DOCTYPE html>\n"))


def heights(root: ElementTree.Element, colour: str = "#123456") -> list[float]:
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("fill") == colour]
    return [float(bar.attrib["height"]) for bar in bars]


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def cells(root: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def test_columns_are_to_scale_and_labels_do_not_overlap() -> None:
    root = parsed([draw_columns("title", [1, 2, 4], ["a", "b", "c"], ["x", "y", "z"], "#123456")])
    assert heights(root) == [27.0, 54.0, 108.0]
    half = parsed([draw_columns("t", [1], [""], ["x"], "#123456", highest=2.0)])
    assert heights(half) == [54.0]
    crowded = draw_columns("t", [0] * 40, [""] * 40, [f"label {n}" for n in range(40)], "#123456")
    shown = [text for text in texts(parsed([crowded])) if text.startswith("label")]
    assert 4 <= len(shown) <= 8 and shown[0] == "label 0"


def test_histograms_share_classes_and_show_the_limit() -> None:
    edges = [0.0, *(10.0**power for power in range(-9, 3)), None]
    empty = [0] * 13
    series = {"one": [0, 0, 5, *empty[3:]], "other": [0, 0, 0, 10, *empty[4:]], "none": empty}
    colours = dict.fromkeys(series, "#123456")
    pictures = draw_histograms("value", edges, series, colours, limit=(5.5e-5, "limit"))
    assert len(pictures) == 2, "a series without counts is left out"
    first, second = (parsed([picture]) for picture in pictures)
    # From class 0 to class 8, since eight are the least: classes 2 to 5 alone hold something.
    assert [height > 0 for height in heights(first)] == [n == 2 for n in range(len(heights(first)))]
    assert [height > 0 for height in heights(second)].index(True) == 3
    assert {"value, one: 5", "1e-9", "0", "limit"} <= set(texts(first))
    (mark,) = [bar for bar in first.iter(f"{SVG}rect") if bar.get("width") == "1"]
    step = (358 - 44) / len(heights(first))
    assert float(mark.attrib["x"]) == pytest.approx(22 + 5.5 * step - 0.5, abs=0.1)
    (open_end,) = draw_histograms("v", [0.0, 1.0, None], {"one": [0, 1]}, colours)
    assert "∞" in texts(parsed([open_end]))
    assert draw_histograms("v", [0.0, None], {"one": [0]}, colours, limit=(9.0, "l")) == []


def test_ladder_shows_every_rung() -> None:
    rungs = [LadderRung("source", 0.98, 1.0, 12.5), LadderRung("tiles", 0.49, None, 2500.0)]
    root = parsed([*draw_ladder(rungs)])
    assert cells(root)[1:] == [
        ["1. source", "0.9800", "1.0000", "12.5"],
        ["2. tiles", "0.4900", "-", "2,500"],
    ]
    recall = heights(root, "#4a7fcb")
    assert recall[0] == pytest.approx(2 * recall[1], abs=0.1) and len(recall) == 2
    unmeasured = parsed([*draw_ladder([LadderRung("a", 0.5, None, None)])])
    assert "recall" in texts(unmeasured) and "questions a minute" not in texts(unmeasured)


def test_sweep_places_points_by_their_values() -> None:
    points = [
        SweepPoint("12 tiles", 3000.0, 0.99, 10.0),
        SweepPoint("1 tile", 1000.0, 0.79, 110.0),
        SweepPoint("2 tiles", 2000.0, 0.89, 60.0),
    ]
    root = parsed([*draw_sweep(points)])
    assert cells(root)[2] == ["2. 1 tile", "1,000", "0.7900", "110"]
    recall, speed, _ = root.iter(f"{SVG}polyline")
    dots = [tuple(map(float, dot.split(","))) for dot in recall.attrib["points"].split()]
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert dots[1] == pytest.approx(((dots[0][0] + dots[2][0]) / 2, (dots[0][1] + dots[2][1]) / 2))
    assert dots[0][1] > dots[2][1], "less recall is lower"
    assert len(speed.attrib["points"].split()) == 3
    nothing = parsed([*draw_sweep([SweepPoint("a", 256.0, None, None)])])
    assert texts(nothing).count("nothing was measured") == 3
    assert texts(parsed([*draw_sweep([SweepPoint("a", 256.0, 0.5, 9.0)])])).count("256") == 2


def test_matrix_leaves_out_what_is_empty() -> None:
    labels = ["yes", "", "maybe", None]
    counts = [[3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 5]]
    root = parsed([draw_matrix("caption", "a \\ b", labels, counts)])
    assert cells(root) == [
        ["a \\ b", "yes", "(empty)", "(others)"],
        ["yes", "3", "1", "·"],
        ["(others)", "2", "·", "5"],
    ]
    styles = [cell.get("style") for cell in root.iter("td")]
    assert styles[0] == "background: rgb(74 127 203 / 0.32)", "equal texts: 0.08 + 0.32 * 3 / 4"
    assert styles[1] == "background: rgb(200 110 40 / 0.16)"
    assert styles[5] is not None and "138 146 154" in styles[5], "others need not be equal"


def test_grid_is_drawn_over_its_image() -> None:
    image = Thumbnail("data:image/jpeg;base64,AAAA", 300, 10)
    root = parsed(
        [define_images({"image-0": image}), draw_tile_grid("image-0", image, 3, 2, "a < b")]
    )
    (defined,) = root.iter(f"{SVG}image")
    assert (defined.get("href"), defined.get("width"), defined.get("height")) == (
        image.uri,
        "300",
        "48",
    ), "thin images are stretched"
    assert [use.get("href") for use in root.iter(f"{SVG}use")] == ["#image-0"]
    for path in root.iter(f"{SVG}path"):
        assert path.get("d") == "M100.0 0V48M200.0 0V48M0 24.0H300M1 1H299V47H1Z"
    assert [caption.text for caption in root.iter("figcaption")] == ["a < b"]
