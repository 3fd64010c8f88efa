"""`vlmc verify accuracy --min-recall`, and `vlmc run --threshold` with its file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.command import call
from tests.verify.labelled import many_questions
from vlmc.runtime.requests.thresholds import Threshold
from vlmc.verify.dataset import Question, read_dataset
from vlmc.verify.threshold_search import (
    UNLIKELY,
    Item,
    TooFewError,
    check,
    halves,
    least_positives,
    search,
)


def question(line: int, *digests: str) -> Question:
    return Question(line, tuple(map(Path, digests)), digests, "A door?", "yes", "door", ("yes",))


def test_one_image_is_on_one_side() -> None:
    chain = [question(line, f"{line}", f"{line + 1}") for line in range(50)]
    assert len(set(halves(chain).values())) == 1, "images of one question share a side"
    apart = [question(line, f"{line}") for line in range(1000)]
    sides = halves(apart)
    assert 450 < sum(sides.values()) < 550
    assert halves(apart[::-1]) == sides, "whatever the order of the lines"


@pytest.mark.parametrize(("recall", "needed"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_positives_needed(recall: float, needed: int) -> None:
    assert least_positives(recall) == needed
    items = [Item(0.9, True, True, checked=side) for side in (True, False)] * (needed - 1)
    items.append(Item(0.9, True, True, checked=False))
    with pytest.raises(TooFewError, match=rf"have {needed} and {needed - 1} .* {needed} in each"):
        search(items, recall)
    assert search([*items, Item(0.9, True, True, checked=True)], recall) == 0.45


def test_the_recall_is_reached_on_new_images() -> None:
    """Positives at 0.5 to 1 and negatives below 0.6, drawn again and again."""
    draw, recalls, precisions = random.Random(0), [], []
    chances: list[float] = []
    for _ in range(60):
        items = [
            Item(draw.uniform(0.5, 1), True, draw.random() < 0.5, checked=draw.random() < 0.5)
            for _ in range(400)
        ] + [Item(draw.uniform(0, 0.6), False, False, draw.random() < 0.5) for _ in range(400)]
        at = search(items, 0.95)
        known = [i.score for i in items if i.is_positive and not i.checked]
        assert sum(score >= at for score in known) >= 0.95 * len(known)
        threshold = Threshold("door", ("A door?",), ("yes", "no"), ("yes",), at)
        found = check(threshold, items, 0.95)
        chances.append(found.chance)
        assert found.recall.n == sum(i.checked and i.is_positive for i in items)
        recalls.append(found.recall.value)
        precisions.append(found.precision.value)
        assert found.best_recall.value < 0.7 and found.best_precision.value == 1
    assert sum(recalls) / len(recalls) == pytest.approx(0.95, abs=0.006)
    assert 0.4 < sum(chances) / len(chances) < 0.65 and min(chances) > 0.001
    # 95 % of the positives are at 0.525 or more, and an eighth of the negatives.
    assert sum(precisions) / len(precisions) == pytest.approx(0.95 / (0.95 + 0.125), abs=0.02)


def test_other_images_are_noticed() -> None:
    """Positives of the checked half score lower than those that the threshold was found on."""
    alike = [Item(0.5 + index / 200, True, True, index % 2 == 0) for index in range(100)]
    others = [Item(0.4 + i.score / 10, True, True, True) if i.checked else i for i in alike]
    threshold = Threshold("door", ("A door?",), ("yes", "no"), ("yes",), search(alike, 0.9))
    assert check(threshold, alike, 0.9).chance > 0.1
    assert check(threshold, others, 0.9).chance < UNLIKELY


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with a question each; half of the labels are yes."""
    return many_questions(tmp_path_factory.mktemp("many"), 40)


def find(artifact: Path, dataset: Path, out: Path, *options: object) -> Any:
    command = ("verify", "accuracy", artifact, "--dataset", dataset, "--choices", "yes,no")
    return call(*command, "-o", out, *options)


