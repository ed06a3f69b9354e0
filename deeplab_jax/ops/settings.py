"""Settings of the mesh of devices."""

import dataclasses

from deeplab_jax.fields import at_least


@dataclasses.dataclass(slots=True)
class MeshConfig:
    """Devices as data x space; with several processes, all devices must be used."""

    data: int = at_least(0, default=0, words="a number of devices, or 0 for all")  # parts that the batch is split into
    space: int = at_least(1, default=1, words="a number of devices")  # devices per part: they split each image's height
    shard_optimizer: bool = False  # each part keeps a shard of the optimiser state instead of a copy
