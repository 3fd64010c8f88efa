"""The columns that a job adds to its input's, in order."""

from __future__ import annotations

OUTPUT_COLUMNS = (
    "row",
    "image",
    "question",
    "prompt",
    "answer",
    "scores",
    "image_tokens",
    "error",
)
CONFIDENCE_COLUMNS = ("mean_probability", "least_probability")


def output_columns(confidence: bool) -> tuple[str, ...]:
    """The columns of an output, with the answer's confidence or without."""
    return OUTPUT_COLUMNS + (CONFIDENCE_COLUMNS if confidence else ())
