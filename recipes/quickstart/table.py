"""Answer the evaluation questions with an artifact, and compare tile rules by recall and speed.

`python -m recipes.quickstart.table ARTIFACT [--images 30|all] [--rules original native]`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vlmc
from recipes.quickstart.progress import AnswerProgress
from vlmc.errors import VlmcError
from vlmc.verify.metrics import LabelledAnswer, Share, score, score_by_question

HERE = Path(__file__).parent
RULES = ("original", "native")
IMAGES = 30
RULES_A_TABLE = 3
WIDTH = 100
NEXT = """\
What to try next:
  source .venv/bin/activate
  vlmc run {artifact} 'recipes/quickstart/images/eval-000?.jpg' \\
      --prompt "Is there a hard hat?" --choices yes,no -o scores.jsonl
          or a folder of your own images, though this small model knows drawn rooms only
  vlmc verify accuracy {artifact} --limit 60
          compares the artifact with the checkpoint that it was built from
  README.md, for a recipe with a released model"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers by one rule; `seconds` of wall time, image decoding included."""

    rule: str
    images: int
    tiles_per_image: float
    seconds: float
    judged: list[LabelledAnswer]

    @property
    def questions_per_minute(self) -> float:
        return 60 * len(self.judged) / self.seconds


def main() -> None:
    """Answer, print the tables, and with --json write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--split", default="eval", choices=("eval", "final"))
    parser.add_argument(
        "--images",
        type=_count,
        default=IMAGES,
        metavar="N",
        help=f"answer on the first N images, or `all` ({IMAGES} by default)",
    )
    parser.add_argument(
        "--rules", nargs="+", default=RULES, help="tile rules as `vlmc run --tiles` takes them"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    try:
        compare(options)
    except VlmcError as error:
        sys.exit(f"error: {error}")


def _count(text: str) -> int | None:
    """A number of images, or None for all of them."""
    if text == "all":
        return None
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def compare(options: argparse.Namespace) -> None:
    """Answer the same questions by every rule and print."""
    lines, left_out = questions(options.split, options.images)
    with AnswerProgress(len(lines) * len(options.rules)) as progress:
        outcomes = [answer(options.artifact, lines, rule, progress.show) for rule in options.rules]
    print_tables(outcomes)
    if left_out:
        print(
            f"{left_out} images were left out, so the intervals are wide. `make quickstart FULL=1` "
            "answers all of them."
        )
    print(NEXT.format(artifact=options.artifact))
    if options.json:
        options.json.write_text(json.dumps([figures(o) for o in outcomes], indent=1) + "\n")


def questions(split: str, images: int | None) -> tuple[list[dict[str, Any]], int]:
    """The questions on the first images of a split, and the number of images left out."""
    with (HERE / f"{split}.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    every = list(dict.fromkeys(line["image"] for line in lines))
    chosen = set(every[:images])
    return [line for line in lines if line["image"] in chosen], len(every) - len(chosen)


def answer(
    artifact: Path,
    lines: list[dict[str, Any]],
    rule: str,
    on_answer: Callable[[str], None] = lambda rule: None,
) -> Outcome:
    """Every question by one rule; `on_answer` is called with the rule after each."""
    judged, tokens = [], 0
    with vlmc.load(artifact, device="cpu", tiles=rule) as model:
        start = time.monotonic()
        requests = ((HERE / line["image"], line["prompt"]) for line in lines)
        for line, result in zip(lines, model.stream(requests), strict=True):
            positive = tuple(line.get("positive", ()))
            judged.append(LabelledAnswer(line["question"], line["label"], result.text, positive))
            tokens += result.image_tokens
            on_answer(rule)
        seconds = time.monotonic() - start
    images = len({line["image"] for line in lines})
    return Outcome(rule, images, tokens / 256 / len(lines), seconds, judged)


def print_tables(outcomes: list[Outcome]) -> None:
    """Recall, precision and exact match by rule; at most three rules side by side."""
    console = Console(width=WIDTH)
    images, asked = outcomes[0].images, len(outcomes[0].judged)
    for first in range(0, len(outcomes), RULES_A_TABLE):
        chosen = outcomes[first : first + RULES_A_TABLE]
        table = Table(
            title=f"The same {asked} questions on the same {images} images, by tile rule",
            caption="share of right answers [95 % interval] number of answers",
        )
        table.add_column("")
        for outcome in chosen:
            table.add_column(outcome.rule, justify="right", no_wrap=True)
        cells = [_cells(outcome) for outcome in chosen]
        for name in cells[0]:
            table.add_row(name, *(column[name] for column in cells))
        console.print(table)


def _cells(outcome: Outcome) -> dict[str, str]:
    """One rule's column, top to bottom."""
    by_kind = score_by_question(outcome.judged)
    cells = {
        "tiles an image": f"{outcome.tiles_per_image:.1f}",
        "questions a minute": f"{outcome.questions_per_minute:.0f}",
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
