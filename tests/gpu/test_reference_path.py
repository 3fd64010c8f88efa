"""On CUDA, the answers that an audit compares are those of the scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlmc.runtime.load import load
from vlmc.runtime.requests.scores import Scored, make_choose
from vlmc.runtime.sampling_options import make_sampling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_answers_of_the_reference_path(artifact: Path, images: Path) -> None:
    works = [make_sampling(max_new_tokens=5), make_choose(["yes", "no", "not at all"])]
    requests = [(path, "Is there a door?") for path in sorted(images.glob("*.jpg"))[:4]]
    with load(artifact, device="cuda", engine="onnxruntime", tiles="native:max=4") as model:
        pairs = [(request, work) for request in requests for work in works]
        for pair, found in zip(pairs, model.try_each(pairs), strict=True):
            reference = model.reference_answer(*pair)
            if isinstance(found, Scored):
                assert isinstance(reference, Scored)
                assert reference.scores == pytest.approx(found.scores, abs=1e-3)
            else:
                assert reference.text == found.text  # type: ignore[union-attr]
