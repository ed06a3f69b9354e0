"""A mesh of devices with two axes: 'data' splits the batch, 'space' the height of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
SPACE_AXIS = "space"

Tree = TypeVar("Tree")


def make_mesh(num_data: int = 0, num_space: int = 1, devices: Sequence[jax.Device] = ()) -> Mesh:
    """A mesh of `num_data` x `num_space` devices, ordered by process.

    Args:
      num_data: parts that the batch is split into; 0: as many as the devices allow.
      num_space: devices that each image's height is split over.
      devices: to choose from, for example of a topology to compile for; empty: all that JAX has.

    Raises:
      ValueError: when there are too few devices; or, with several processes, when some devices would be idle or an
        image would be split over two processes.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    num_data = num_data or max(len(devices) // num_space, 1)
    num_wanted = num_data * num_space
    if num_wanted > len(devices):
        raise ValueError(f"{num_wanted} devices asked for, {len(devices)} present ({devices[0].platform})")
    num_processes = len({device.process_index for device in devices})
    if num_processes > 1:
        num_local = len(devices) // num_processes
        if num_wanted < len(devices):
            raise ValueError(f"{num_wanted} of {len(devices)} devices asked for: several processes must use all")
        if num_local % num_space:
            raise ValueError(f"{num_space} devices for an image are no divisor of the {num_local} that a process has")
    grid = np.asarray(devices[:num_wanted]).reshape(num_data, num_space)
    # Auto axes: leave bincount and contractions over the batch to the partitioner.
    return Mesh(grid, (DATA_AXIS, SPACE_AXIS), axis_types=(AxisType.Auto,) * 2)


def num_data(mesh: Mesh) -> int:
    """Parts into which a batch is split."""
    return mesh.shape[DATA_AXIS]


def idle_devices(mesh: Mesh) -> list[jax.Device]:
    """Devices that the mesh does not use."""
    used = set(mesh.devices.flat)
    return [device for device in jax.devices() if device not in used]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis sharded over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_longest_axis(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """An array sharded over the data axis along its longest divisible axis; replicated if there is none."""
    fitting = [axis for axis, size in enumerate(shape) if size and size % num_data(mesh) == 0]
    if not fitting:
        return replicated(mesh)
    longest = max(fitting, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, DATA_AXIS))


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts this process's rows of a batch (a tree of NumPy arrays) on its devices of the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def split_height(batch: Tree, mesh: Mesh) -> Tree:
    """Inside a compiled function: shards the height of images and labels over the space axis.

    The partitioner does the rest: it exchanges the halo rows of convolutions and reduces image-level averages. The
    height need not be divisible: the last strip is padded internally.
    """
    if mesh.shape[SPACE_AXIS] == 1:
        return batch
    strips = NamedSharding(mesh, PartitionSpec(DATA_AXIS, SPACE_AXIS))

    def split(array: Any) -> Any:
        return jax.lax.with_sharding_constraint(array, strips) if array.ndim > 2 else array

    return jax.tree.map(split, batch)
