"""DeepLab v2's multi-scale network, fused by maximum over image sizes (1606.00915, sec. 3.2 and 4.1)."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import Image


class MultiScaleDeepLab(DeepLab):
    """One network with shared weights on several sizes of each image; logits are the maximum over sizes.

        logits(x) = max over s in scales of resize(scores(resize(x, s)), size of scores(resize(x, scales[0])))

    In training the logits of each scale are recorded in the collection SIDE_LOGITS: v2's loss is the sum over the fused
    logits and these.

    Attributes:
      scales: factors on height and width, the finest first.
      others: as for `DeepLab`.
    """

    scales: tuple[float, ...] = (1.0, 0.75, 0.5)

    def __call__(self, images: Image, *, train: bool = False) -> Float[Array, "b lh lw classes"]:
        size = (images.shape[1], images.shape[2])
        x = self.normalize(images)
        pyramid = []
        for scale in self.scales:
            resized = resize_bilinear(x, self._scaled(size, scale), align_corners=self.align_corners)
            pyramid.append(self.scores(resized, train=train).astype(jnp.float32))
            if train:
                self.record(self.at_size(pyramid[-1], size, train=True))
        finest = (pyramid[0].shape[1], pyramid[0].shape[2])
        same_size = [resize_bilinear(scores, finest, align_corners=self.align_corners) for scores in pyramid]
        return self.finished(functools.reduce(jnp.maximum, same_size), images, train=train)

    def _scaled(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """With aligned corners k + 1 becomes k * scale + 1; otherwise k becomes k * scale."""
        if self.align_corners:
            height, width = (int((axis - 1) * scale) + 1 for axis in size)
        else:
            height, width = (max(int(axis * scale), 1) for axis in size)
        return height, width
