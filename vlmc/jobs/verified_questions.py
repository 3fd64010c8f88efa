"""Which questions of a job the artifact's verification says nothing about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

from vlmc.files.units import shorten
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.rows import Rows

# Of a table with its own prompts, which may have millions of rows.
FIRST_ROWS = 1000
_SHOWN = 3


def unverified_warning(
    verified: Collection[str], rows: Rows, prompts: Sequence[Prompt]
) -> str | None:
    """A warning if questions of the job are not among the `verified` ones, by their ids.

    Of a table with its own prompts, the first rows are looked at. Requests of an OpenAI batch have
    no question ids.
    """
    if isinstance(rows, BatchRows):
        return None
    if not set(verified) - {""}:
        return (
            "warning: the questions of the artifact's verification have no ids, so it is unknown "
            "whether yours were among them"
        )
    asked = dict.fromkeys(
        [row.question or "" for row in islice(rows.read(), FIRST_ROWS)]
        if rows.prompted
        else [prompt.question for prompt in prompts]
    )
    missing = [question for question in asked if question not in verified]
    if not missing:
        return None
    names = ", ".join(shorten(repr(question), 60) for question in missing[:_SHOWN])
    return (
        f"warning: {len(missing)} of {len(asked)} questions were not in the artifact's "
        f"verification ({names}{', …' if len(missing) > _SHOWN else ''}), whose status says "
        "nothing about them; add them to the dataset of vlmc verify accuracy"
    )
