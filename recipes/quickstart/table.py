"""Answer the evaluation questions with an artifact and print recall and speed by tile rule.

`python -m recipes.quickstart.table ARTIFACT [--rules native original:30] [--split eval]`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vlmc
from vlmc.errors import VlmcError
from vlmc.verify.metrics import LabelledAnswer, Share, score, score_by_question

HERE = Path(__file__).parent
RULES = ("native", "original:30")
RULES_A_TABLE = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers of one rule; `seconds` of wall time, image decoding included."""

    rule: str
    images: int
    tiles_per_image: float
    seconds: float
    judged: list[LabelledAnswer]


def main() -> None:
    """Answer, print the tables, and with --json write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--split", default="eval", choices=("eval", "calibration", "final"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--rules",
        nargs="+",
        default=RULES,
        metavar="RULE[:IMAGES]",
        help="tile rules as `vlmc run --tiles` takes them; a number after the last colon asks "
        "the first so many images only",
    )
    options = parser.parse_args()
    try:
        tell(options)
    except VlmcError as error:
        sys.exit(f"error: {error}")


def tell(options: argparse.Namespace) -> None:
    """Answer by every rule and print."""
    lines = [json.loads(line) for line in (HERE / f"{options.split}.jsonl").open()]
    outcomes = [answer(options.artifact, lines, rule) for rule in options.rules]
    print_tables(outcomes)
    if options.json:
        options.json.write_text(json.dumps([figures(o) for o in outcomes], indent=1) + "\n")


def answer(artifact: Path, lines: list[dict[str, Any]], rule: str) -> Outcome:
    """Every question on the rule's images; progress on stderr."""
    tiles, _, limit = rule.rpartition(":")
    if not limit.isdigit():
        tiles, limit = rule, ""
    images = list(dict.fromkeys(line["image"] for line in lines))
    chosen = set(images[: int(limit)] if limit else images)
    asked = [line for line in lines if line["image"] in chosen]
    judged, tokens = [], 0
    with vlmc.load(artifact, device="cpu", tiles=tiles) as model:
        start = shown = time.monotonic()
        requests = ((HERE / line["image"], line["prompt"]) for line in asked)
        for line, result in zip(asked, model.stream(requests), strict=True):
            positive = tuple(line.get("positive", ()))
            judged.append(LabelledAnswer(line["question"], line["label"], result.text, positive))
            tokens += result.image_tokens
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{tiles}: {len(judged)} of {len(asked)} answers", file=sys.stderr)
        seconds = time.monotonic() - start
    return Outcome(tiles, len(chosen), tokens / 256 / len(asked), seconds, judged)


def print_tables(outcomes: list[Outcome]) -> None:
    """Recall, precision and exact match by rule; at most three rules side by side."""
    console = Console(width=100)
    for first in range(0, len(outcomes), RULES_A_TABLE):
        chosen = outcomes[first : first + RULES_A_TABLE]
        table = Table(title="share [95 % interval] n")
        table.add_column("")
        for outcome in chosen:
            table.add_column(outcome.rule, justify="right", no_wrap=True)
        cells = [_cells(outcome) for outcome in chosen]
        for name in dict.fromkeys(name for column in cells for name in column):
            table.add_row(name, *(column.get(name, "") for column in cells))
        console.print(table)


def _cells(outcome: Outcome) -> dict[str, str]:
    """One rule's column, top to bottom."""
    by_kind = score_by_question(outcome.judged)
    cells = {
        "images": str(outcome.images),
        "tiles an image": f"{outcome.tiles_per_image:.1f}",
        "questions a minute": f"{60 * len(outcome.judged) / outcome.seconds:.0f}",
        "presence, recall": _share(by_kind["presence"].recall),
        "presence, precision": _share(by_kind["presence"].precision),
        "exact, all kinds": _share(score(outcome.judged).exact),
    }
    return cells | {f"exact, {kind}": _share(scores.exact) for kind, scores in by_kind.items()}


def figures(outcome: Outcome) -> dict[str, object]:
    """The figures of one rule as plain values."""
    by_kind = score_by_question(outcome.judged)
    overall = score(outcome.judged)
    return {
        "rule": outcome.rule,
        "images": outcome.images,
        "tiles_per_image": outcome.tiles_per_image,
        "seconds": outcome.seconds,
        "exact": _plain(overall.exact),
        "kinds": {
            kind: {
                "exact": _plain(scores.exact),
                "recall": _plain(scores.recall),
                "precision": _plain(scores.precision),
            }
            for kind, scores in by_kind.items()
        },
    }


def _share(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.3f} [{low:.3f}, {high:.3f}] {share.n:>4}" if share.n else "-"


def _plain(share: Share) -> dict[str, object]:
    return {"value": share.value, "n": share.n, "interval": share.interval}


if __name__ == "__main__":
    main()
