"""Counts of pairs as a table whose cells are shaded (HTML)."""

from __future__ import annotations

from collections.abc import Sequence

from vlmc.report.escape import escape, shorten

_SHORT = 24
# Blue and orange of the pictures; grey where nothing says whether texts are equal.
_EQUAL, _DIFFERENT, _UNKNOWN = "74 127 203", "200 110 40", "138 146 154"


def draw_matrix(
    caption: str, corner: str, labels: Sequence[str | None], counts: Sequence[Sequence[int]]
) -> str:
    """A table of the labels' rows and columns that are not empty; long labels are shortened.

    Args:
        caption: what the table shows.
        corner: what rows and columns are.
        labels: of rows and columns alike; None stands for all other texts.
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
            _cell(counts[row][column], total, _colour(labels[row], labels[column]))
            for column in columns
        )
        lines.append(f"<tr><th>{_name(labels[row])}</th>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _name(label: str | None) -> str:
    text = "(others)" if label is None else shorten(label, _SHORT) or "(empty)"
    return f"<bdi>{escape(text)}</bdi>"


def _colour(row: str | None, column: str | None) -> str:
    if row is None and column is None:
        return _UNKNOWN
    return _EQUAL if row == column else _DIFFERENT


def _cell(count: int, total: int, colour: str) -> str:
    if not count:
        return '<td class="dim">·</td>'
    strength = 0.08 + 0.32 * count / total
    return f'<td style="background: rgb({colour} / {strength:.2f})">{count}</td>'
