"""The check of pages in a browser notices what it is for."""

from __future__ import annotations

from pathlib import Path

from tests.browser import look_at
from vlmc.report import html, svg


def test_faults_of_pages_are_noticed(tmp_path: Path) -> None:
    def page(*parts: str) -> str:
        return html.page("page", parts)

    pages = {
        "good": page(html.paragraph("text"), svg.document(50, 20, [svg.text(5, 15, "text")])),
        "wide": page('<div style="width: 600px">text</div>'),
        "small": page('<p style="font-size: 8px">tiny</p>'),
        "shrunk": page(svg.document(2000, 20, [svg.text(5, 15, "shrunk")])),
        "faint": page('<p style="color: #777777">faint</p>'),
        "cut": page(svg.document(50, 20, [svg.text(5, 15, "longer than 50 pixels")])),
        "loud": page('<svg width="broken"></svg>'),
        "loading": page('<img src="http://127.0.0.1:9/a.png"/>'),
    }
    looks, console = look_at(pages, tmp_path)
    light, dark, narrow, _ = looks["good"]
    assert (light.dark, dark.dark, light.width, narrow.width) == (False, True, 1280, 390)
    for name, views in looks.items():
        assert [view.needed > view.width for view in views] == [False, False, *[name == "wide"] * 2]
        assert any(view.cut for view in views) == (name == "cut"), name
    assert looks["small"][0].small == [["tiny", 8]]
    assert looks["shrunk"][2].small and not looks["good"][2].small
    assert looks["faint"][0].faint == ["faint"] or looks["faint"][1].faint == ["faint"]
    assert len([line for line in console if "Expected length" in line]) == 4
    assert any("Content Security Policy" in line for line in console)
