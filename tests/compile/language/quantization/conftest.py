"""Miniature language models quantized for real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.quantized import dequantized
from vlmc.checkpoint.huggingface import language_config_json, language_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.language.quantization.settings import Settings
from vlmc.compile.language.weights import write_quantized

TOKENS = (40, 56, 33, 48, 64, 37, 52, 45)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A language folder, its report, and the original's tensors in fp32."""

    folder: Path
    report: dict[str, Any]
    original: dict[str, Tensor]

    @property
    def stored(self) -> dict[str, Tensor]:
        """The tensors as they are stored."""
        return load_file(self.folder / "model.safetensors")

    @property
    def whole(self) -> dict[str, Tensor]:
        """The tensors with packed weights read back, in fp32."""
        return dequantized(self.stored)

    def linear(self, name: str) -> dict[str, Any]:
        """The report's entry."""
        (found,) = (part for part in self.report["linears"] if part["name"] == name)
        return dict(found)


Quantize = Callable[..., Quantized]


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`embeddings(hidden)` is a folder of eight samples of random states, as a step writes it.

    Most of them lies in a few directions, as of real states: what calibration lives on.
    """
    from safetensors.torch import save_file

    def written(hidden: int) -> Path:
        folder = tmp_path_factory.mktemp("embeddings")
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(6, hidden, generator=generator)
        for index, tokens in enumerate(TOKENS):
            states = torch.randn(tokens, 6, generator=generator) @ directions
            states = (states + 0.2 * torch.randn(tokens, hidden, generator=generator)).bfloat16()
            save_file({"embeddings": states}, folder / f"{index:05d}.safetensors")
        return folder

    return written


@pytest.fixture
def quantize(
    miniature: Path,
    embeddings: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Quantize]:
    """`quantize(method, checkpoint=miniature, samples=True, **settings)` in a new folder.

    What the process of a build runs is run in this one, which imports transformers once.
    """
    from vlmc.compile.language.quantization import worker

    def run(
        method: str, checkpoint: Path = miniature, *, samples: bool = True, **settings: Any
    ) -> Quantized:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}" / "language"
        folder.mkdir(parents=True)
        with open_checkpoint(checkpoint) as opened:
            config = opened.config.language
            values = language_config_json(config, dtype="bfloat16", bos_id=1, eos_id=2, pad_id=2)
            base = Settings(
                method=method,  # type: ignore[arg-type]
                group_size=32,
                symmetric=False,
                dtype="bfloat16",
                layers=config.layers,
                samples=str(embeddings(config.hidden_size)) if samples else None,
            )
            write_quantized(opened, folder, replace(base, **settings), values)
            original = {
                name: tensor.float() for name, tensor in language_tensors(opened.weights, config)
            }
        report = json.loads((folder / "report" / "language-quantization.json").read_bytes())
        return Quantized(folder, report, original)

    monkeypatch.setattr("vlmc.compile.language.weights.run_job", worker.main)
    yield run
    torch.set_flush_denormal(False)
