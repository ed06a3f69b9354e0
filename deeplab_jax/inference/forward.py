"""Class probabilities of a batch, fused over scales, flips and windows (DeepLab v2, sec. 3.2; v3, sec. 4.1)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.inference.sliding_windows import sliding_windows
from deeplab_jax.ops.resize import resize_bilinear
from deeplab_jax.ops.tasks import find_task
from deeplab_jax.types import ApplyFn, Image, Logits, Variables

Forward = Callable[[Variables, Image], Float[Array, "b h w c"]]


def make_forward(
    apply_fn: ApplyFn, settings: InferenceConfig, *, align_corners: bool, task: str = "multiclass"
) -> Forward:
    """Returns (variables, images) -> probabilities at the images' own size.

        mean (v3):  p(x) = mean over s in scales, m in {identity, mirror} of P(z_s,m(x))
        max (v2):   p(x) = P(max over the same of z_s,m(x))
        z_s,m(x) = m(resize(logits(m(resize(x, s))), x))

    P makes the task's probabilities: the softmax, or the sigmoid of each logit; those of a binary task are two, of the
    background and of the object. With a single scale of 1 and no flip, both are the plain P of the logits.

    Args:
      apply_fn: (variables, images, train=False) -> logits at its input's size.
      settings: scales, flip and windows; read when the returned function is called.
      align_corners: convention for resizing images and logits.
      task: of the logits.
    """
    to_probabilities = find_task(task).probabilities

    def whole(variables: Variables, images: Image) -> Logits:
        return apply_fn(variables, images, train=False).astype(jnp.float32)

    def logits_of(variables: Variables, images: Image) -> Logits:
        apply: Callable[[Image], Logits] = functools.partial(whole, variables)
        if settings.window != (0, 0):
            apply = sliding_windows(apply, settings)
        return apply(images)

    def forward(variables: Variables, images: Image) -> Float[Array, "b h w c"]:
        size = (images.shape[1], images.shape[2])
        passes = []
        for scale in settings.scales:
            inputs = _resized(images, scaled_size(size, scale), align_corners)
            for mirrored in (False, True) if settings.flip else (False,):
                logits = logits_of(variables, inputs[:, :, ::-1] if mirrored else inputs)
                logits = _resized(logits, size, align_corners)
                passes.append(logits[:, :, ::-1] if mirrored else logits)
        if settings.fuse == "max":
            return to_probabilities(functools.reduce(jnp.maximum, passes))
        probabilities = [to_probabilities(logits) for logits in passes]
        return sum(probabilities[1:], start=probabilities[0]) / len(passes)

    return forward


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, keeping the corner pixels' centres: size 1 + k becomes 1 + floor(k * scale)."""
    height, width = (int((axis - 1) * scale + 1) for axis in size)
    return height, width


def _resized(x: Array, size: tuple[int, int], align_corners: bool) -> Array:
    if x.shape[1:3] == size:  # exact, and uint8 stays uint8
        return x
    return resize_bilinear(x.astype(jnp.float32), size, align_corners=align_corners)
