"""Settings shared by all layers of a network."""

import dataclasses

from deeplab_jax.fields import at_least, one_of, within


# Hashed by value, since it becomes an attribute of modules; each network gets a copy.
@dataclasses.dataclass(slots=True, unsafe_hash=True)
class BatchNormConfig:
    """Batch normalisation throughout the network; each part has its own epsilon."""

    decay: float = within(0, 1, open_high=True, default=0.9997)  # weight of the OLD statistic (the papers' value)
    # At update t the decay is min(decay, (1 + t) / (10 + t)). Without it, the statistics of a run of some hundred
    # updates are those of weights long gone, and an evaluation scores another network than the one that is trained.
    start_correction: bool = False
    # Consecutive examples that share statistics. 0: the whole global batch, over all devices. -1: those of one
    # device, or of one group of devices that share images.
    group_size: int = at_least(-1, default=0, words="-1 (those of a device), 0 (the whole batch) or a number of images")
    # Of n values, the batch's variance enters the running one as the sum of squares over n - 1 ('unbiased': PyTorch,
    # TensorFlow's fused kernels) or n ('biased': Flax). Image pooling has as few values as a batch has images.
    running_variance: str = one_of("unbiased", "biased", default="unbiased")
    frozen: bool = False  # use the running statistics in training too, and do not update them
