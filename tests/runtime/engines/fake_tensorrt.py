"""A stand-in for TensorRT's Python module where no GPU is: the calls, their order and addresses.

It computes no tower and says nothing of TensorRT's own behaviour: features are a tile's first
byte. What it serves is to follow a batch through profiles, padding, streams and buffers.
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlmc.artifact.manifest import Profile
from vlmc.machine.gpu import Gpu
from vlmc.runtime.engines import tensorrt_engine

TOKENS, HIDDEN = 256, 4
TILE_BYTES = 448 * 448 * 3
# Torch aligns to this on the CPU, and to more than TensorRT's 256 bytes on a GPU.
ALIGNMENT_BYTES = 64
VERSION = "1.7.1"


class ILogger:
    """The base that loggers derive from."""

    def log(self, severity: Any, message: str) -> None:
        """What TensorRT calls."""


class ExecutionContextAllocationStrategy(Enum):
    """Who allocates a context's memory."""

    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class RuntimeCache:
    """Kernels, here the number of batches that were run."""

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        self.kernels = bytes(blob)
        return True

    def serialize(self) -> bytes:
        return self.kernels


class Context:
    """Runs one profile, and remembers the batches."""

    def __init__(self, profiles: tuple[Profile, ...], cache: RuntimeCache | None) -> None:
        self.cache = cache
        self.profiles, self.profile, self.memory = profiles, -1, (0, 0)
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.ran: list[int] = []
        self.streams: list[int] = []

    def set_device_memory(self, memory: int, size: int) -> None:
        self.memory = (memory, size)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert (name, shape[1:]) == ("tiles", (448, 448, 3))
        self.shape = shape
        profile = self.profiles[self.profile]
        return profile.min <= shape[0] <= profile.max

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % ALIGNMENT_BYTES == 0
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream: int) -> bool:
        count = self.shape[0]
        tiles = (ctypes.c_uint8 * (count * TILE_BYTES)).from_address(self.addresses["tiles"])
        size = count * TOKENS * HIDDEN
        features = (ctypes.c_float * size).from_address(self.addresses["features"])
        for index in range(count):
            part = TOKENS * HIDDEN
            features[index * part : (index + 1) * part] = [float(tiles[index * TILE_BYTES])] * part
        self.ran.append(count)
        if self.cache is not None:
            self.cache.kernels += b"kernel"
        self.streams.append(stream)
        return True


class RuntimeConfig:
    """How contexts are made."""

    strategy = ExecutionContextAllocationStrategy.STATIC

    def __init__(self) -> None:
        self.cache = RuntimeCache()

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class CudaEngine:
    """A plan that was deserialized."""

    def __init__(self, profiles: tuple[Profile, ...], memory_bytes: int) -> None:
        self.profiles, self.memory_bytes = profiles, memory_bytes
        self.num_optimization_profiles = len(profiles)
        self.contexts: list[Context] = []

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        profile = self.profiles[index]
        return [(size, 448, 448, 3) for size in (profile.min, profile.opt, profile.max)]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, TOKENS, HIDDEN)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return self.memory_bytes * self.profiles[index].max

    def create_runtime_config(self) -> RuntimeConfig:
        self.config = RuntimeConfig()
        return self.config

    def create_execution_context(
        self, how: ExecutionContextAllocationStrategy | RuntimeConfig
    ) -> Context:
        cache = None
        if isinstance(how, RuntimeConfig):
            how, cache = how.strategy, how.cache
        assert how is ExecutionContextAllocationStrategy.USER_MANAGED
        self.contexts.append(Context(self.profiles, cache))
        return self.contexts[-1]


class Stream:
    """A CUDA stream that notes which others it waited for."""

    def __init__(self, handle: int) -> None:
        self.cuda_stream, self.waited = handle, list[int]()

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other.cuda_stream)

    def synchronize(self) -> None:
        pass


def fake_module(engine: CudaEngine | None) -> SimpleNamespace:
    """The module; `engine` is what its runtime deserializes, None for a plan that it refuses."""

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> CudaEngine | None:
            self.logger.log(SimpleNamespace(name="ERROR"), " plan of another version \n")
            return engine

    return SimpleNamespace(
        __version__=VERSION,
        ILogger=ILogger,
        Runtime=Runtime,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
    )


def fake_cuda(monkeypatch: pytest.MonkeyPatch, free_bytes: int = 1 << 30) -> Stream:
    """Let torch's CUDA calls act on the CPU; returns the current stream."""
    current = Stream(7)
    monkeypatch.setattr(tensorrt_engine, "_ALIGNMENT_BYTES", ALIGNMENT_BYTES)
    monkeypatch.setattr(tensorrt_engine, "gpu_of", lambda index: Gpu("NVIDIA L4", "sm89", 1 << 30))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, free_bytes))
    return current
