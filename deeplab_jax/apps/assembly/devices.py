"""The devices of a run, and a check that its batches divide evenly over them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from deeplab_jax.config import Config
from deeplab_jax.ops import mesh as meshes
from deeplab_jax.types import UserError


def make_mesh(config: Config, devices: Sequence[jax.Device] = ()) -> Mesh:
    """The mesh of the run's devices, or of `devices` if it is only compiled for them.

    Raises:
      UserError: if there are fewer than requested.
    """
    try:
        return meshes.make_mesh(config.mesh.data, config.mesh.space, devices)
    except ValueError as error:
        space = f", config.mesh.space={config.mesh.space}" if config.mesh.space > 1 else ""
        raise UserError(f"config.mesh.data={config.mesh.data}{space}: {error}; 0 takes all there are") from None


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raises UserError if the training batch does not divide evenly over the devices."""
    rows, num_groups = config.data.batch_size // config.train.accumulation_steps, meshes.num_data(mesh)
    if rows % num_groups:
        most = max(count for count in range(1, num_groups + 1) if rows % count == 0)
        sharing = "devices" if num_groups == mesh.size else f"groups of {mesh.size // num_groups} devices"
        raise UserError(
            f"config.data.batch_size={config.data.batch_size}: {rows} images at a time do not divide over "
            f"{num_groups} {sharing}; change it, or set config.mesh.data={most}"
        )