def test_thresholds_are_found_and_run_by(artifact: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.json"
    found = find(artifact, dataset, out, "--min-recall", "0.8", "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert json.loads(out.read_text()) == {k: v for k, v in told.items() if k != "thresholds"}
    assert told["dataset"] == read_dataset(dataset).digest
    (one,) = told["questions"]
    assert (one["question"], one["positive"]) == ("door", ["yes"])
    assert one["checked"]["recall"]["n"] >= 4 and one["checked"]["recall"]["value"] > 0.3
    assert told["without_threshold"].keys() == {"read"}
    assert "none of the choices yes, no are positive" in told["without_threshold"]["read"]
    assert not list(artifact.glob("reports/accuracy-*"))

    answers = tmp_path / "answers.jsonl"
    run = ["run", artifact, dataset.parent / "*.png", "--threshold", out, "-o", answers]
    ran = call(*run, "--prompt", "Is it a door?", "--score", "probability", "--audit", "1")
    assert ran.exit_code == 0, ran.stderr
    lines = [json.loads(line) for line in answers.open()]
    assert len(lines) == 40
    for line in lines:
        reached = line["scores"]["yes"] >= one["threshold"]
        assert line["answer"] == ("yes" if reached else "no")
    best = {max(line["scores"], key=line["scores"].get) == line["answer"] for line in lines}
    assert False in best, "the threshold moves answers, or the test shows nothing"

    other = call(*run, "--prompt", "Is it a window?")
    assert other.exit_code == 2
    assert "has no threshold for the question 'Is it a window?'" in other.stderr
    for options, reason in (
        (("--choices", "yes,no"), "--choices has no effect beside --threshold"),
        (("--tiles", "single"), "thresholds are for the artifact"),
    ):
        refused = call(*run, "--prompt", "Is it a door?", *options)
        assert refused.exit_code == 2 and reason in refused.stderr
    changed = json.loads(out.read_text())
    changed["questions"][0]["threshold"] = 0.999
    out.write_text(json.dumps(changed))
    resumed = call(*run, "--prompt", "Is it a door?", "--score", "probability")
    assert resumed.exit_code == 2 and "thresholds: was" in resumed.stderr
    out.write_text("{}")
    broken = call(*run, "--prompt", "Is it a door?")
    assert broken.exit_code == 2 and "is not a valid file of thresholds" in broken.stderr


def test_rows_with_prompts_of_their_own(artifact: Path, dataset: Path, tmp_path: Path) -> None:
    """A prompt without a threshold is an error in its own line."""
    out = tmp_path / "thresholds.json"
    assert find(artifact, dataset, out, "--min-recall", "0.5").exit_code == 0
    rows = [
        {"image": str(dataset.parent / "0.png"), "prompt": prompt}
        for prompt in ("Is it a window?", "Is it a door?", "Is it a wall?", "Is it a door?")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = tmp_path / "answers.jsonl"
    command = ("run", artifact, tmp_path / "rows.jsonl", "--threshold", out, "-o", answers)
    assert call(*command).exit_code == 0
    lines = [json.loads(line) for line in answers.open()]
    assert [line["answer"] is None for line in lines] == [True, False, True, False]
    assert lines[1]["scores"].keys() == {"yes", "no"}
    assert "has no threshold for the question 'Is it a wall?'" in lines[2]["error"]


def test_too_few_positives_are_refused(artifact: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.json"
    refused = find(artifact, dataset, out, "--min-recall", "0.99")
    assert refused.exit_code == 2 and not out.exists()
    assert "a recall of 0.99 needs 99 in each" in refused.stderr
    for options, reason in (
        (("--min-recall", "0.9", "--strict"), "--strict has no effect beside --min-recall"),
        (("--min-recall", "1"), "1.0 is not in the range"),
        ((), "--choices and -o are for --min-recall"),
    ):
        refused = find(artifact, dataset, out, *options)
        assert refused.exit_code == 2 and reason in refused.stderr
    bare = call("verify", "accuracy", artifact, "--min-recall", "0.9", "--choices", "yes,no")
    assert bare.exit_code == 2 and "--min-recall needs --choices and -o" in bare.stderr


def test_a_prompt_has_one_threshold(artifact: Path, dataset: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    rows[-1]["question"] = "another"
    rows[-1]["image"] = str(dataset.parent / rows[-1]["image"])
    mixed = dataset.with_name("mixed.jsonl")
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = find(artifact, mixed, tmp_path / "out.json", "--min-recall", "0.5")
    assert refused.exit_code == 2
    assert f"mixed.jsonl:{len(rows)}: the prompt 'Is it a door?'" in refused.stderr


def test_choices_of_rows_are_checked(dataset: Path) -> None:
    row = json.loads(dataset.read_text().splitlines()[-1])
    path = dataset.with_name("bad.jsonl")
    path.write_text(json.dumps(row | {"choices": ["yes", "no", "unclear"]}))
    with_choices = read_dataset(path)
    assert with_choices.questions[0].choices == ("yes", "no", "unclear")
    path.write_text(json.dumps(row))
    assert read_dataset(path).digest != with_choices.digest
    path.write_text(json.dumps(row | {"choices": ["yes"]}))
    with pytest.raises(Exception, match=r'"choices" is .* at least two answers'):
        read_dataset(path)
