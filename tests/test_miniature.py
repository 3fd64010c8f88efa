"""The miniatures are what the oracle's values were computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests import oracle
from tests.miniature import MINIATURES, write_miniature
from tests.miniature.draw import draw

DRAWN = "d200244c790111b08007af6c534f010369b25e99e0aec8a43bfd8e90c0b108c5"


def test_draws_are_stable() -> None:
    values = draw("name", (1000,), 0)
    assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == DRAWN
    assert abs(float(values.mean())) < 0.1
    assert abs(float(values.std()) - 1) < 0.05
    assert not np.array_equal(values, draw("other", (1000,), 0))
    assert not np.array_equal(values, draw("name", (1000,), 1))


@pytest.mark.parametrize("name", MINIATURES)
def test_checkpoint_is_complete_and_small(name: str, miniatures: Callable[[str], Path]) -> None:
    folder = miniatures(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    shapes: dict[str, list[int]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            shapes |= {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    config = json.loads((folder / "config.json").read_text())
    vocabulary = config["llm_config"]["vocab_size"]
    sized = [shape for shape in shapes.values() if shape[0] == vocabulary]
    assert len(sized) == 2  # embedding and head
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert max(int(key) for key in settings["added_tokens_decoder"]) == vocabulary - 1
    index = folder / "model.safetensors.index.json"
    assert index.exists() == MINIATURES[name].sharded
    if index.exists():
        assert set(json.loads(index.read_text())["weight_map"]) == set(shapes)


def test_writing_twice_gives_the_same_bytes(miniature: Path, tmp_path: Path) -> None:
    again = write_miniature(tmp_path / "again", "internlm2-300m")
    for file in sorted(miniature.iterdir()):
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("name", MINIATURES)
def test_oracle_agrees_with_itself(name: str) -> None:
    for chat in oracle.chats(name):
        assert chat.positions[-1] == len(chat.ids) - 1
        assert chat.top_ids[0, 0] == chat.logits[-1].argmax()
        assert chat.top_ids[:, 0].tolist() == chat.new_ids
        np.testing.assert_allclose(chat.logits[-1].max(), chat.top_logits[0, 0], atol=1e-4)
        assert chat.prompt.count("<image>") == len(chat.tiles)
    for image, maximum in oracle.FEATURE_PICTURES:
        features = oracle.features(name, image, maximum)
        total = features.token_means.sum(axis=1) * features.channel_means.shape[1]
        np.testing.assert_allclose(total, features.sums, rtol=1e-3)
