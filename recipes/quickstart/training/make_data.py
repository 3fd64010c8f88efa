"""Write the quickstart data sets: pictures, calibration lines, evaluation lines and final lines.

    python -m recipes.quickstart.training.make_data [FOLDER]

The seeds of the sets are disjoint from each other and from those left to training.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.quickstart.training.parts import Question, Scene
from recipes.quickstart.training.scenes import draw

TRAINING_SEEDS = range(1_000_000)
CALIBRATION_SEEDS = range(1_000_000, 1_000_064)
EVALUATION_SEEDS = range(2_000_000, 2_000_300)
FINAL_SEEDS = range(3_000_000, 3_000_100)
LEAST_QUESTIONS = 1200
LEAST_POSITIVES = 300
_PRESENCE_QUESTIONS = 4
_OTHER_QUESTIONS = 2
_CALIBRATION_QUESTIONS = 2
# Finding equipment, and finding it out of order, is what an inspection is for.
_POSITIVE = {"presence": ["yes", "有"], "order": ["no", "否"]}


def positive_labels(question: Question) -> list[str] | None:
    """The labels that count as found for a question; None where none is more sought than another.

    Reading a label counts as found when it is read rightly.
    """
    return [question.answer] if question.kind == "label" else _POSITIVE.get(question.kind)


def select(scene: Scene, turn: int) -> list[Question]:
    """The questions of a scene that are evaluated: presence, the label, and others by turns."""
    presence = [q for q in scene.questions if q.kind == "presence"][:_PRESENCE_QUESTIONS]
    label = [q for q in scene.questions if q.kind == "label"][:1]
    others: list[Question] = []
    for kind in ("order", "count", "colour"):
        others += [q for q in scene.questions if q.kind == kind][:1]
    if others:
        start = turn % len(others)
        others = others[start:] + others[:start]
    return [*presence, *label, *others][: len(presence) + _OTHER_QUESTIONS]


def evaluation_line(image: str, question: Question) -> dict[str, Any]:
    """One line of an evaluation set."""
    line: dict[str, Any] = {
        "image": image,
        "prompt": question.prompt,
        "label": question.answer,
        "question": question.kind,
    }
    positive = positive_labels(question)
    if positive is not None:
        line["positive"] = positive
    return line


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def _write_image(folder: Path, name: str, scene: Scene) -> str:
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene.jpeg)
    return path.relative_to(folder).as_posix()


def write_calibration(folder: Path, seeds: range = CALIBRATION_SEEDS) -> None:
    """Write `calibration.jsonl` and its pictures, two questions a picture."""
    lines = []
    for turn, seed in enumerate(seeds):
        scene = draw(seed)
        image = _write_image(folder, f"calibration-{turn:04d}.jpg", scene)
        for step in range(_CALIBRATION_QUESTIONS):
            question = scene.questions[(turn + 3 * step) % len(scene.questions)]
            lines.append({"image": image, "prompt": question.prompt, "answer": question.answer})
    _write_lines(folder / "calibration.jsonl", lines)


def write_evaluation(folder: Path, name: str, seeds: range) -> tuple[int, int]:
    """Write `<name>.jsonl` and its pictures; the numbers of lines and of positive presence ones."""
    lines, positives = [], 0
    for turn, seed in enumerate(seeds):
        scene = draw(seed)
        image = _write_image(folder, f"{name}-{turn:04d}.jpg", scene)
        questions = select(scene, turn)
        lines += [evaluation_line(image, question) for question in questions]
        positives += sum(question.positive for question in questions)
    _write_lines(folder / f"{name}.jsonl", lines)
    return len(lines), positives


def main() -> None:
    """Write all three sets into a folder, by default the one this script lies in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1])
    folder: Path = parser.parse_args().folder
    write_calibration(folder)
    written, positives = write_evaluation(folder, "eval", EVALUATION_SEEDS)
    if written < LEAST_QUESTIONS or positives < LEAST_POSITIVES:
        raise SystemExit(
            f"eval.jsonl has {written} questions and {positives} positive presence ones, fewer "
            f"than {LEAST_QUESTIONS} and {LEAST_POSITIVES}: recall measured on it would be too "
            "uncertain; widen EVALUATION_SEEDS"
        )
    write_evaluation(folder, "final", FINAL_SEEDS)
    size = sum(path.stat().st_size for path in (folder / "images").iterdir())
    print(f"eval.jsonl: {written} questions, {positives} positive; images: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
