"""Pages and timelines of reports: well-formed, escaped, and true to scale."""

from __future__ import annotations

from xml.etree import ElementTree

from vlmc.report import html, svg
from vlmc.report.timeline import draw_timeline

SVG = "{http://www.w3.org/2000/svg}"
COLOURS = {"vision": "#4a7fcb", "copy": "#9b78c4"}
NASTY = 'a < b & "c"'


def test_a_page_is_well_formed_and_escaped() -> None:
    parts = [html.heading(NASTY), html.paragraph(NASTY, dim=True), html.table([NASTY], [[NASTY]])]
    page = html.page(NASTY, [*parts, draw_timeline(NASTY, [], 1.0, COLOURS)])
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    for tag in ("title", "h1", "h2", "p", "th", "td", f"{SVG}text"):
        assert NASTY in [element.text for element in root.iter(tag)], tag
    assert "prefers-color-scheme: dark" in page


def test_a_page_loads_and_runs_nothing() -> None:
    page = html.page("title", [], {"name": NASTY})
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    metas = {meta.get("name"): meta.get("content") for meta in root.iter("meta")}
    assert metas["name"] == NASTY and "width=device-width" in metas["viewport"]
    (policy,) = [m for m in root.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.get("content") == ("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_characters_that_xml_forbids_are_replaced() -> None:
    text = "a\x00b\x1bc\ud800d\uffffe\tf\U0001f600"
    parts = [
        html.heading(text),
        html.table([text], [[text]], marked=[0]),
        html.fields([(text, text)]),
        html.details(text, html.section([html.status(text, True)]), opened=True),
        svg.document(10, 10, [svg.text(0, 0, text)]),
    ]
    page = html.page(text, parts, {text: text})
    page.encode("utf-8")
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    for tag in ("title", "h2", "th", "td", "bdi", "strong", f"{SVG}text"):
        found = [element.text for element in root.iter(tag)]
        assert "a\ufffdb\ufffdc\ufffdd\ufffde\tf\U0001f600" in found, tag


def test_long_texts_in_tables_are_shortened() -> None:
    page = html.page("t", [html.table(["a" * 241], [["b" * 240]])])
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert [cell.text for cell in root.iter("th")] == ["a" * 239 + "…"]
    assert [cell.text for cell in root.iter("td")] == ["b" * 240]


def test_bars_are_to_scale_and_end_with_the_axis() -> None:
    lanes = [
        ("device", [("vision", 0.0, 1.0), ("copy", 1.0, 1.5)]),
        ("images 1", [("copy", 1.5, 9.0), ("copy", 2.5, 3.0)]),
    ]
    picture = ElementTree.fromstring(draw_timeline("run", lanes, 2.0, COLOURS))
    bars = [bar for bar in picture.iter(f"{SVG}rect") if bar.get("height") == "16"]
    assert [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in bars] == [
        (120, 410),
        (530, 205),
        (735, 205),  # what lies behind the end is cut off
    ]
    assert [bar.attrib["fill"] for bar in bars] == ["#4a7fcb", "#9b78c4", "#9b78c4"]
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert {"run", "device", "images 1", "vision", "copy", "0 s", "2 s"} <= set(texts)
