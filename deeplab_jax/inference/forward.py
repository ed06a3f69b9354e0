"""Class probabilities of a batch, fused over scales, mirror images and windows (DeepLab v2, sec. 3.2; v3, sec. 4.1)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.inference.sliding_windows import sliding_windows
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.types import ApplyFn, Image, Logits, Variables

Forward = Callable[[Variables, Image], Float[Array, "b h w c"]]
FUSIONS = ("mean", "max")


def make_forward(
    apply_fn: ApplyFn,
    *,
    scales: Sequence[float],
    flip: bool,
    align_corners: bool,
    fuse: str = "mean",
    window: tuple[int, int] = (0, 0),
    stride: tuple[int, int] = (1, 1),
    blend: str = "smooth",
) -> Forward:
    """Returns (variables, images) -> probabilities at the images' own size.

        mean (v3):  p(x) = mean over s in scales, m in {identity, mirror} of softmax(z_s,m(x))
        max (v2):   p(x) = softmax(max over the same of z_s,m(x))
        z_s,m(x) = m(resize(logits(m(resize(x, s))), x))

    With one scale of 1 and no flip both are the plain softmax of the logits.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      scales: positive factors on the image's height and width.
      flip: fuse with each image's mirror image too.
      align_corners: the convention in which images and logits are resized.
      fuse: 'mean' of the probabilities, or 'max' of the logits.
      window: (height, width) of the windows in which the network sees each scaled image; (0, 0): whole.
      stride: pixels between two windows.
      blend: how windows are weighed where they overlap; see `windows.window_weights`.
    """

    def whole(variables: Variables, images: Image) -> Logits:
        return apply_fn(variables, images, train=False).astype(jnp.float32)

    def logits_of(variables: Variables, images: Image) -> Logits:
        apply: Callable[[Image], Logits] = functools.partial(whole, variables)
        if window != (0, 0):
            apply = sliding_windows(apply, window=window, stride=stride, blend=blend)
        return apply(images)

    def forward(variables: Variables, images: Image) -> Float[Array, "b h w c"]:
        size = (images.shape[1], images.shape[2])
        passes = []
        for scale in scales:
            inputs = _resized(images, scaled_size(size, scale), align_corners)
            for mirrored in (False, True) if flip else (False,):
                logits = logits_of(variables, inputs[:, :, ::-1] if mirrored else inputs)
                logits = _resized(logits, size, align_corners)
                passes.append(logits[:, :, ::-1] if mirrored else logits)
        if fuse == "max":
            return jax.nn.softmax(functools.reduce(jnp.maximum, passes))
        probabilities = [jax.nn.softmax(logits) for logits in passes]
        return sum(probabilities[1:], start=probabilities[0]) / len(passes)

    return forward


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, the corner pixels' centres kept: size 1 + k becomes 1 + floor(k * scale)."""
    height, width = (int((axis - 1) * scale + 1) for axis in size)
    return height, width


def default_stride(window: tuple[int, int]) -> tuple[int, int]:
    """Pixels between two windows: two thirds of their size, as is usual; 341 for 512."""
    height, width = (max(1, axis * 2 // 3) for axis in window)
    return height, width


def _resized(x: Array, size: tuple[int, int], align_corners: bool) -> Array:
    if x.shape[1:3] == size:  # exact, and bytes stay bytes
        return x
    return resize_bilinear(x.astype(jnp.float32), size, align_corners=align_corners)
