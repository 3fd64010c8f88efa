"""The pictures of reports: well-formed, escaped, and readable on light and dark pages."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vlmc.report.layer_bars import draw_layers
from vlmc.report.layer_lines import draw_lines

SVG = "{http://www.w3.org/2000/svg}"
LAYERS = [
    {"name": "mlp1.1", "precision": "int8", "loss": 1e-8},
    {"name": "mlp1.3", "precision": "fp16", "loss": 1e-4},
    {"name": "vision_model.encoder.layers.0.mlp.fc1", "precision": "int8", "loss": 1.0},
]
LINES = {"mlp.down_proj": {0: 0.1, 1: 0.2, 2: 0.1}, "self_attn.q_proj": {1: 0.05}}


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture)


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def test_bars_are_logarithmic_and_coloured_by_precision() -> None:
    picture = draw_layers("Tower in int8", LAYERS)
    bars = [bar for bar in parsed(picture).iter(f"{SVG}rect") if bar.get("height") == "10"][2:]
    assert [float(bar.attrib["width"]) for bar in bars] == [1.0, 210.0, 420.0]
    assert bars[0].get("fill") == bars[2].get("fill") != bars[1].get("fill")
    assert {"int8: 2 linears", "fp16: 1 linears", "layers.0.mlp.fc1"} <= set(texts(picture))


def test_lines_reach_the_top_with_the_highest_value() -> None:
    picture = draw_lines("Errors", LINES, 3)
    first, second = parsed(picture).iter(f"{SVG}polyline")
    assert first.get("points") == "60,175 420,30 780,175"
    assert second.get("points") == "420,247.5"
    assert {"0.200", "2", *LINES} <= set(texts(picture))
    assert draw_lines("nothing is quantized", {}, 1).count("polyline") == 0


@pytest.mark.parametrize("draw", [lambda t: draw_layers(t, LAYERS), lambda t: draw_lines(t, {}, 1)])
def test_text_is_escaped_and_follows_the_page(draw: object) -> None:
    assert callable(draw)
    picture = draw('a < b & "c"')
    assert 'a < b & "c"' in texts(picture)
    assert "prefers-color-scheme: dark" in picture
    assert all(element.get("fill") is None for element in parsed(picture).iter(f"{SVG}text"))
