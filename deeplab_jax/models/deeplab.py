"""A whole network: images to logits at the images' size."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import Image, Logits, Normalization


class DeepLab(nn.Module):
    """Normalises, extracts features, classifies them, and resizes the logits: the one place that does.

    Attributes:
      backbone: images -> features by stride.
      head: features -> logits at a stride of its own.
      normalization: of RGB images in [0, 255], done on the device.
      align_corners: how logits are resized.
    """

    backbone: nn.Module
    head: nn.Module
    normalization: Normalization
    align_corners: bool

    def __call__(self, images: Image, *, train: bool = False) -> Logits:
        mean = jnp.asarray(self.normalization.mean, jnp.float32)
        std = jnp.asarray(self.normalization.std, jnp.float32)
        x = (images.astype(jnp.float32) - mean[None, None, None]) / std[None, None, None]
        logits = self.head(self.backbone(x, train=train), train=train)
        size = (images.shape[1], images.shape[2])
        return resize_bilinear(logits.astype(jnp.float32), size, align_corners=self.align_corners)
