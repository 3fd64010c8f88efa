"""Images of requests: of every type, and told apart by all of their bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.image.files import alike_at_first, turned
from vlmc import Answer, Model, load
from vlmc.errors import ImageError, UsageError
from vlmc.runtime.images.prepare import ImagePreparer
from vlmc.runtime.requests.request import Request, TileOrigin
from vlmc.runtime.sampling_options import make_sampling

Pictures = list[npt.NDArray[np.uint8]]


def test_every_type_has_the_same_answer(model: Model, images: Path) -> None:
    path = images / "480x320.jpg"
    content = path.read_bytes()
    pixels = np.array(Image.open(path))
    sources: list[Any] = [
        content,
        io.BytesIO(content),
        path.open("rb"),
        Image.open(path),
        torch.from_numpy(pixels),
        f"data:image/jpeg;base64,{base64.b64encode(content).decode()}",
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        [Image.open(path)],
    ]
    (expected,) = model.score([(path, "What?")], choices=["yes", "no"])
    found = model.score([(source, "What?") for source in sources], choices=["yes", "no"])
    for scores in found:
        assert scores == pytest.approx(expected, abs=1e-5)
    sources[2].close()


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (("https://a/b.jpg", "x"), "is a URL"),
        ((torch.zeros(3, 4, 4), "x"), "<tensor 3x4x4 torch.float32>"),
        ((7, "x"), "a request's image is a path, bytes, a file object, .* got int"),
        ((np.zeros((300, 300)),), r"got 1 values$"),
        ({"image": "a" * 5000}, "got <dict>$"),
        (np.zeros((300, 300)), r"got <array 300x300 float64>$"),
        (None, "got <NoneType>"),
    ],
)
def test_what_is_not_an_image_or_a_request(model: Model, request_: Any, part: str) -> None:
    with pytest.raises((UsageError, ImageError), match=part) as caught:
        model.generate([request_])
    assert len(str(caught.value)) < 600


def test_encode_takes_a_list(model: Model, images: Path, pictures: Pictures) -> None:
    single: list[Any] = [str(images / "480x320.jpg"), images / "480x320.jpg", b"x", pictures[0]]
    for source in single:
        with pytest.raises(UsageError, match=r"encode takes a list of images; write encode\("):
            model.encode(source)


def test_pictures_that_begin_alike_do_not_share_features(model: Model, tmp_path: Path) -> None:
    one, two = alike_at_first(tmp_path)
    # BMP begins with the lowest row.
    arrays = [np.array(Image.open(path))[::-1] for path in (one, two)]
    for first, second in ((one, two), (one.read_bytes(), two.read_bytes()), arrays):
        features = model.encode([first, second])
        assert (features[0] - features[1]).abs().max() > 1e-3
        assert model.prepare_image(first).digest != model.prepare_image(second).digest
    requests: list[Request] = [(one, "What?"), (two, "What?"), (one, "Why?")]
    together = model.score(requests, choices=["yes", "no"])
    for request, scores in zip(requests, together, strict=True):
        (alone,) = model.score([request], choices=["yes", "no"])
        assert scores == pytest.approx(alone, abs=1e-4)
    assert abs(together[0]["yes"] - together[1]["yes"]) > 1e-4


def test_requests_are_told_apart_by_all_of_their_images(model: Model, pictures: Pictures) -> None:
    a, b, c = pictures[:3]
    requests: list[Request] = [
        ([a, b], "<image>\n<image>\nThe same?"),
        ([a, c], "<image>\n<image>\nThe same?"),
        ([b, a], "<image>\n<image>\nThe same?"),
        ([b, a], "<image>\n<image>\nAnother?"),
    ]
    together = model.score(requests, choices=["yes", "no"])
    alone = [model.score([request], choices=["yes", "no"])[0] for request in requests]
    assert together == [pytest.approx(scores, abs=1e-4) for scores in alone]
    for index, scores in enumerate(together):
        assert all(abs(scores["yes"] - other["yes"]) > 1e-4 for other in together[:index])


def test_answers_carry_what_was_left_unused(model: Model, pictures: Pictures) -> None:
    phone = turned(Image.fromarray(pictures[0]))
    deep = Image.fromarray(np.full((9, 9), 700, np.uint16))
    requests: list[Request] = [
        ([pictures[1], phone, deep], "What?"),
        (phone, "What?"),
        (pictures[0], "What?"),
        (Image.open(io.BytesIO(phone)), "What?"),
        (None, "What?"),
    ]
    answers = model.generate(requests, max_new_tokens=1)
    assert [answer.image_notes for answer in answers] == [
        (set(), {"rotation_ignored"}, {"clipped_to_8_bits"}),
        ({"rotation_ignored"},),
        (set(),),
        ({"rotation_ignored"},),
        (),
    ]


def test_high_bit_depth_is_the_artifacts_rule(artifact: Path, tmp_path: Path) -> None:
    from tests.artifacts import copy_with

    levels = np.array([[0, 257], [2570, 65535]], np.uint16)
    scaled = copy_with(artifact, tmp_path / "scaled", image__high_bit_depth="scale")
    with load(scaled, device="cpu", tiles="single", self_test=False) as model:
        tiles = model.prepare_image(Image.fromarray(levels.repeat(224, 0).repeat(224, 1))).tiles
    assert [int(tiles[0, y, x, 0]) for y in (0, 447) for x in (0, 447)] == [0, 1, 10, 255]


def test_the_most_diverse_tokens_of_each_tile_are_asked_about(
    artifact: Path, images: Path, tmp_path: Path
) -> None:
    from tests.artifacts import copy_with
    from vlmc.models.vision.prune import prune_tokens

    path = images / "480x320.jpg"
    with load(artifact, device="cpu", self_test=False) as model:
        (whole,) = model.encode([path])
        (full,) = model.generate([(path, "What?")])
    tiles = full.image_tokens // 256
    expected = prune_tokens(whole.view(tiles, 256, -1), 64).flatten(0, 1)
    pruned = copy_with(artifact, tmp_path / "pruned", image__keep=0.25)
    with load(pruned, device="cpu", self_test=False) as model:
        (features,) = model.encode([path])
        assert torch.equal(features, expected)
        first, second = model.generate([(path, "What?"), (path, "Where?")])
        assert first.image_tokens == second.image_tokens == 64 * tiles
        assert first.image_tokens < full.image_tokens
        given = replace(model.prepare_image(path), features=whole)
        (same,) = model.score([(given, "What?")], choices=["yes", "no"])
        (own,) = model.score([(path, "What?")], choices=["yes", "no"])
        assert same == pytest.approx(own, abs=1e-4)


def test_images_prepared_elsewhere_are_answered_alike(
    model: Model, artifact: Path, images: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = images / "480x320.jpg"
    elsewhere = ImagePreparer(
        model.artifact.manifest.image, model.tiles, TileOrigin(model.artifact.identity, "single")
    )
    given = elsewhere.image(path)
    given.tiles.flags.writeable = False  # as what other processes send
    decoded = model.statistics.images_decoded
    (found,) = model.score([(given, "What?")], choices=["yes", "no"])
    assert model.statistics.images_decoded == decoded
    (expected,) = model.score([(path, "What?")], choices=["yes", "no"])
    assert found == pytest.approx(expected, abs=1e-5)
    reference = model.reference_answer((given, "What?"), make_sampling(max_new_tokens=1))
    assert isinstance(reference, Answer)
    assert not [warning for warning in recwarn if "not writable" in str(warning.message)]


@pytest.mark.parametrize("artifact_", ["model's", "e" * 64])
def test_images_prepared_for_another_model_are_refused(
    artifact_: str, model: Model, images: Path
) -> None:
    identity = model.artifact.identity
    own = artifact_ == "model's"
    origin = TileOrigin(identity if own else artifact_, "native:max=4" if own else "single")
    given = replace(model.prepare_image(images / "480x320.jpg"), origin=origin)
    said = (
        f"was prepared for the artifact {origin.artifact[:8]} with tiles {origin.tiles}, and this "
        f"model is the artifact {identity[:8]} with tiles single"
    )
    with pytest.raises(UsageError, match=said):
        model.generate([(given, "What?")])
