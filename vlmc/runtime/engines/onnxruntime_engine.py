"""ONNX Runtime on the CPU, which runs every artifact whose graph has kernels there."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf
from torch import Tensor

from vlmc.artifact.manifest import Profile
from vlmc.errors import HardwareError, IntegrityError

# A 300M tower at fp32 holds about 60 MiB of activations a tile.
BATCH_TILES = 13


class OnnxRuntimeEngine:
    """The artifact's ONNX graph on the CPU.

    Any number of tiles runs, so no batch is padded; batches are no larger than the largest
    profile, which bounds the memory, or than 13 without profiles.
    """

    name = "onnxruntime"
    device = torch.device("cpu")
    device_memory_bytes = 0  # it is the machine's own memory

    def __init__(
        self,
        graph: Path,
        precision: str,
        profiles: tuple[Profile, ...] = (),
        threads: int | None = None,
    ) -> None:
        self.precision, self.profiles = precision, profiles
        self.batch_tiles = max((profile.max for profile in profiles), default=BATCH_TILES)
        try:
            self._session = open_session(graph, precision, threads)
        except InvalidProtobuf as error:
            raise IntegrityError(
                f"{graph} is not an ONNX graph. Build the artifact again."
            ) from error
        except Exception as error:  # onnxruntime raises many types of its own
            raise HardwareError(
                f"onnxruntime {onnxruntime.__version__} cannot load {graph}: {error}. Install the "
                "version that the artifact's manifest names, or build the artifact again."
            ) from error
        ends = (self._session.get_inputs(), self._session.get_outputs())
        if [[end.name for end in side] for side in ends] != [["tiles"], ["features"]]:
            self.close()
            raise IntegrityError(
                f"{graph} is not a vision tower's graph, from tiles to features. Build the "
                "artifact again."
            )

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden); see `VisionEngine`.

        Raises:
            HardwareError: the graph fails, as where memory is short.
        """
        try:
            parts = [
                torch.from_numpy(self._session.run(["features"], {"tiles": part.numpy()})[0])
                for part in torch.split(tiles, self.batch_tiles)
            ]
        except Exception as error:  # onnxruntime raises many types of its own
            raise HardwareError(
                f"onnxruntime {onnxruntime.__version__} cannot run the vision tower on "
                f"{min(len(tiles), self.batch_tiles)} tiles: {error}. Free memory if it lacks "
                "some, or build the artifact again."
            ) from error
        return torch.cat(parts, out=out)

    def close(self) -> None:
        """Free the session."""
        del self._session


def open_session(
    graph: Path, precision: str, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A session on the CPU for a graph of a vision precision; all cores without `threads`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    # Spinning threads would take the cores from torch, which runs right after.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if precision == "fp8":
        # Fusing Q/DQ nodes makes operators of fp8 that have no kernels; unfused they are exact.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
