"""Choose the device on which calibration runs the fp32 tower."""

from __future__ import annotations

import torch

from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import Checkpoint
from vlmc.progress.channel import report
from vlmc.progress.events import Note

_FP32_BYTES = 4


def calibration_device(checkpoint: Checkpoint, *, copies: int, working_bytes: int) -> torch.device:
    """The GPU if its free memory suffices, otherwise the CPU.

    Reports a note if the GPU has too little free memory.

    Args:
        checkpoint: the source of the tower.
        copies: number of fp32 copies of the tower.
        working_bytes: memory for activations.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    tensors = tower_tensors(checkpoint.weights, checkpoint.config)
    parameters = sum(tensor.numel() for _, tensor in tensors)
    needed = copies * _FP32_BYTES * parameters + working_bytes
    free, _ = torch.cuda.mem_get_info()
    if free >= needed:
        return torch.device("cuda", torch.cuda.current_device())
    report(
        Note(
            f"calibrating on the CPU: {torch.cuda.get_device_name()} has {free / 1e9:.1f} GB free, "
            f"but the fp32 tower needs {needed / 1e9:.1f} GB"
        )
    )
    return torch.device("cpu")
