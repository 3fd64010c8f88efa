"""Calibration takes a GPU that has room, and says so where it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.calibration.device import calibration_device
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Note

WORKING = 1 << 20


@pytest.mark.parametrize("copies", [1, 2])
def test_room_decides(copies: int, miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    with open_checkpoint(miniature) as checkpoint, receiving(events.append):
        tensors = tower_tensors(checkpoint.weights, checkpoint.config)
        needed = WORKING + 4 * copies * sum(tensor.numel() for _, tensor in tensors)
        chosen = []
        for free in (needed, needed - 1):
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some card")
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 1 << 40))
            chosen.append(calibration_device(checkpoint, copies=copies, working_bytes=WORKING))
    assert [device.type for device in chosen] == ["cuda", "cpu"]
    (event,) = events
    assert isinstance(event, Note)
    assert event.text.startswith("calibrating on the CPU: some card has ")


def test_without_a_gpu_there_is_nothing_to_say(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    events: list[Event] = []
    with open_checkpoint(miniature) as checkpoint, receiving(events.append):
        device = calibration_device(checkpoint, copies=1, working_bytes=WORKING)
    assert (device.type, events) == ("cpu", [])
