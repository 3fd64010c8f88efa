"""`image.prune.keep` beside the tile rules at equal tokens: `python -m benchmarks.prune`.

Builds the quickstart once for each share of kept tokens (only the manifest differs) and answers its
evaluation questions, in fp32 on the CPU. Each image is encoded once by a rule; the models prune the
same features. Prints recall, exact match and tokens, and compares each pruned case with the tile
rule of the nearest number of tokens, question by question (McNemar's test). `--output` gets JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.quickstart.table import questions
from vlmc import load
from vlmc.builder.build import build
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.recipe.read import read_recipe
from vlmc.runtime.model import Model
from vlmc.runtime.requests.request import PreparedImage
from vlmc.verify.answers import drop_json, share_json
from vlmc.verify.metrics import LabelledAnswer, match_drop, score, score_by_question

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart"
KEEPS = (1.0, 0.75, 0.5, 0.25)
PRUNED_RULES = ("native", "original")
WHOLE_RULES = ("original:max=6", "native:max=4", "native:max=2", "single")


@dataclass
class Case:
    """The answers of a tile rule with a share of the tokens kept."""

    rule: str
    keep: float
    answers: list[LabelledAnswer] = field(default_factory=list)
    tokens: int = 0

    @property
    def name(self) -> str:
        """The rule, and the share where tokens are dropped."""
        return self.rule if self.keep == 1 else f"{self.rule}, keep {self.keep}"

    @property
    def tokens_per_image(self) -> float:
        """Mean image tokens of a question's prompt."""
        return self.tokens / len(self.answers)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        kinds, overall = score_by_question(self.answers), score(self.answers)
        presence, label = (kinds.get(kind, score([])) for kind in ("presence", "label"))
        return {
            "rule": self.rule,
            "keep": self.keep,
            "tokens_per_image": self.tokens_per_image,
            "exact": share_json(overall.exact),
            "recall": share_json(presence.recall),
            "precision": share_json(presence.precision),
            "label": share_json(label.exact),
        }


def by_image(lines: Sequence[dict[str, Any]]) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """The questions of each image."""
    for name, group in itertools.groupby(lines, key=lambda line: str(line["image"])):
        yield QUICKSTART / name, list(group)


def prepare(model: Model, path: Path) -> PreparedImage:
    """An image with the features of all its tokens; `model` keeps all of them."""
    rules, pixels = model.artifact.manifest.image, decode(path)
    tiles = make_tiles(pixels, model.tiles, rules.resampler)
    digest = hashlib.sha256(path.read_bytes()).digest()
    (features,) = model.encode([PreparedImage(digest, tiles)])
    return PreparedImage(digest, tiles, features)


def measure(
    artifacts: dict[float, Path], rule: str, keeps: Sequence[float], lines: list[dict[str, Any]]
) -> list[Case]:
    """Answer all questions by a rule, with each share of the tokens."""
    cases = [Case(rule, keep) for keep in keeps]
    with ExitStack() as stack:
        models = {
            keep: stack.enter_context(load(artifacts[keep], device="cpu", tiles=rule))
            for keep in {1.0, *keeps}
        }
        for path, group in by_image(lines):
            image = prepare(models[1.0], path)
            for case in cases:
                found = models[case.keep].generate([(image, line["prompt"]) for line in group])
                for line, answer in zip(group, found, strict=True):
                    positive = tuple(line.get("positive", ()))
                    case.answers.append(
                        LabelledAnswer(line["question"], line["label"], answer.text, positive)
                    )
                    case.tokens += answer.image_tokens
    return cases


def compare(pruned: Case, whole: Sequence[Case]) -> dict[str, Any]:
    """The loss of exact match against the tile rule with the nearest number of tokens."""
    rule = min(whole, key=lambda case: abs(case.tokens_per_image - pruned.tokens_per_image))
    drop = match_drop(rule.answers, pruned.answers)
    return {"pruned": pruned.name, "rule": rule.name, "exact_drop": drop_json(drop)}


def main() -> None:
    """Measure every case, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300, help="number of images")
    parser.add_argument("--output", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    lines, _ = questions("eval", options.images)
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {}
        for keep in KEEPS:
            recipe = read_recipe(QUICKSTART / "recipe.yaml", [f"image.prune.keep={keep}"])
            artifacts[keep] = build(recipe, Path(folder) / str(keep))
        for rule in (*WHOLE_RULES, *PRUNED_RULES):
            start = time.perf_counter()
            cases += measure(artifacts, rule, KEEPS if rule in PRUNED_RULES else KEEPS[:1], lines)
            print(f"{rule}: {time.perf_counter() - start:.0f} s", flush=True)
    whole = [case for case in cases if case.keep == 1]
    values = [case.to_json() for case in sorted(cases, key=lambda case: -case.tokens_per_image)]
    compared = [compare(case, whole) for case in cases if case.keep < 1]
    for row in (*values, *compared):
        print(json.dumps(row))
    if options.output is not None:
        figures = {"questions": len(lines), "cases": values, "compared": compared}
        options.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
