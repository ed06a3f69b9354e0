"""Devices as a mesh: batches are split along its 'data' axis, everything else is copied to all."""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"

Tree = TypeVar("Tree")


def make_mesh(num_data: int = 0) -> Mesh:
    """A one-axis mesh over the first `num_data` devices; 0: all of them.

    Raises:
      ValueError: when there are fewer devices than asked for.
    """
    devices = jax.devices()
    num_data = num_data or len(devices)
    if num_data > len(devices):
        raise ValueError(f"{num_data} devices asked for, {len(devices)} present ({devices[0].platform})")
    # Auto axes: bincount and contractions over the batch are the partitioner's work, not ours.
    return Mesh(np.asarray(devices[:num_data]), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of the leading axis spread over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts this process's rows of a batch (a tree of NumPy arrays) on its devices of the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)
