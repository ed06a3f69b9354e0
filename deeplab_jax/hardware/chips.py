"""Accelerators' data sheets: memory, speed and links of one chip, as stated by their makers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_GB, _GIB = 10**9, 2**30


@dataclasses.dataclass(frozen=True, slots=True)
class Chip:
    """One chip, which JAX shows as one device.

    Attributes:
      kind: its name here.
      device_kind: its name in JAX.
      platform: JAX's name of its platform, 'tpu' or 'cuda'.
      memory: bytes of its own memory.
      flops: dense bfloat16 operations per second, multiply and add counted separately.
      memory_bandwidth: bytes per second between that memory and the chip.
      link_bandwidth: bytes per second of all its fast links together, in one direction.
      pod: maximum number of chips connected by these links.
      chips_per_host: number of chips that share a host and its network.
      source: of the numbers.
    """

    kind: str
    device_kind: str
    platform: str
    memory: int
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    pod: int
    chips_per_host: int
    source: str


_TPU = "cloud.google.com/tpu/docs, page of the version; links: its inter-chip bandwidth, half of the two-way figure"
_TPU_V4 = "cloud.google.com/tpu/docs/v4; links: TPU v4 (2304.01433), six of 50 GB/s"
_NVIDIA = "NVIDIA data sheet of the SXM form, without sparsity; links: half of NVLink's two-way figure"

CHIPS: Mapping[str, Chip] = {
    chip.kind: chip
    for chip in (
        Chip("v4", "TPU v4", "tpu", 32 * _GIB, 275e12, 1228e9, 300e9, 4096, 4, _TPU_V4),
        Chip("v5e", "TPU v5 lite", "tpu", 16 * _GIB, 197e12, 819e9, 200e9, 256, 8, _TPU),
        Chip("v5p", "TPU v5", "tpu", 95 * _GIB, 459e12, 2765e9, 600e9, 6144, 4, _TPU),
        Chip("v6e", "TPU v6 lite", "tpu", 32 * _GIB, 918e12, 1638e9, 400e9, 256, 8, _TPU),
        Chip("a100", "NVIDIA A100-SXM4-80GB", "cuda", 80 * _GB, 312e12, 2039e9, 300e9, 8, 8, _NVIDIA),
        Chip("h100", "NVIDIA H100 80GB HBM3", "cuda", 80 * _GB, 989e12, 3352e9, 450e9, 8, 8, _NVIDIA),
        Chip("h200", "NVIDIA H200", "cuda", 141 * _GB, 989e12, 4800e9, 450e9, 8, 8, _NVIDIA),
    )
}


def find_chip(device_kind: str) -> Chip | None:
    """The chip with this name in JAX, or None if its figures are not known."""
    return next((chip for chip in CHIPS.values() if chip.device_kind == device_kind), None)
