"""All implementations of convolution, and the table that chooses one by platform and shape.

`lax` (`lax.conv_general_dilated` with `rhs_dilation`, and its transposes) runs everywhere and is the default for
platforms without a row. Rows are justified by timings: benchmarks/convolutions.py times every implementation of a
platform's rows, and fails if another one than the chosen is faster over the shapes that a row decides.

CPU: XLA multiplies the padding of dilated kernels and expands depthwise kernels to dense ones, 10 to 1000 times the
work. Winograd filtering halves the rest. Winograd and depthwise regions take too long to compile for small maps.

CUDA: XLA does not lower the kernel gradient of a dilated convolution to cuDNN, but to a forward convolution whose
window is the whole map; chosen by the bytes accessed by the compiled programs (benchmarks/compile_convolutions.py), not
timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Array

from deeplab_jax.ops.convolution import (
    dense_taps,
    depthwise_fused,
    depthwise_regions,
    space_to_batch,
    spans,
    tap_windows,
    winograd,
)
from deeplab_jax.ops.convolution.geometry import (
    Geometry,
    lax_dense,
    lax_dense_input,
    lax_dense_kernel,
    lax_depthwise,
    lax_depthwise_input,
    lax_depthwise_kernel,
    lax_grouped,
    lax_grouped_input,
    lax_grouped_kernel,
)

# (x, kernel, geometry) forward, (x, kernel, dy, geometry) for the two gradients
Implementation = Callable[..., Array]

LAX = "lax"
IMPLEMENTATIONS: Mapping[str, Mapping[str, Implementation]] = {
    "dense": {
        LAX: lax_dense,
        "taps": dense_taps.dense_taps,
        "channelwise": tap_windows.dense_channelwise,
        "winograd": winograd.dense_winograd,
    },
    "dense_input": {
        LAX: lax_dense_input,
        "taps": dense_taps.dense_input_taps,
        "winograd": winograd.dense_input_winograd,
    },
    "dense_kernel": {
        LAX: lax_dense_kernel,
        "taps": dense_taps.dense_kernel_taps,
        "winograd": winograd.dense_kernel_winograd,
        "phases": space_to_batch.phased_dense_kernel,
        "fewer_bytes": space_to_batch.phases_or_taps,
    },
    "grouped": {LAX: lax_grouped},
    "grouped_input": {LAX: lax_grouped_input},
    "grouped_kernel": {LAX: lax_grouped_kernel},
    "depthwise": {
        LAX: lax_depthwise,
        "regions": depthwise_regions.depthwise_regions,
        "fused": depthwise_fused.depthwise_fused,
    },
    "depthwise_input": {
        LAX: lax_depthwise_input,
        "regions": depthwise_regions.depthwise_input_regions,
        "fused": depthwise_fused.depthwise_input_fused,
    },
    "depthwise_kernel": {
        LAX: lax_depthwise_kernel,
        "taps": depthwise_regions.depthwise_kernel_taps,
        "joint": depthwise_regions.depthwise_kernel_joint,
        "fused": depthwise_fused.depthwise_kernel_fused,
    },
}


def serves(implementation: str, x: Array, kernel: Array, geometry: Geometry) -> bool:
    """Whether an implementation supports this convolution; most support all. Needs only shapes."""
    if implementation == "winograd":
        return winograd.share_needed(x, kernel, geometry) < float("inf")
    return implementation != "channelwise" or math.prod(kernel.shape[:3]) <= tap_windows.MAX_CHANNELWISE


class Row(NamedTuple):
    """The conditions of a row, and the implementation it chooses."""

    platform: str
    operation: str
    implementation: str
    max_window: int = 1 << 30  # taps along an axis
    min_rate: int = 1
    min_stride: int = 1
    min_channels: int = 0  # of the input and of the output
    max_channels: int = 1 << 30  # of the input
    max_inside: float = 1.0  # at most this share of the products is with pixels rather than padding
    max_winograd: float = float("inf")  # at most this ratio of winograd.py's products to those with pixels
    min_pixels: int = 0  # of an image

    def applies(self, x: Array, kernel: Array, geometry: Geometry) -> bool:
        window = max(kernel.shape[:2])
        rate = max(geometry.rate) if window > 1 else 1  # a single tap has no holes
        return (
            window <= self.max_window
            and rate >= self.min_rate
            and max(geometry.strides) >= self.min_stride
            and min(x.shape[-1], kernel.shape[-1]) >= self.min_channels
            and x.shape[-1] <= self.max_channels
            and (self.max_inside >= 1 or spans.share_inside(x, kernel, geometry) <= self.max_inside)
            and (self.max_winograd == float("inf") or self._share_of_winograd(x, kernel, geometry) <= self.max_winograd)
            and spans.num_pixels(x) >= self.min_pixels
        )

    def _share_of_winograd(self, x: Array, kernel: Array, geometry: Geometry) -> float:
        return winograd.share_needed(x, kernel, geometry) / max(spans.share_inside(x, kernel, geometry), 1e-9)


# The first row that applies decides.
TABLE: tuple[Row, ...] = (
    Row("cpu", "dense", "taps", max_window=1),
    Row("cpu", "dense", "channelwise", max_window=3, max_channels=4),
    Row("cpu", "dense", "winograd", min_channels=128, max_winograd=0.85, min_pixels=1000),
    Row("cpu", "dense", "taps", min_rate=3, max_inside=0.8),
    Row("cpu", "dense_input", "taps", max_window=1),
    Row("cpu", "dense_input", "winograd", min_channels=128, max_channels=1024, max_winograd=0.85, min_pixels=1000),
    Row("cpu", "dense_input", "taps", min_stride=2, min_channels=16),
    Row("cpu", "dense_input", "taps", min_rate=3, max_inside=0.8),
    Row("cpu", "dense_kernel", LAX, max_channels=15),  # the channels of an image: too few for a matmul
    Row("cpu", "dense_kernel", "winograd", min_channels=128, max_winograd=0.85, min_pixels=1000),
    Row("cpu", "dense_kernel", "winograd", min_channels=64, max_winograd=0.85, min_pixels=10000),
    Row("cpu", "dense_kernel", "taps"),
    Row("cpu", "depthwise", "regions", min_pixels=256),
    Row("cpu", "depthwise", "fused"),
    Row("cpu", "depthwise_input", "regions", min_pixels=256),
    Row("cpu", "depthwise_input", "fused"),
    Row("cpu", "depthwise_kernel", "joint", min_pixels=256),
    Row("cpu", "depthwise_kernel", "fused"),
    Row("cuda", "dense_kernel", "fewer_bytes", min_rate=2),
    Row("cuda", "depthwise_kernel", "taps", min_rate=2),
)
PLATFORMS: tuple[str, ...] = tuple(sorted({row.platform for row in TABLE}))


def choose(platform: str, operation: str, x: Array, kernel: Array, geometry: Geometry) -> Implementation:
    """The implementation that the table chooses for this operation on these arrays."""
    return IMPLEMENTATIONS[operation][deciding_row(platform, operation, x, kernel, geometry).implementation]


def deciding_row(platform: str, operation: str, x: Array, kernel: Array, geometry: Geometry) -> Row:
    """The first row that applies, or one for `lax` if there is none. Needs only shapes."""
    for row in TABLE:
        if (row.platform, row.operation) == (platform, operation) and row.applies(x, kernel, geometry):
            return row
    return Row(platform, operation, LAX)
