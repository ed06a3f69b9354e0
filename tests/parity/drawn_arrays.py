"""Weights and images that a name and a shape alone determine, the same on every machine and in every system.

They are made of a bit generator's raw numbers, whose stream NumPy guarantees, by exact arithmetic. Weights keep the
variance of activations, so that float32 and a tolerance mean the same in the last layer as in the first.
"""

from __future__ import annotations

import re
import zlib

import numpy as np

_DAMPING = 0.25


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers, evenly spread over (-1, 1)."""
    size = int(np.prod(shape))
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-size // 4)).astype("<u8").view("<u2")[:size]
    return ((bits.astype(np.float32) + 0.5) / 32768 - 1).reshape(shape)


def drawn_weight(name: str, shape: tuple[int, ...], damped: str = "", gain: float = 1.0) -> np.ndarray:
    """An array of a PyTorch network, running statistics of batch norm too.

    Kernels have variance 1 / fan-in and the batch norm behind them doubles it on average (its variances are spread
    over 0.2 to 1), which a ReLU halves.

    Args:
      name: in its state dict.
      shape: there.
      damped: matches the names of the scales at the ends of residual branches, which are made smaller: without that
        each addition doubles the variance.
      gain: factor on kernels: the root of 2 where no batch norm is behind them.
    """
    if not shape:  # batch norm's counter
        return np.zeros(shape, np.int64)
    spread = uniform(name, shape)
    if len(shape) > 1:
        return spread * np.float32(gain * np.sqrt(3 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return 0.6 + 0.4 * spread
    if name.endswith(("bias", "running_mean")):
        return 0.2 * spread
    scale = 1 + 0.5 * spread
    return scale * np.float32(_DAMPING) if damped and re.fullmatch(damped, name) else scale


def drawn_images(name: str, size: tuple[int, int]) -> np.ndarray:
    """uint8 [1, h, w, 3]: blocks of colour, which survive averaging, and noise."""
    height, width = size
    blocks = uniform(f"{name} blocks {size}", (-(-height // 24), -(-width // 24), 3))
    blocks = blocks.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]
    noise = uniform(f"{name} noise {size}", (height, width, 3))
    return (127.5 + 80 * blocks + 47 * noise).astype(np.uint8)[None]


def sample_ids(name: str, size: tuple[int, int], num_values: int, num_samples: int) -> np.ndarray:
    """Which of an output's values a golden file keeps."""
    return np.random.PCG64(zlib.crc32(f"{name} samples {size}".encode())).random_raw(num_samples) % num_values
