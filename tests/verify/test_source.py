"""The source is asked as it was published, whatever the artifact's recipe says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image.files import turned
from tests.image.patterns import scene
from vlmc.artifact.manifest import PromptRules, read_manifest
from vlmc.errors import UsageError
from vlmc.image.decode import decode
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule
from vlmc.text.template import TEMPLATES
from vlmc.verify.dataset import read_dataset
from vlmc.verify.pixels import ImageGrid
from vlmc.verify.reference import Reference, write_reference
from vlmc.verify.source import SourceAnswer, open_source
from vlmc.verify.verification import verify_accuracy

PUBLISHED = TileRule("original", min=1, max=12, thumbnail=True)


def test_images_are_tiled_by_the_published_rule_with_pillow_and_not_turned(miniature: Path) -> None:
    template = TEMPLATES["internlm2-chat"]
    prompt = PromptRules(template.name, template.system_message)
    photo = turned(Image.fromarray(scene(480, 320)))
    with open_source(miniature, prompt, "float32") as source:
        assert source.rule == PUBLISHED
        found = source._dispatcher._preparer.images.image(photo).tiles
    pixels = decode(photo, exif="ignore")
    assert np.array_equal(found, make_tiles(pixels, PUBLISHED, "pillow"))
    assert not np.array_equal(found, make_tiles(pixels, PUBLISHED, "opencv"))


@pytest.mark.parametrize("change", ["template", "system message"])
def test_a_reference_of_another_prompt_is_refused(
    change: str, copied: Path, questions: Path, tmp_path: Path
) -> None:
    """It has an answer to every question, of a model that was asked in another way."""
    dataset, prompt = read_dataset(questions), read_manifest(copied).prompt
    hidden = read_manifest(copied).hidden_size
    reference = Reference(
        source={},
        dtype="float32",
        device="cpu",
        template="Hermes-2" if change == "template" else prompt.template,
        system_message="Answer briefly." if change != "template" else prompt.system_message,
        dataset=dataset.digest,
        dataset_path=str(questions),
        grids=dict.fromkeys(dataset.images, ImageGrid(448, 448, 1, "0" * 64)),
        answers={question.key: SourceAnswer("yes", -1.0) for question in dataset.questions},
        places=(),
        tiles=np.zeros((0, 448, 448, 3), np.uint8),
        features=np.zeros((0, 256, hidden), np.float32),
    )
    write_reference(reference, tmp_path / "reference")
    with pytest.raises(UsageError, match=r"was asked with the template .* the artifact with"):
        verify_accuracy(copied, reference=tmp_path / "reference")
