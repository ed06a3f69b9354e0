"""Augmentation on the devices: batches of windows -> batches of crops, each row on the device that trains on it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from deeplab_jax.ops.augment import augment
from deeplab_jax.ops.mesh import DATA_AXIS
from deeplab_jax.types import Batch, Pixel, WindowBatch


def make_augment(
    mesh: Mesh,
    *,
    crop_size: tuple[int, int],
    pad_pixel: Pixel,
    ignore_label: int,
    photometric: bool,
) -> Callable[[WindowBatch], Batch]:
    """Jits `ops.augment` for the devices of a mesh; no row leaves its device.

    Args:
      mesh: the batch is sharded along its data axis.
      crop_size: (height, width).
      pad_pixel: value of pixels outside the image; their label is `ignore_label`.
      photometric: whether to use the batch's `colors`.
    """
    cut = functools.partial(augment, crop_size=crop_size, pad_pixel=pad_pixel, ignore_label=ignore_label)

    def augment_rows(batch: WindowBatch) -> Batch:
        image, label, valid, geometry, colors = (jnp.asarray(rows) for rows in batch)
        return Batch(*cut(image, label, geometry, colors if photometric else None), valid)

    rows = PartitionSpec(DATA_AXIS)
    return jax.jit(jax.shard_map(augment_rows, mesh=mesh, in_specs=(rows,), out_specs=rows))
