"""Batches of windows -> batches of crops, each row on the device that will train on it."""

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
    """Compiles what `ops.augment` does for the devices of a mesh; no row leaves its device.

    Args:
      mesh: its data axis shares the batch.
      crop_size: (height, width) of the crops.
      pad_pixel: beyond the image.
      ignore_label: the label there.
      photometric: False: the batch's `colors` are not looked at.
    """
    cut = functools.partial(augment, crop_size=crop_size, pad_pixel=pad_pixel, ignore_label=ignore_label)

    def augment_rows(batch: WindowBatch) -> Batch:
        image, label, valid, geometry, colors = (jnp.asarray(rows) for rows in batch)
        return Batch(*cut(image, label, geometry, colors if photometric else None), valid)

    rows = PartitionSpec(DATA_AXIS)
    return jax.jit(jax.shard_map(augment_rows, mesh=mesh, in_specs=(rows,), out_specs=rows))
