"""Kernels of the language model compiled ahead; that they serve on a GPU is in tests/gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from vlmc.checkpoint.config import LanguageConfig
from vlmc.compile.language.kernels import compile_kernels, kernel_settings, run_apart
from vlmc.errors import BuildError

CONFIG = LanguageConfig(
    architecture="LlamaForCausalLM",
    hidden_size=64,
    layers=48,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=96,
    vocab_size=90000,
    norm_eps=1e-5,
    rope_theta=1e6,
    max_positions=4096,
)


def test_layers_and_vocabulary_change_no_kernel() -> None:
    settings = kernel_settings(CONFIG, "fp8", "bfloat16")
    other = replace(CONFIG, layers=2, vocab_size=7)
    assert kernel_settings(other, "fp8", "bfloat16") == settings
    for changed in (
        kernel_settings(replace(CONFIG, head_dim=32), "fp8", "bfloat16"),
        kernel_settings(CONFIG, "none", "bfloat16"),
        kernel_settings(CONFIG, "fp8", "float16"),
    ):
        assert changed != settings


def test_all_steps_run_in_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where the same steps run without kernels."""
    monkeypatch.setattr(
        "vlmc.compile.language.kernels.device_for", lambda target: torch.device("cpu")
    )
    compile_kernels(kernel_settings(CONFIG, "none", "float32"), tmp_path, target="sm90")
    with ZipFile(tmp_path / "kernels-sm90.zip") as archive:
        assert archive.namelist() == ["about.json"]


def test_what_the_compiler_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vlmc.compile.language.kernels.device_for", lambda target: torch.device("cuda", 99)
    )
    monkeypatch.setattr(
        "vlmc.compile.language.kernels.run_apart", lambda *_: "ptxas fatal: no such GPU"
    )
    with pytest.raises(BuildError, match="cannot be compiled for sm90:\nptxas fatal"):
        compile_kernels(kernel_settings(CONFIG, "fp8", "bfloat16"), tmp_path, target="sm90")
    assert not list(tmp_path.iterdir())


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    settings = kernel_settings(CONFIG, "none", "float32")
    said = run_apart("cpu", {**settings, "dtype": "float5"}, str(tmp_path), "ELF")
    assert "has no attribute 'float5'" in said
