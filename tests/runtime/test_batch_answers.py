"""Answers as a callable class for other people's pipelines."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmc
from vlmc.errors import UsageError


@pytest.fixture(scope="module")
def answers(artifact: Path) -> Iterator[vlmc.BatchAnswers]:
    made = vlmc.BatchAnswers(
        artifact, prompt="A door?", device="cpu", tiles="single", max_new_tokens=2
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def scores(artifact: Path) -> Iterator[vlmc.BatchAnswers]:
    made = vlmc.BatchAnswers(
        artifact, prompt_column="ask", choices=["yes", "no"], device="cpu", tiles="single"
    )
    yield made
    made.close()


def test_answers_are_the_models_and_errors_are_a_column(
    answers: vlmc.BatchAnswers, artifact: Path, images: Path
) -> None:
    path = images / "480x320.jpg"
    batch = {"image": np.array([str(path), "missing.jpg"], object), "id": np.array([7, 8])}
    found = answers(batch)
    with vlmc.load(artifact, device="cpu", tiles="single") as model:
        (expected,) = model.generate([(path, "A door?")], max_new_tokens=2)
    assert found["answer"].tolist() == [expected.text, ""]
    assert found["image_tokens"].tolist() == [256, 0]
    assert found["error"][0] == "" and "missing.jpg: there is no such file" in found["error"][1]
    assert found["id"] is batch["id"]


def test_images_of_every_form_have_the_same_scores(scores: vlmc.BatchAnswers, images: Path) -> None:
    path = images / "480x320.jpg"
    pixels = np.array(Image.open(path))
    forms: list[Any] = [
        np.array([str(path)]),
        np.array([path.read_bytes()], object),
        [path],
        pixels[None],
        [[path]],
    ]
    found = [scores({"image": form, "ask": np.array(["A door?"])}) for form in forms]
    for one in found:
        assert one["answer"][0] == ("yes" if one["score_yes"][0] >= one["score_no"][0] else "no")
        assert one["score_yes"][0] == pytest.approx(found[0]["score_yes"][0], abs=1e-4)
    two = np.array([[str(path), str(path)]])
    both = scores({"image": two, "ask": ["<image> or <image>?"]})
    assert both["image_tokens"].tolist() == [512]


def test_prompts_are_of_their_rows(scores: vlmc.BatchAnswers, images: Path) -> None:
    path = str(images / "480x320.jpg")
    found = scores({"image": [path] * 3, "ask": ["A door?", "", "Snow?"]})
    assert found["score_yes"][0] != found["score_yes"][2]
    assert found["error"][1] == "" or math.isnan(found["score_yes"][1])
    empty = scores({"image": [], "ask": []})
    assert empty["answer"].tolist() == [] and empty["score_no"].dtype == np.float64


def test_text_without_images(artifact: Path) -> None:
    with_text = vlmc.BatchAnswers(
        artifact, prompt_column="q", image_column=None, device="cpu", tiles="single"
    )
    found = with_text({"q": np.array(["Hello", "<image>?"])})
    assert found["image_tokens"].tolist() == [0, 0]
    assert found["error"][0] == "" and "placeholder" in found["error"][1]
    with_text.close()


def test_a_row_without_an_image_is_an_error(answers: vlmc.BatchAnswers, images: Path) -> None:
    """And not an answer about nothing."""
    path = str(images / "480x320.jpg")
    found = answers({"image": [None, path, [], np.array([], object)]})
    assert found["image_tokens"].tolist() == [0, 256, 0, 0]
    assert [bool(error) for error in found["error"]] == [True, False, True, True]
    assert "no image in the column 'image'" in found["error"][0]
    assert found["answer"].tolist()[::2] == ["", ""]


def test_what_is_refused(artifact: Path, answers: vlmc.BatchAnswers) -> None:
    with pytest.raises(UsageError, match="one of the two"):
        vlmc.BatchAnswers(artifact)
    with pytest.raises(UsageError, match="one of the two"):
        vlmc.BatchAnswers(artifact, prompt="a", prompt_column="b")
    with pytest.raises(UsageError, match="choices must be different texts"):
        vlmc.BatchAnswers(artifact, prompt="a", choices=["yes", "yes"])
    with pytest.raises(UsageError, match="has no column 'image', it has 'picture'"):
        answers({"picture": []})
    with pytest.raises(UsageError, match="a column 'answer', which is added"):
        answers({"image": [], "answer": []})


def test_an_image_from_memory(answers: vlmc.BatchAnswers) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "PNG")
    assert answers({"image": [buffer.getvalue()]})["error"].tolist() == [""]
