"""Pixels and features, compared by hand-made values; the gate's verdicts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.image.patterns import scene
from vlmc.artifact.manifest import Profile
from vlmc.errors import AccuracyError
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.verify.answers import AnswerCheck, Pair
from vlmc.verify.asking import NO_ANSWER
from vlmc.verify.dataset import Question
from vlmc.verify.features import FeatureCheck, batch_counts, check_features
from vlmc.verify.gate import Checked, Thresholds
from vlmc.verify.metrics import NORMALIZE
from vlmc.verify.pixels import SAMPLE_TILES, PixelCheck, SampleTile, sample_indices, sampled
from vlmc.verify.source import SourceAnswer

RULE = TileRule("native", max=4)


@pytest.mark.parametrize("resampler", ["pillow", "opencv"])
def test_pixels_of_the_recipe(resampler: str) -> None:
    image, check = scene(640, 480), PixelCheck()
    for _ in range(2):
        found = make_tiles(image, RULE, resampler)  # type: ignore[arg-type]
        check.compare("a.jpg", found, partial(make_tiles, image, RULE), RULE, resampler)  # type: ignore[arg-type]
    reference = make_tiles(image, RULE, "pillow").astype(int)
    difference = np.abs(make_tiles(image, RULE, resampler) - reference)  # type: ignore[arg-type]
    assert check.mean == pytest.approx(difference.mean())
    assert check.maximum == difference.max()
    assert check.p99 == np.percentile(difference, 99, method="inverted_cdf")
    assert (check.images, check.tiles, check.wrong) == (2, 8, {})
    assert (check.maximum == 0) == (resampler == "pillow")


def test_other_pixels_and_grids_are_wrong() -> None:
    image, check = scene(640, 480), PixelCheck()
    tiles_by = partial(make_tiles, image, RULE)
    check.compare("opencv.jpg", tiles_by("opencv"), tiles_by, RULE, "pillow")
    one = make_tiles(image, TileRule("single"), "pillow")
    check.compare("single.jpg", one, tiles_by, RULE, "pillow")
    assert check.wrong.keys() == {"opencv.jpg", "single.jpg"}
    assert "1 tiles, and the recipe's rule native:max=4" in check.wrong["single.jpg"]


@pytest.mark.parametrize("images", [1, 3, 63, 64, 65, 300])
def test_sample_is_bounded_and_spread(images: int) -> None:
    names = [f"{index}" for index in range(images)]
    shares = dict(sampled(names))
    assert sum(shares.values()) == SAMPLE_TILES
    assert len(shares) == min(images, SAMPLE_TILES)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert sample_indices(13, 4) == [0, 3, 6, 9]
    assert sample_indices(2, 4) == [0, 1]


def test_every_profile_is_tried_at_its_corners() -> None:
    profiles = (Profile(1, 4, 13), Profile(14, 20, 26))
    assert batch_counts(profiles, 13) == [1, 4, 13, 14, 20, 26, 27]
    assert batch_counts((), 13) == [1, 14]


class EngineRecord:
    """Features that are the tile's mean and one more, and wrong in batches of `bad`."""

    name, precision, profiles = "made", "fp32", ()
    device, device_memory_bytes = torch.device("cpu"), 0

    def __init__(self, bad: int, value: float) -> None:
        self.bad, self.value = bad, value
        self.batches: list[int] = []

    def infer(
        self,
        tiles: torch.Tensor,
        out: torch.Tensor | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> torch.Tensor:
        self.batches.append(len(tiles))
        features = features_of(tiles)
        if len(tiles) == self.bad:
            features[tiles.float().mean(dim=(1, 2, 3)) > 150, 0, 0] = self.value
        return features

    def close(self) -> None:
        pass


def features_of(tiles: torch.Tensor) -> torch.Tensor:
    means = tiles.float().mean(dim=(1, 2, 3))
    return torch.stack([means, torch.ones_like(means)], 1)[:, None].repeat(1, 256, 1)


def tiles_of(*levels: int) -> npt.NDArray[np.uint8]:
    return np.stack([np.full((448, 448, 3), level, np.uint8) for level in levels])


def check(engine: EngineRecord, counts: list[int]) -> FeatureCheck:
    tiles = tiles_of(10, 100, 200)
    places = [SampleTile("abc", index) for index in range(3)]
    expected = features_of(torch.from_numpy(tiles)).numpy()
    return check_features(engine, tiles, places, expected, counts)


def test_every_tile_at_every_count() -> None:
    engine = EngineRecord(bad=0, value=0)
    found = check(engine, [1, 2, 5])
    assert engine.batches == [1, 1, 1, 2, 2, 5], "none is smaller at the end"
    assert [len(cosines) for cosines in found.cosines.values()] == [3, 3, 3]
    assert found.worst == pytest.approx(1, abs=1e-12)
    assert found.worst_tiles(0.99999) == []


@pytest.mark.parametrize("value", [-5000.0, float("nan"), float("inf")])
def test_worst_tile_is_named(value: float) -> None:
    found = check(EngineRecord(bad=2, value=value), [1, 2])
    (worst,) = found.worst_tiles(0.99999)
    assert (worst["image"], worst["tile"], worst["batch_tiles"]) == ("abc", 2, 2)
    assert worst["cosine"] == found.worst < 0.99
    if not np.isfinite(value):
        assert found.worst == -1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_never_agree(bad: float) -> None:
    tiles = tiles_of(10, 100)
    expected = features_of(torch.from_numpy(tiles)).numpy()
    expected[1, 3, 0] = bad
    with pytest.raises(AccuracyError, match="source model's features of abc are NaN or infinite"):
        check_features(
            EngineRecord(bad=0, value=0),
            tiles,
            [SampleTile("abc", index) for index in range(2)],
            expected,
            [1],
        )


def test_features_of_another_model_are_refused() -> None:
    with pytest.raises(AccuracyError, match=r"made makes \[256, 2\] a tile.*\[256, 3\]"):
        check_features(
            EngineRecord(0, 0),
            tiles_of(1),
            [SampleTile("a", 0)],
            np.ones((1, 256, 3), np.float32),
            [1],
        )


def pairs(same: int, other: int, *, positive: bool = False) -> list[Pair]:
    """`same` questions that both answer with yes, `other` that the artifact answers with no."""
    made = []
    for index in range(same + other):
        answer = "yes" if index < same else "no"
        words = ("yes",) if positive else ()
        asked = Question(index + 1, (Path("a.jpg"),), ("abc",), "A room?", "yes", "room", words)
        made.append(Pair(asked, SourceAnswer("Yes.", -0.1 * index), answer))
    return made


def checked(answers: list[Pair], cosine: float = 1.0) -> Checked:
    return Checked(
        PixelCheck(),
        FeatureCheck((SampleTile("abc", 0),), {1: np.array([cosine])}),
        AnswerCheck(tuple(answers), NORMALIZE),
        Thresholds(min_feature_cosine=0.9999, min_answer_agreement=0.95, max_recall_drop=0.01),
    )


def names(verdicts: list[object]) -> list[str]:
    return [verdict.name for verdict in verdicts]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("same", "other", "failed", "underpowered"),
    [
        (1000, 0, [], []),
        (960, 40, [], ["min_answer_agreement"]),  # [0.946, 0.971] reaches below 0.95
        (19, 1, [], ["min_answer_agreement"]),  # exactly the threshold
        (18, 2, ["min_answer_agreement"], []),
        (20, 0, [], ["min_answer_agreement"]),  # [0.839, 1]: so few cannot tell
    ],
)
def test_point_estimate_decides_on_agreement(
    same: int, other: int, failed: list[str], underpowered: list[str]
) -> None:
    found = checked(pairs(same, other))
    assert names(list(found.failed)) == failed
    assert names(list(found.underpowered)) == [*underpowered, "max_recall_drop"], "no label counts"


