"""Settings of what all layers of a network share."""

import dataclasses

from deeplab_jax.fields import at_least, within


# Hashed by its values, since it becomes an attribute of modules; a network is given a copy.
@dataclasses.dataclass(slots=True, unsafe_hash=True)
class BatchNormConfig:
    """Batch normalisation throughout the network; epsilon belongs to each part."""

    decay: float = within(0, 1, open_high=True, default=0.9997)  # weight of the OLD statistic (the papers' value)
    # Examples that share statistics, in batch order. 0: the whole global batch, over all devices. -1: those of one
    # device, or of one group of devices that share images.
    group_size: int = at_least(-1, default=0, words="-1 (those of a device), 0 (the whole batch) or a number of images")
    frozen: bool = False  # normalise by the stored statistics in training too, and leave them as they are
