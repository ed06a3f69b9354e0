"""A whole network: images to logits at the images' size."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import SIDE_LOGITS, Image, Logits, Normalization


class DeepLab(nn.Module):
    """Normalises images, extracts features, classifies them, and resizes the logits.

    In training, the logits of the auxiliary head are recorded in the collection SIDE_LOGITS, if it is mutable.

    Attributes:
      backbone: images -> features by name.
      head: features -> logits at the head's stride.
      normalization: of images in their own units, such as RGB in [0, 255]; runs on the device.
      align_corners: how logits are resized.
      auxiliary: a second head, used only in training.
      crf: (logits, images) -> logits at the images' size, applied last.
      upsample_in_training: False: training compares the logits at their own size with downsampled labels (DeepLab v1
        and v2; v3, sec. 4.1, measures the loss in accuracy).
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
        """Images in the data set's units -> the backbone's input."""
        mean = jnp.asarray(self.normalization.mean, jnp.float32)
        std = jnp.asarray(self.normalization.std, jnp.float32)
        return (images.astype(jnp.float32) - mean[None, None, None]) / std[None, None, None]

    def scores(self, x: Float[Array, "b h w bands"], *, train: bool) -> Float[Array, "b lh lw classes"]:
        """Logits of normalised images at the head's stride."""
        features = self.backbone(x, train=train)
        if self.auxiliary is not None and (train or self.is_initializing()):
            side = self.auxiliary(features, train=train)
            self.record(self.at_size(side, (x.shape[1], x.shape[2]), train=train))
        return self.head(features, train=train)

    def finished(
        self, scores: Float[Array, "b h2 w2 classes"], images: Image, *, train: bool
    ) -> Float[Array, "b lh lw classes"]:
        """The network's output: logits at the requested size, refined by the CRF if there is one."""
        logits = self.at_size(scores, (images.shape[1], images.shape[2]), train=train)
        return logits if self.crf is None else self.crf(logits, images, train=train)

    def at_size(self, logits: Float[Array, "b h2 w2 classes"], size: tuple[int, int], *, train: bool) -> Logits:
        """Logits in float32, resized to `size` except in training without `upsample_in_training`."""
        logits = logits.astype(jnp.float32)
        if train and not self.upsample_in_training:
            return logits
        return resize_bilinear(logits, size, align_corners=self.align_corners)

    def record(self, logits: Logits) -> None:
        """Records side logits for the training loss."""
        if not self.is_initializing():
            self.sow(SIDE_LOGITS, "logits", logits)
