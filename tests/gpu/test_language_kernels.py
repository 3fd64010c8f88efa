"""An artifact with kernels compiled ahead answers where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.artifacts import build_from
from vlmc import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ANSWER = """
import sys
from vlmc import load

with load(sys.argv[1], tiles="single") as model:
    prompts = ["Hello", "Hello " * 600, "What is it? " * 30]
    for answer in model.generate([(None, text) for text in prompts], max_new_tokens=4):
        print(*answer.token_ids)
"""


@pytest.mark.parametrize("scheme", ["none", "fp8"])
def test_a_fresh_machine_without_compiler_answers(
    scheme: str, miniature: Path, tmp_path: Path
) -> None:
    source = build_from(
        miniature,
        tmp_path / "artifact",
        (
            "vision.engines=[{engine: inductor}]",
            "vision.precision=fp16",
            f"language.scheme={scheme}",
            "model.dtype=bf16",
        ),
    )
    tools = tmp_path / "no-tools"
    tools.mkdir()
    fresh = {
        name: str(tmp_path / name.lower())
        for name in ("HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(source)],
        env=kept | fresh | {"PATH": str(tools), "CC": "/nonexistent/cc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with load(source, tiles="single") as model:
        prompts = ["Hello", "Hello " * 600, "What is it? " * 30]
        answers = model.generate([(None, text) for text in prompts], max_new_tokens=4)
    assert done.stdout.splitlines() == [" ".join(map(str, one.token_ids)) for one in answers]
