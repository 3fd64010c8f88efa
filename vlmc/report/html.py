"""The few HTML elements of reports: one file without network, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from vlmc.report.escape import escape, quote, shorten

# Whatever a text contains, the browser loads nothing and runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Longer texts would hide what follows them.
_MOST_CHARACTERS = 240
_MOST_IN_TEXTS = 500
# The colours are those of the pictures in `vlmc.report.svg`.
_STYLE = """
body { font: 14px/1.45 sans-serif; max-width: 1160px; margin: 24px auto; padding: 0 16px;
  color: #1f2328; background: #ffffff; overflow-wrap: anywhere }
h1 { font-size: 24px } h2 { font-size: 18px; margin-top: 32px } h3 { font-size: 15px }
table { border-collapse: collapse; margin: 12px 0; overflow-wrap: normal }
tr { background: #ffffff } tr.bad { background: #f9e7e5 }
th, td { padding: 3px 8px; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid #d1d9e0 }
th { font-weight: 600; vertical-align: bottom } caption { text-align: left; font-weight: 600 }
th:first-child, td:first-child { text-align: left; min-width: 172px; max-width: 320px;
  padding-left: 4px; white-space: normal; overflow-wrap: anywhere;
  position: sticky; left: 0; background: inherit }
.texts th, .texts td { text-align: left; min-width: 90px; white-space: normal;
  overflow-wrap: anywhere }
.matrix th { white-space: normal; overflow-wrap: anywhere; max-width: 110px; min-width: 56px }
.matrix th:first-child { min-width: 90px }
.dim { color: #59636e } .good { color: #1a7f37 } .bad { color: #b3261e } .plain { margin: 4px 0 }
tr.bad { color: inherit }
.scroll { overflow-x: auto } .scroll svg { max-width: none }
.row { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start }
.row > * { max-width: 100% } svg { display: block; max-width: 100%; height: auto }
figure { margin: 0 } figcaption { max-width: 320px } summary { cursor: pointer; margin: 8px 0 }
section.case { border-top: 1px solid #d1d9e0; padding: 4px 0 12px }
@media (max-width: 600px) { th:first-child, td:first-child { max-width: 180px } }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 } tr { background: #0d1117 }
  th, td, section.case { border-color: #3d444d }
  .dim { color: #9198a1 } .good { color: #3fb950 } .bad { color: #ff8078 }
  tr.bad { color: inherit; background: #3a1d20 }
}
"""


def page(title: str, parts: Iterable[str], about: Mapping[str, str] | None = None) -> str:
    """A whole page, well-formed as XML too; `about` are names and values for its head."""
    metas = {"viewport": "width=device-width, initial-scale=1", "color-scheme": "light dark"}
    metas |= about or {}
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            f'<head><meta charset="utf-8"/><title>{escape(title)}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>',
            *(f"<meta name={quote(key)} content={quote(value)}/>" for key, value in metas.items()),
            f"<style>{_STYLE}</style></head>",
            f"<body><h1>{escape(title)}</h1>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def heading(text: str, level: int = 2) -> str:
    """The title of a section; a deeper `level` is a smaller one."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, *, dim: bool = False) -> str:
    """A paragraph of plain text."""
    opening = '<p class="dim">' if dim else "<p>"
    return f"{opening}{escape(text)}</p>"


def fields(values: Iterable[tuple[str, str]]) -> str:
    """Names with their texts, line by line; long texts are shortened.

    Right-to-left text does not reorder its line.
    """
    lines = (
        f'<p class="plain"><span class="dim">{escape(name)}</span> '
        f"<bdi>{escape(shorten(value, _MOST_IN_TEXTS))}</bdi></p>"
        for name, value in values
    )
    return "\n".join(lines)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    marked: Collection[int] = (),
    texts: bool = False,
) -> str:
    """A table of plain texts, which scrolls by itself where the page is too narrow.

    Long texts are shortened.

    Args:
        header: the names of the columns; the first is on the left, the others on the right.
        rows: the cells of each row.
        marked: indices of rows to colour.
        texts: whether the cells are texts to wrap, all on the left, and not numbers.
    """
    kind, most = (' class="texts"', _MOST_IN_TEXTS) if texts else ("", _MOST_CHARACTERS)
    return "\n".join(
        [
            f'<div class="scroll"><table{kind}>',
            _row("th", header, most),
            *(_row("td", row, most, index in marked) for index, row in enumerate(rows)),
            "</table></div>",
        ]
    )


def picture(svg: str) -> str:
    """A wide picture, which scrolls by itself where the page is too narrow."""
    return f'<div class="scroll">{svg}</div>'


def details(title: str, content: str, *, opened: bool) -> str:
    """A part that the reader opens and closes."""
    state = ' open="open"' if opened else ""
    shown = escape(shorten(title, _MOST_CHARACTERS))
    return f"<details{state}><summary><bdi>{shown}</bdi></summary>{content}</details>"


def section(parts: Iterable[str]) -> str:
    """A part that is set off from its neighbours."""
    return "\n".join(['<section class="case">', *parts, "</section>"])


def status(text: str, good: bool | None) -> str:
    """The result in one line; None is neither good nor bad."""
    kind = {True: "good", False: "bad", None: "dim"}[good]
    return f'<p class="{kind}"><strong>{escape(text)}</strong></p>'


def row(parts: Iterable[str]) -> str:
    """Parts beside each other, as many as the page is wide."""
    return "\n".join(['<div class="row">', *(f"<div>{part}</div>" for part in parts), "</div>"])


def _row(tag: str, cells: Sequence[str], most: int, marked: bool = False) -> str:
    opening = '<tr class="bad">' if marked else "<tr>"
    texts = (escape(shorten(cell, most)) for cell in cells)
    return f"{opening}{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"
