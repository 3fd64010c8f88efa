"""The first part of the page: what was compared with what, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlmc.report import html
from vlmc.report.numbers import interval_text, share_text

_STATUSES = {
    "passed": "passed",
    "failed": "FAILED",
    "not_run": "not passed, since only a part of the questions was checked",
}


def draw_summary(values: Mapping[str, Any]) -> Iterator[str]:
    """Parts of the page of a report, on the engine that this run checked."""
    entry = values["engines"][0]
    yield html.status(
        _STATUSES[entry["status"]], {"passed": True, "failed": False}.get(entry["status"])
    )
    yield html.fields(_fields(values, entry))
    weak = {verdict["name"] for verdict in entry["verdicts"] if verdict["underpowered"]}
    failed = [index for index, verdict in enumerate(entry["verdicts"]) if not verdict["passed"]]
    yield html.table(
        ("verdict", "result", "value", "95 % interval", "threshold", "n"),
        (_verdict_row(verdict) for verdict in entry["verdicts"]),
        marked=failed,
    )
    if weak:
        yield html.paragraph(
            "Underpowered: n is too small to support the value, since the interval reaches to the "
            "other side of the threshold.",
            dim=True,
        )
    yield html.heading("Answers")
    yield from _answers(entry)
    yield html.heading("Features and pixels")
    yield from _levels(entry)
    others = values["engines"][1:]
    if others:
        yield html.heading("Other engines")
        yield html.table(
            ("engine", "target", "status"),
            ((other["engine"], other["target"], other["status"]) for other in others),
        )


def _fields(values: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reference, dataset = entry["reference"], values["dataset"]
    yield "artifact", f"{values['artifact']}, identity {values['identity']}"
    yield "engine", f"{entry['engine']} for {entry['target']}, {entry['precision']}"
    yield "tiles", values["tiles"]
    kind = "file" if reference["kind"] == "file" else "source model"
    yield (
        "reference",
        f"{kind} {reference['name']}, tower {reference['tower_dtype']}, language model "
        f"{reference['language_dtype']}, on {reference['device']}",
    )
    if not reference["same_source"]:
        yield "", "The reference is not of the checkpoint that the artifact was built from."
    first = "" if dataset["limit"] is None else f", the first {dataset['limit']} of the file"
    yield (
        "dataset",
        f"{dataset['name']}, {dataset['questions']} questions on {dataset['images']} images{first}",
    )
    yield "vlmc", values["vlmc"]


def _verdict_row(verdict: Mapping[str, Any]) -> list[str]:
    name, value, interval = verdict["name"], verdict["value"], verdict["interval"]
    result = "passed" if verdict["passed"] else "FAILED"
    if value is None and verdict["threshold"] is not None:
        result = "not judged: no positive label"
    elif verdict["underpowered"]:
        result += ", underpowered"
    threshold = verdict["threshold"]
    side = "at most" if name.startswith("max") else "at least"
    return [
        name,
        result,
        "-" if value is None else f"{value:.6f}",
        "-" if interval is None else "[{:.4f}, {:.4f}]".format(*interval),
        "-" if threshold is None else f"{side} {threshold:g}",
        str(verdict["n"]),
    ]


def _answers(entry: Mapping[str, Any]) -> Iterator[str]:
    answers = entry["answers"]
    yield html.fields(
        [
            ("agreement with the source", interval_text(answers["agreement"])),
            ("equal to the letter", interval_text(answers["exact_match"])),
        ]
    )
    if "reference" in answers:
        yield html.table(
            ("against the labels", "exact match", "recall", "precision", "F1"),
            (_score_row(side, answers[key]) for key, side in _SIDES.items()),
        )
        yield html.table(
            ("drop from source to artifact", "value, 95 % interval", "lost", "gained", "McNemar p"),
            (
                (
                    title,
                    interval_text(answers[key]),
                    str(answers[key]["lost"]),
                    str(answers[key]["gained"]),
                    f"{answers[key]['mcnemar_p']:.4f}",
                )
                for key, title in _DROPS.items()
            ),
        )
    if entry["divergence"] is not None:
        yield html.table(
            ("divergence in nats", "mean", "99 % within", "at most", "n"),
            (
                (
                    name.replace("_", " "),
                    *(f"{found[key]:.5f}" for key in ("mean", "p99", "max")),
                    str(found["n"]),
                )
                for name, found in entry["divergence"].items()
            ),
        )


_SIDES = {"reference": "source", "artifact": "artifact"}
_DROPS = {"recall_drop": "recall", "match_drop": "exact match"}


def _score_row(side: str, scores: Mapping[str, Any]) -> list[str]:
    shares = (interval_text(scores[key]) for key in ("exact", "recall", "precision"))
    return [side, *shares, share_text(scores["f1"])]


def _levels(entry: Mapping[str, Any]) -> Iterator[str]:
    features, pixels = entry["features"], entry["pixels"]
    yield html.table(
        ("tiles at once", "worst cosine", "mean cosine"),
        (
            (count, f"{found['worst']:.6f}", f"{found['mean']:.6f}")
            for count, found in features["by_batch_tiles"].items()
        ),
    )
    if features["below"]:
        yield html.table(
            ("tile below the threshold", "of image", "tiles at once", "cosine"),
            (
                (
                    str(tile["tile"]),
                    tile["image"][:12],
                    str(tile["batch_tiles"]),
                    f"{tile['cosine']:.6f}",
                )
                for tile in features["below"]
            ),
            marked=range(len(features["below"])),
        )
    mean = "-" if pixels["mean"] is None else f"{pixels['mean']:.3f}"
    yield html.fields(
        [
            (
                "pixels against Pillow",
                f"mean {mean}, 99 % within {pixels['p99']}, at most {pixels['max']} of 255 levels; "
                f"tiles compared: {pixels['tiles']}",
            )
        ]
    )
    wrong = [*pixels["wrong"], *pixels["moved"]]
    if wrong:
        yield html.table(
            ("image", "what differs"),
            ((item["image"], item["why"]) for item in wrong),
            marked=range(len(wrong)),
            texts=True,
        )
