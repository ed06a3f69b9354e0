"""Class probabilities of a batch, averaged over scales and mirror images (DeepLab v3, sec. 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import ApplyFn, Image, Variables

Forward = Callable[[Variables, Image], Float[Array, "b h w c"]]


def make_forward(apply_fn: ApplyFn, *, scales: Sequence[float], flip: bool, align_corners: bool) -> Forward:
    """Returns (variables, images) -> probabilities at the images' own size.

    p(x) = mean over s in scales, m in {identity, mirror} of softmax(m(resize(logits(m(resize(x, s))), x)))

    With one scale of 1 and no flip it is the plain softmax of the logits.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      scales: positive factors on the image's height and width.
      flip: average over each image's mirror image too.
      align_corners: the convention in which images and logits are resized.
    """

    def forward(variables: Variables, images: Image) -> Float[Array, "b h w c"]:
        size = (images.shape[1], images.shape[2])
        passes = []
        for scale in scales:
            inputs = _resized(images, scaled_size(size, scale), align_corners)
            for mirrored in (False, True) if flip else (False,):
                logits = apply_fn(variables, inputs[:, :, ::-1] if mirrored else inputs, train=False)
                logits = _resized(logits.astype(jnp.float32), size, align_corners)
                passes.append(jax.nn.softmax(logits[:, :, ::-1] if mirrored else logits))
        return sum(passes[1:], start=passes[0]) / len(passes)

    return forward


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, the corner pixels' centres kept: size 1 + k becomes 1 + floor(k * scale)."""
    height, width = (int((axis - 1) * scale + 1) for axis in size)
    return height, width


def _resized(x: Array, size: tuple[int, int], align_corners: bool) -> Array:
    if x.shape[1:3] == size:  # exact, and bytes stay bytes
        return x
    return resize_bilinear(x.astype(jnp.float32), size, align_corners=align_corners)
