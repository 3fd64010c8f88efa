"""What AOTInductor packages are bound to, as far as no GPU tells it."""

from __future__ import annotations

import subprocess
import sys

import torch

from vlmc.machine.aoti_environment import torch_cuda


def test_cuda_of_torch_is_read_without_importing_it() -> None:
    code = "import sys; from vlmc.machine.aoti_environment import torch_cuda; print(torch_cuda())"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == torch_cuda() == (torch.version.cuda or "none")
