"""A source that was misread is noticed, and sound ones are not refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.miniature.family import MINIATURES
from tests.miniature.quantized import LAYOUTS, Layout, write_quantized
from vlmc.artifact.manifest import PromptRules
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import AccuracyError
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import load_tokenizer
from vlmc.verify.source import open_source
from vlmc.verify.source_check import check_tokenizer, check_weights

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart"
PROMPTS = (
    "Is a hard hat visible?",
    "图中有插座吗？",
    "  two  spaces\nand a line",
    "cafe\u0301 ﬁ ① \U0001f600",
    "Where is <ref>the door</ref>?",
)


def open_fully(folder: Path) -> None:
    """Everything that is checked when a source is opened for verification."""
    with open_checkpoint(folder) as checkpoint:
        template = TEMPLATES[checkpoint.config.template]
        check_tokenizer(checkpoint.tokenizer, PROMPTS)
    open_source(folder, PromptRules(template.name, template.system_message), "auto").close()


@pytest.mark.parametrize("name", MINIATURES)
def test_every_miniature_is_sound(name: str, miniatures: Callable[[str], Path]) -> None:
    open_fully(miniatures(name))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantized_sources_are_sound(layout: Layout, miniature: Path, tmp_path: Path) -> None:
    open_fully(write_quantized(miniature, tmp_path / "quantized", layout))


def test_the_quickstart_is_sound() -> None:
    open_fully(QUICKSTART / "checkpoint")
    lines = (QUICKSTART / "eval.jsonl").read_text().splitlines()
    tokenizer = load_tokenizer(QUICKSTART / "checkpoint")
    check_tokenizer(tokenizer, [json.loads(line)["prompt"] for line in lines])


class Tiny(nn.Module):
    """Parameters with the names of a language model's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 16)
        self.lm_head = nn.Linear(16, 50, bias=False)


@pytest.mark.parametrize(
    ("name", "factor", "reason"),
    [
        ("linear.weight", 0, "all its values are zero"),
        ("embed_tokens.weight", 1e30, r"its standard deviation is 1e\+30|9\.\d*e\+29|1\.\d*e\+30"),
        ("lm_head.weight", 1e-6, "its standard deviation is"),
        ("norm.weight", 0, "its mean magnitude is 0, outside"),
        ("norm.weight", 1e9, r"its mean magnitude is 1e\+09"),
    ],
)
def test_a_misread_tensor_is_named(name: str, factor: float, reason: str) -> None:
    torch.manual_seed(0)
    model = Tiny()
    check_weights("language model", model)
    model.get_parameter(name).data.mul_(factor)
    with pytest.raises(AccuracyError, match=reason) as raised:
        check_weights("language model", model)
    assert f"language model.{name} is not what training leaves" in str(raised.value)


def test_a_tokenizer_that_loses_text_is_named(miniature: Path) -> None:
    tokenizer = load_tokenizer(miniature)
    encode = tokenizer.encode
    check_tokenizer(tokenizer, PROMPTS)

    class Lossy:
        """Drops one token of every prompt, as a merge that is read wrongly would."""

        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def encode(self, text: str) -> list[int]:
            return encode(text)[:-1] if "hat" in text else encode(text)

    with pytest.raises(AccuracyError, match=r"of the prompt 'Is a hard hat visible\?'"):
        check_tokenizer(Lossy(), PROMPTS)  # type: ignore[arg-type]


def test_it_runs_when_a_source_is_opened(miniature: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(miniature, tmp_path / "zeros")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            tensors[name].zero_()
            save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AccuracyError, match=r"vision tower\..*fc1.* all its values are zero"):
        open_fully(folder)
