"""The result of a verification as a page for people: one file, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmc.report import html
from vlmc.report.histogram import draw_histograms
from vlmc.report.ladder import LadderRung, draw_ladder
from vlmc.report.matrix import draw_matrix
from vlmc.report.numbers import share_text
from vlmc.report.svg import AMBER, BLUE, GREEN
from vlmc.report.sweep import SweepPoint, draw_sweep
from vlmc.verify.page.disagreements import draw_disagreements
from vlmc.verify.page.grid_images import GridImage
from vlmc.verify.page.summary import draw_summary
from vlmc.verify.page.worst_questions import QuestionResult, worst_first

_OPEN_MATRICES = 3
_TITLES = {
    "feature_distance": "1 - cosine of features",
    "first_probability": "source's first-token probability",
    "first_margin": "source's first-token margin, nats",
    "first_divergence": "first-token divergence, nats",
}
_COLOURS = {"tiles": GREEN, "agreeing": BLUE, "disagreeing": AMBER}
_MATRICES = {
    "label_artifact": ("Artifact's answer by label", "label \\ artifact"),
    "label_reference": ("Source's answer by label", "label \\ source"),
    "reference_artifact": ("Artifact's answer by source's", "source \\ artifact"),
}


def draw_page(
    values: Mapping[str, Any],
    images: Mapping[Path, tuple[GridImage, GridImage]],
    *,
    ladder: Sequence[LadderRung] = (),
    sweep: Sequence[SweepPoint] = (),
) -> str:
    """The page of a report's JSON, of its first engine, which this run checked.

    Args:
        values: the report.
        images: of disagreements, as the source sees them and as the artifact does.
        ladder: the rungs from the source to the artifact; the section is left out without.
        sweep: the settings that were tried; the section is left out without.
    """
    parts = [*_parts(values, images, ladder, sweep)]
    about = {"vlmc-identity": values["identity"], "vlmc-dataset": values["dataset"]["digest"]}
    return html.page(f"Accuracy of {values['artifact']}", parts, about)


def _parts(
    values: Mapping[str, Any],
    images: Mapping[Path, tuple[GridImage, GridImage]],
    ladder: Sequence[LadderRung],
    sweep: Sequence[SweepPoint],
) -> Iterator[str]:
    entry = values["engines"][0]
    thresholds = {verdict["name"]: verdict["threshold"] for verdict in entry["verdicts"]}
    yield from draw_summary(values)
    questions = worst_first(
        entry["answers"]["questions"],
        thresholds["min_answer_agreement"],
        thresholds["max_recall_drop"],
    )
    yield html.heading("Questions, the worst first")
    yield from _questions(questions)
    if ladder:
        yield html.heading("From the source to the artifact, part by part")
        yield from draw_ladder(ladder)
    if sweep:
        yield html.heading("Tokens, recall and speed")
        yield from draw_sweep(sweep)
    yield html.heading("Distributions")
    yield html.row(_histograms(entry["histograms"], thresholds["min_feature_cosine"]))
    yield html.heading("Confusion")
    yield html.paragraph(
        "Counts of normalized answers; a row for each label or source's answer, a column for each "
        "answer. Rare texts are counted together as others.",
        dim=True,
    )
    yield from _confusion([question.name for question in questions], entry["confusion"])
    yield html.heading("Disagreements, the worst first")
    yield from draw_disagreements(entry, images)


def _questions(questions: Sequence[QuestionResult]) -> Iterator[str]:
    crossing = [index for index, question in enumerate(questions) if question.crossed]
    yield html.paragraph(
        f"{len(crossing)} of {len(questions)} cross a threshold by themselves. The gate judges all "
        "questions together."
    )
    yield html.table(
        (
            *("question", "crosses", "n", "agreement", "recall of source", "recall of artifact"),
            *("drop", "McNemar p", "precision", "F1"),
        ),
        (_question_row(question) for question in questions),
        marked=crossing,
    )


def _question_row(question: QuestionResult) -> list[str]:
    values = question.values
    row = [
        question.name or "(no question id)",
        " and ".join(question.crossed) or "-",
        str(values["agreement"]["n"]),
        _share(values["agreement"]),
    ]
    if "artifact" not in values:
        return [*row, *"------"]
    drop, found = values.get("recall_drop"), values["artifact"]
    return [
        *row,
        _share(values["reference"]["recall"]),
        _share(found["recall"]),
        "-" if drop is None else f"{drop['value']:.4f}",
        "-" if drop is None else f"{drop['mcnemar_p']:.4f}",
        share_text(found["precision"]["value"]),
        share_text(found["f1"]),
    ]


def _share(values: Mapping[str, Any]) -> str:
    """Shorter than `interval_text`, for a table of many columns."""
    if values["value"] is None:
        return "-"
    return "{:.4f} [{:.2f}, {:.2f}]".format(values["value"], *values["interval"])


def _histograms(
    values: Mapping[str, Mapping[str, Any]], min_feature_cosine: float
) -> Iterator[str]:
    for name, title in _TITLES.items():
        if name in values:
            limit = None
            if name == "feature_distance":
                limit = (1 - min_feature_cosine, f"at most {1 - min_feature_cosine:.3g}")
            found = values[name]
            yield from draw_histograms(
                title, found["edges"], found["counts"], _COLOURS, limit=limit
            )


def _confusion(names: Sequence[str], values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shown = [name for name in names if name in values]
    for index, name in enumerate(shown):
        found = values[name]
        matrices = [
            draw_matrix(caption, corner, found["labels"], found[key])
            for key, (caption, corner) in _MATRICES.items()
            if key in found
        ]
        title = name or "(no question id)"
        yield html.details(title, html.row(matrices), opened=index < _OPEN_MATRICES)
    if len(names) > len(shown):
        yield html.paragraph(f"The {len(names) - len(shown)} better questions are left out.")