@pytest.mark.parametrize(
    ("same", "other", "failed", "underpowered"),
    [
        (1000, 0, [], []),
        (200, 0, [], ["max_recall_drop"]),  # half a width of 0.014 with nothing lost
        (994, 6, [], ["max_recall_drop"]),
        (990, 10, [], ["max_recall_drop"]),  # exactly the threshold
        (980, 20, ["max_recall_drop"], []),
    ],
)
def test_point_estimate_decides_on_recall(
    same: int, other: int, failed: list[str], underpowered: list[str]
) -> None:
    found = checked(pairs(same, other, positive=True))
    assert names(list(found.failed)) == failed
    assert names(list(found.underpowered)) == underpowered


@pytest.mark.parametrize(("cosine", "failed"), [(0.9999, []), (0.9998, ["min_feature_cosine"])])
def test_the_worst_tile_decides_on_features(cosine: float, failed: list[str]) -> None:
    found = checked(pairs(1000, 0))
    tiles = FeatureCheck(tuple(SampleTile("abc", i) for i in range(2)), {1: np.array([cosine, 1])})
    assert names(list(replace(found, features=tiles).failed)) == failed


def test_a_moved_grid_fails() -> None:
    found = checked(pairs(1000, 0))
    found.pixels.moved["a.jpg"] = "another grid"
    assert names(list(found.failed)) == ["pixels"]
    assert "a.jpg: another grid" in "\n".join(found.reasons())


def test_one_answer_without_finite_scores_fails() -> None:
    """One of a thousand, which agreement and recall would let pass."""
    found = checked([*pairs(1000, 0), replace(pairs(0, 1)[0], answer=NO_ANSWER)])
    assert names(list(found.failed)) == ["finite"]
    assert found.failed[0].line() == "FAILED  finite: scores that are NaN or infinite, n 1"
    assert "line 1, a.jpg" in found.reasons()[1]


def test_failures_are_told_with_their_worst_cases() -> None:
    found = checked(pairs(8, 2), cosine=0.5)
    found.pixels.wrong["b.jpg"] = "other pixels"
    assert names(list(found.failed)) == ["pixels", "min_feature_cosine", "min_answer_agreement"]
    told = "\n".join(found.reasons())
    for part in (
        "b.jpg: other pixels",
        "tile 0 of image abc: cosine 0.500000 in a batch of 1",
        "min_answer_agreement: 0.8000",
        "line 9, a.jpg, 'A room?': source 'Yes.', artifact 'no'",
    ):
        assert part in told
    # The one the source was surer of comes first.
    assert told.index("line 9,") < told.index("line 10,")


def test_lost_finds_come_first() -> None:
    unlabelled, labelled = pairs(0, 1), pairs(5, 1, positive=True)
    check = AnswerCheck((*unlabelled, *labelled), NORMALIZE)
    assert [pair.question.line for pair in check.disagreements] == [6, 1]
    plain = check.to_json()
    assert plain["agreement"]["value"] == pytest.approx(5 / 7, abs=1e-6)
    assert plain["exact_match"]["value"] == 0, "Yes. is not yes to the letter"
    assert plain["recall_drop"]["lost"] == 1
    assert plain["questions"]["room"]["artifact"]["recall"]["n"] == 6
