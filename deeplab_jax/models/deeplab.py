"""A whole network: images to logits at the images' size."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import SIDE_LOGITS, Image, Logits, Normalization


class DeepLab(nn.Module):
    """Normalises, extracts features, classifies them, and resizes the logits: the one place that does.

    In training, the logits of the auxiliary head are recorded in the collection SIDE_LOGITS, if it is mutable.

    Attributes:
      backbone: images -> features by name.
      head: features -> logits at a stride of its own.
      normalization: of images in their own units, as RGB in [0, 255], done on the device.
      align_corners: how logits are resized.
      auxiliary: a second head, of training alone; None: there is none.
      crf: (logits, images) -> logits at the images' size, behind everything else; None: there is none.
      upsample_in_training: False: training compares the logits at their own size with shrunken labels
        (DeepLab v1 and v2; v3, sec. 4.1, measures what it costs).
    """

    backbone: nn.Module
    head: nn.Module
    normalization: Normalization
    align_corners: bool
    auxiliary: nn.Module | None = None
    crf: nn.Module | None = None
    upsample_in_training: bool = True

    def __call__(self, images: Image, *, train: bool = False) -> Float[Array, "b lh lw classes"]:
        logits = self.scores(self.normalize(images), train=train)
        return self.finished(logits, images, train=train)

    def normalize(self, images: Image) -> Float[Array, "b h w bands"]:
        """Images as the data set has them -> what the backbone was made for."""
        mean = jnp.asarray(self.normalization.mean, jnp.float32)
        std = jnp.asarray(self.normalization.std, jnp.float32)
        return (images.astype(jnp.float32) - mean[None, None, None]) / std[None, None, None]

    def scores(self, x: Float[Array, "b h w bands"], *, train: bool) -> Float[Array, "b lh lw classes"]:
        """Logits of normalised images at the head's own stride."""
        features = self.backbone(x, train=train)
        if self.auxiliary is not None and (train or self.is_initializing()):
            side = self.auxiliary(features, train=train)
            self.record(self.at_size(side, (x.shape[1], x.shape[2]), train=train))
        return self.head(features, train=train)

    def finished(
        self, scores: Float[Array, "b h2 w2 classes"], images: Image, *, train: bool
    ) -> Float[Array, "b lh lw classes"]:
        """The network's result: the scores at the size that is wanted, refined by the CRF where there is one."""
        logits = self.at_size(scores, (images.shape[1], images.shape[2]), train=train)
        return logits if self.crf is None else self.crf(logits, images, train=train)

    def at_size(self, logits: Float[Array, "b h2 w2 classes"], size: tuple[int, int], *, train: bool) -> Logits:
        """The logits as they leave the network: float32, resized to `size` unless training wants them as they are."""
        logits = logits.astype(jnp.float32)
        if train and not self.upsample_in_training:
            return logits
        return resize_bilinear(logits, size, align_corners=self.align_corners)

    def record(self, logits: Logits) -> None:
        """Hands logits to training that are not the network's result."""
        if not self.is_initializing():
            self.sow(SIDE_LOGITS, "logits", logits)
