"""Absent accelerators: devices of a named topology that XLA can compile for but not run on.

    v5e:4x4   v4:2x2x1   v5p:4x4x4   v6e:8x8       TPU slices, by libtpu
    h100   h100:8                                  GPUs of one machine, by the compile-only client of the CUDA plugin

Neither needs the hardware, a driver or the network.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from deeplab_jax.hardware.chips import CHIPS, Chip
from deeplab_jax.types import UserError

_REMEDY = {
    "tpu": 'pip install "jax[tpu]"',
    "cuda": f"pip install jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}",
}
_CHIPS_PER_HOST = (2, 2, 1)
# What libtpu would otherwise request from the cloud's metadata server.
_TPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile at once: none of them uses a chip
}
# XLA's description of a GPU, otherwise requested from the driver, in its own text format.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_TARGETS = {"h100": _H100}


class Topology(NamedTuple):
    """A number of chips of one kind, as devices for XLA to compile for."""

    name: str
    chip: Chip
    devices: list[Any]


def find_topology(name: str) -> Topology:
    """The devices of 'KIND:SHAPE', e.g. 'v5e:4x4' or 'h100:8'; only a kind is one chip.

    Raises:
      UserError: for an unknown name, or if the platform's compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    offered = [each for each, chip in CHIPS.items() if chip.platform == "tpu" or each in _TARGETS]
    if kind not in offered or not re.fullmatch(r"(\d+(x\d+){0,2})?", shape) or "0" in shape.split("x"):
        raise UserError(
            f"--topology={name}: must be KIND or KIND:SHAPE like v5e:4x4, v4:2x2x1 or h100:8, "
            f"with KIND one of {', '.join(offered)}"
        )
    chip, sizes = CHIPS[kind], tuple(int(size) for size in shape.split("x")) if shape else (1,)
    try:
        devices = _tpu_devices(kind, sizes) if chip.platform == "tpu" else _gpu_devices(kind, sizes)
    except UserError:
        raise
    except Exception as error:
        # The compilers raise various exceptions for an unknown shape.
        raise UserError(f"--topology={name}: {' '.join(str(error).split())[:300]}") from None
    return Topology(name, chip, devices)


def _tpu_devices(kind: str, sizes: tuple[int, ...]) -> list[Any]:
    _require_module("libtpu", "tpu")
    for variable, value in _TPU_SETTINGS.items():
        os.environ.setdefault(variable, value)
    sizes = (*sizes, 1, 1)[: max(len(sizes), 3)]
    in_host = tuple(min(size, most) for size, most in zip(sizes, _CHIPS_PER_HOST, strict=True))
    return topologies.get_topology_desc(
        f"{kind}:{'x'.join(map(str, sizes))}",
        platform="tpu",
        chip_config_name="megacore" if kind == "v4" else "default",  # as in JAX: two cores form one device
        chips_per_host_bounds=in_host,
        num_slices=1,
    ).devices


def _gpu_devices(kind: str, sizes: tuple[int, ...]) -> list[Any]:
    _require_module("jax_plugins.xla_cuda12", "cuda")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    return topologies.get_topology_desc(
        "", platform="cuda", target_config=_TARGETS[kind], topology=f"1x1x{math.prod(sizes)}"
    ).devices


def _require_module(module: str, platform: str) -> None:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the enclosing package is missing too
        found = False
    if not found:
        raise UserError(f"no compiler for platform '{platform}' is installed: {_REMEDY[platform]}")
