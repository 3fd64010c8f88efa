"""Random tensors that are the same on every machine and with every library version."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def draw(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Float32 of mean 0 and standard deviation 1, bell shaped, bounded by ±3.47.

    Each value is the sum of the four 16-bit words of one raw 64-bit draw: NumPy keeps raw draws
    stable across versions, which it does not promise of `standard_normal`. The stream depends on
    the tensor's name, so that a changed tensor leaves the others as they are.
    """
    generator = np.random.PCG64([seed, zlib.crc32(name.encode())])
    count = int(np.prod(shape))
    words = np.asarray(generator.random_raw(count), dtype="<u8").view("<u2").reshape(count, 4)
    total: NDArray[np.float64] = words.astype(np.float64).sum(axis=1) - 2 * 65535
    scaled: NDArray[np.float32] = (total / (65536 / np.sqrt(3.0))).astype(np.float32)
    return scaled.reshape(shape)


def matrix(
    name: str, outputs: int, inputs: int, seed: int, gain: float = 1.0
) -> NDArray[np.float32]:
    """A weight (outputs, inputs) that turns inputs of deviation 1 into outputs of `gain`."""
    return draw(name, (outputs, inputs), seed) * np.float32(gain / np.sqrt(inputs))


def around(name: str, size: int, seed: int, centre: float, spread: float) -> NDArray[np.float32]:
    """A vector (size,) about `centre` with standard deviation `spread`."""
    return draw(name, (size,), seed) * np.float32(spread) + np.float32(centre)
