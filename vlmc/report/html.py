"""The few HTML elements of reports: one file without network, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

# The colours are those of the pictures in `vlmc.report.svg`.
_STYLE = """
body { font: 14px/1.45 sans-serif; max-width: 1000px; margin: 24px auto; padding: 0 16px;
  color: #1f2328; background: #ffffff }
table { border-collapse: collapse; margin: 12px 0 }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #d1d9e0 }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600 } .dim { color: #59636e } svg { max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 } th, td { border-color: #3d444d }
  .dim { color: #9198a1 }
}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page, well-formed as XML too."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            f'<head><meta charset="utf-8"/><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style></head>",
            f"<body><h1>{escape(title)}</h1>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, dim: bool = False) -> str:
    """A paragraph of plain text."""
    opening = '<p class="dim">' if dim else "<p>"
    return f"{opening}{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts; the first column is on the left, the others on the right."""
    lines = ["<table>", _row("th", header), *(_row("td", row) for row in rows), "</table>"]
    return "\n".join(lines)


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
