"""TensorRT and TensorRT-RTX on the GPU; both packages have the same interface here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmc.artifact.manifest import EngineRecord
from vlmc.errors import HardwareError
from vlmc.machine.gpu import driver_version, gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.runtime.engines.batching import Run, split
from vlmc.runtime.engines.kernel_cache import KernelCache

_INPUT, _OUTPUT = "tiles", "features"
_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}
# What TensorRT asks of every address.
_ALIGNMENT_BYTES = 256


class TensorRTEngine:
    """An engine with one execution context for each profile, which share their device memory.

    Contexts never run at once: a run on another stream than the last waits for that one.
    """

    def __init__(self, file: Path, entry: EngineRecord, device: torch.device, sha256: str) -> None:
        """Deserialize the engine `file`, whose digest, package, version and GPU have been checked.

        Raises:
            HardwareError: TensorRT rejects the engine, or the GPU has too little memory for it.
        """
        self.name, self.precision = entry.engine, entry.precision
        self.profiles, self.device = entry.profiles, device
        tensorrt = importlib.import_module(PACKAGES[entry.engine].module)
        logger, last_error = _logger(tensorrt)
        what = f"{entry.engine} {tensorrt.__version__}"
        with torch.cuda.device(device):
            self._runtime = tensorrt.Runtime(logger)
            self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
            if self._engine is None:
                raise HardwareError(
                    f"{what} cannot load {file} on {device}: {last_error()}. Build it for this "
                    f"machine with `vlmc rebuild ARTIFACT --engine {entry.engine} --target "
                    f"{entry.target}`."
                )
            self._check_profiles(file)
            self._dtype = _DTYPES[self._engine.get_tensor_dtype(_OUTPUT).name]
            self._feature_shape = tuple(self._engine.get_tensor_shape(_OUTPUT))[1:]
            self.device_memory_bytes = self._needed_bytes(file)
            self._memory = torch.empty(
                self.device_memory_bytes, dtype=torch.uint8, device=device
            )  # aligned to 512 bytes by torch
            how: Any = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._kernels: KernelCache | None = None
            if entry.engine == "tensorrt-rtx":
                config = self._engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(how)
                self._kernels = KernelCache(config, _kernel_key(tensorrt, device, sha256))
                how = config
            stream = torch.cuda.current_stream(device)
            self._contexts = []
            for index in range(len(self.profiles)):
                context = self._engine.create_execution_context(how)
                if context is None:
                    raise HardwareError(
                        f"{what} cannot run profile {index} of {file}: {last_error()}"
                    )
                context.set_device_memory(self._memory.data_ptr(), self.device_memory_bytes)
                if not context.set_optimization_profile_async(index, stream.cuda_stream):
                    raise HardwareError(f"{what} has no profile {index} in {file}: {last_error()}")
                self._contexts.append(context)
            stream.synchronize()
        self._last_stream = stream
        self._last_error = last_error
        self._ran: set[int] = set()

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden); see `VisionEngine`."""
        stream = torch.cuda.current_stream(self.device) if stream is None else stream
        if stream != self._last_stream:
            stream.wait_stream(self._last_stream)
            self._last_stream = stream
        start = 0
        with torch.cuda.stream(stream):
            if out is None:
                out = self._features(len(tiles))
            for run in split(len(tiles), self.profiles):
                part = slice(start, start + run.tiles)
                self._run(run, tiles[part], out[part], stream)
                start += run.tiles
                self._keep_kernels(run.profile, stream)
        return out

    def close(self) -> None:
        """Free contexts, engine and memory, in TensorRT's order."""
        self._last_stream.synchronize()
        if self._kernels is not None:
            self._kernels.save()
        self._contexts.clear()
        del self._kernels, self._engine, self._runtime, self._memory

    def _run(self, run: Run, tiles: Tensor, out: Tensor, stream: torch.cuda.Stream) -> None:
        """Run one batch from `tiles` into `out`, through memory of its own where it is padded."""
        source, target = _aligned(tiles), out
        if run.batch > run.tiles:
            source = tiles.new_zeros((run.batch, *tiles.shape[1:]))
            source[: run.tiles] = tiles
        # The engine writes the dtype that it was built with, to aligned memory without gaps.
        direct = out.dtype == self._dtype and out.is_contiguous() and _is_aligned(out)
        if run.batch > run.tiles or not direct:
            target = self._features(run.batch)
        context = self._contexts[run.profile]
        done = (
            context.set_input_shape(_INPUT, tuple(source.shape))
            and context.set_tensor_address(_INPUT, source.data_ptr())
            and context.set_tensor_address(_OUTPUT, target.data_ptr())
            and context.execute_async_v3(stream.cuda_stream)
        )
        if not done:
            raise HardwareError(
                f"{self.name} failed on {run.batch} tiles in profile {run.profile}: "
                f"{self._last_error()}"
            )
        if target is not out:
            out.copy_(target[: run.tiles])

    def _keep_kernels(self, profile: int, stream: torch.cuda.Stream) -> None:
        """After a profile's first run, so that a process that is killed leaves them too."""
        if self._kernels is not None and profile not in self._ran:
            stream.synchronize()
            self._kernels.save()
        self._ran.add(profile)

    def _features(self, count: int) -> Tensor:
        shape = (count, *self._feature_shape)
        return torch.empty(shape, dtype=self._dtype, device=self.device)

    def _check_profiles(self, file: Path) -> None:
        """Check that the engine has the manifest's profiles, by which batches are split."""
        found = [
            tuple(int(shape[0]) for shape in self._engine.get_tensor_profile_shape(_INPUT, index))
            for index in range(self._engine.num_optimization_profiles)
        ]
        expected = [(profile.min, profile.opt, profile.max) for profile in self.profiles]
        if found != expected:
            raise HardwareError(
                f"{file} has the profiles {found}, but the manifest has {expected}; build the "
                "artifact again"
            )

    def _needed_bytes(self, file: Path) -> int:
        """Device memory of the profile that takes most, which must be free."""
        needed = [
            int(self._engine.get_device_memory_size_for_profile_v2(index))
            for index in range(len(self.profiles))
        ]
        most = max(needed)
        free, _ = torch.cuda.mem_get_info(self.device)
        if most > free:
            profile = self.profiles[needed.index(most)]
            raise HardwareError(
                f"{file}: the profile with max {profile.max} needs {most:,} bytes on "
                f"{self.device}, where {free:,} are free. Free some, or build the artifact with "
                "a smaller max in vision.profiles."
            )
        return most


def _kernel_key(tensorrt: Any, device: torch.device, sha256: str) -> dict[str, str]:
    return {
        "plan": sha256,
        "tensorrt": tensorrt.__version__,
        "gpu": gpu_of(device.index or 0).name,
        "driver": driver_version() or "",
    }


def _aligned(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor if _is_aligned(tensor) else tensor.clone()


def _is_aligned(tensor: Tensor) -> bool:
    return tensor.data_ptr() % _ALIGNMENT_BYTES == 0


def _logger(tensorrt: Any) -> tuple[Any, Callable[[], str]]:
    """A logger for TensorRT that prints nothing, and what gives its last error."""
    errors: list[str] = []

    class Quiet(tensorrt.ILogger):  # type: ignore[misc]  # known at run time only
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                errors[:] = [message.strip()]

    return Quiet(), lambda: errors[0] if errors else "no reason given"
