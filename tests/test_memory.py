"""Loading a model of N bytes takes hardly more than N bytes of memory at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.artifacts import build_from
from tests.miniature import write_miniature
from tests.models.linears.quantized import FP8, w4a16, write_language
from tests.peak_memory import anonymous_bytes
from vlmc.checkpoint.config import read_config
from vlmc.checkpoint.layout import original_shapes

MIB = 1 << 20
# Tokenizer, configuration and modules, and what the allocator keeps: 5 MiB was seen.
BESIDES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Watched:
    """Anonymous memory beyond what the imports took, in bytes, while and after loading."""

    peak: int
    after: int
    compiler: bool


def watch(how: str, folder: Path) -> Watched:
    """Load in a process of its own and look at its memory every millisecond."""
    command = [sys.executable, "-m", "tests.peak_memory", how, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = int(process.stdout.readline())
        process.stdin.write("\n")
        process.stdin.close()
        peak = before
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.001)
        after, compiler = process.stdout.readline().split()
    return Watched(max(peak, int(after)) - before, int(after) - before, compiler == "True")


def write_large(folder: Path, mebibytes: int) -> Path:
    """A checkpoint of about so many MiB of bf16 in four wide layers and the projector."""
    width = round((mebibytes * MIB / 2 / 57) ** 0.5 / 64) * 64
    sizes = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 64,
    }
    write_miniature(folder, "internlm2-300m")
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for part in ("vision_config", "llm_config"):
        values[part] |= sizes
    values["llm_config"] |= {"num_key_value_heads": width // 64}
    path.write_text(json.dumps(values))
    tensors = {
        name: torch.randn(shape, dtype=torch.bfloat16) * 0.02
        for name, shape in original_shapes(read_config(folder)).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def check(found: Watched, weights: int) -> None:
    """Neither two copies of a part nor a part in two dtypes fit into the margin."""
    assert weights <= found.after
    assert found.peak < 1.15 * weights + BESIDES
    # It would take two seconds of every start, and 70 MiB.
    assert not found.compiler


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large(tmp_path_factory.mktemp("large") / "checkpoint", 60)


@pytest.mark.parametrize(("dtype", "growth"), [("bfloat16", 1), ("float32", 2)])
def test_loading_a_checkpoint(dtype: str, growth: int, checkpoint: Path) -> None:
    size = (checkpoint / "model.safetensors").stat().st_size
    check(watch(dtype, checkpoint), growth * (size - MIB // 4))


@pytest.mark.parametrize("layout", ["w4a16", "fp8"])
def test_loading_quantized_weights(layout: str, tmp_path: Path) -> None:
    """On the CPU they become dense, one linear at a time."""
    quantization = FP8 if layout == "fp8" else w4a16(64, symmetric=False)
    config = write_language(tmp_path, quantization, width=768, layers=4)
    dense = 2 * (2 * config.vocab_size * 768 + 4 * (4 + 3 * 4) * 768 * 768)
    check(watch("language", tmp_path), dense)


@pytest.mark.slow
def test_loading_a_large_checkpoint_and_its_artifact(tmp_path: Path) -> None:
    checkpoint = write_large(tmp_path / "checkpoint", 400)
    size = (checkpoint / "model.safetensors").stat().st_size
    for dtype, growth in (("bfloat16", 1), ("float32", 2)):
        check(watch(dtype, checkpoint), growth * (size - MIB // 4))
    artifact = build_from(checkpoint, tmp_path / "artifact", ())
    # The first load on a machine runs golden tiles, and takes what tiles take.
    watch("artifact", artifact)
    loaded = (artifact / "vision" / "model.onnx", artifact / "language" / "model.safetensors")
    check(watch("artifact", artifact), sum(path.stat().st_size for path in loaded) - MIB // 4)
