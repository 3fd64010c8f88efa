"""Counts of pairs as a table whose cells are shaded (HTML)."""

from __future__ import annotations

from collections.abc import Sequence

from vlmc.report.escape import escape, shorten

_SHORT = 24
# Equal pairs, and others; blue and orange of the pictures.
_EQUAL, _OTHER = "74 127 203", "200 110 40"


def draw_matrix(
    caption: str, corner: str, labels: Sequence[str], counts: Sequence[Sequence[int]]
) -> str:
    """A table of the labels' rows and columns that are not empty; long labels are shortened.

    Args:
        caption: what the table shows.
        corner: what rows and columns are.
        labels: of rows and columns alike.
        counts: by row, then by column.
    """
    places = range(len(labels))
    columns = [column for column in places if any(line[column] for line in counts)]
    head = "".join(f"<th>{_name(labels[column])}</th>" for column in columns)
    lines = [
        f'<div class="scroll"><table class="matrix"><caption>{escape(caption)}</caption>',
        f"<tr><th>{escape(corner)}</th>{head}</tr>",
    ]
    for row in (row for row in places if any(counts[row])):
        total = sum(counts[row])
        cells = "".join(
            _cell(counts[row][column], total, _EQUAL if column == row else _OTHER)
            for column in columns
        )
        lines.append(f"<tr><th>{_name(labels[row])}</th>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _name(label: str) -> str:
    return f"<bdi>{escape(shorten(label, _SHORT))}</bdi>"


def _cell(count: int, total: int, colour: str) -> str:
    if not count:
        return '<td class="dim">·</td>'
    strength = 0.08 + 0.32 * count / total
    return f'<td style="background: rgb({colour} / {strength:.2f})">{count}</td>'
