"""Cross-entropy over pixels, of a softmax or of sigmoids, with an ignore label, class weights and hard-pixel mining."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deeplab_jax.losses.pixels import negative_log_likelihood, split_maps, sum_over_maps, sum_over_pixels
from deeplab_jax.types import Label, Logits


def softmax_cross_entropy(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    top_k_fraction: float | Float[Array, ""] = 1.0,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of -w[y] Σ_k q_k log softmax(logits)_k over the counted pixels; the loss is sum / weight.

        q = (1 - ε) onehot(y) + ε / c,   ε = label_smoothing

    They are returned separately so that micro-batches and hosts can add theirs before a single division: a mean of
    means would weight every micro-batch equally, however much of it is ignored.

    With both smoothing and class weights, a pixel's whole loss is weighted by its class, as in TensorFlow; PyTorch
    weights each class's share of q by that class.

    Args:
      logits: f32 or narrower, [b, h, w, c]; computed in float32.
      label: [b, h, w], in [0, c) or `ignore_label`. Any other value makes the sum NaN: the non-finite guard of training
        then names the batch's files, whereas a wrapped or clipped index would silently train a wrong class.
      ignore_label: pixels that never count, neither in the sum nor in the weight.
      class_weights: one factor per class for the pixels of that class. None: all 1.
      top_k_fraction: share, in (0, 1], of each image's counted pixels that is kept, highest loss first; ties with the
        last kept pixel are kept too. May be traced.
      label_smoothing: ε, in [0, 1).

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if `class_weights` does not have one entry per class, or the smoothing is out of range.

    Source: label smoothing: Inception v3 (1512.00567), sec. 7

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0, 0.0], [0.0, 2.0]]]])  # one image of 1 x 2 pixels, two classes
      >>> label = jnp.array([[[0, 255]]], jnp.uint8)  # the second pixel does not count
      >>> total, weight = dl.losses.softmax_cross_entropy(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.1269
    """
    _check_smoothing(label_smoothing)
    logits = logits.astype(jnp.float32)
    loss = negative_log_likelihood(logits, label.astype(jnp.int32), ignore_label=ignore_label)
    if label_smoothing:
        uniform = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
    return sum_over_pixels(
        loss,
        label,
        num_classes=logits.shape[-1],
        ignore_label=ignore_label,
        class_weights=class_weights,
        top_k_fraction=top_k_fraction,
    )


def sigmoid_cross_entropy(
    logits: Logits,
    label: Label,
    *,
    ignore_label: int,
    class_weights: Sequence[float] | None = None,
    top_k_fraction: float | Float[Array, ""] = 1.0,
    label_smoothing: float = 0.0,
    pos_weight: float | Sequence[float] = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum and weight of -w (v q log p + (1 - q) log (1 - p)) over the counted pixels, p = sigmoid(logits).

        q = (1 - ε) y + ε / 2,   ε = label_smoothing,   v = pos_weight

    For one logit z it is the softmax cross-entropy of the two logits 0 and z.

    Args:
      logits: f32 or narrower, [b, h, w, 1] (binary) or [b, h, w, c] (multilabel); computed in float32.
      label: 0, 1 or `ignore_label`, [b, h, w] or [b, h, w, c]; any other value makes the sum NaN.
      ignore_label: pixels that never count, in the map of each class by itself.
      class_weights: binary: of the background's and of the object's pixels; multilabel: of each class. They count in
        the weight too. None: all 1.
      top_k_fraction: share, in (0, 1], of the counted pixels of each image and logit that is kept, highest loss first.
      label_smoothing: ε, in [0, 1).
      pos_weight: v, positive: a factor on the pixels of the class, one for all classes or one for each, which does not
        count in the weight; above 1 it favours recall.

    Returns:
      (sum, weight), two float32 scalars; both 0 if every pixel is ignored.

    Raises:
      ValueError: if weights do not have one entry per class, a parameter is out of range, or the shapes are others.

    Example:
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> logits = jnp.array([[[[2.0], [0.0]]]])  # one image of 1 x 2 pixels
      >>> label = jnp.array([[[1, 255]]], jnp.uint8)  # the object; the second pixel does not count
      >>> total, weight = dl.losses.sigmoid_cross_entropy(logits, label, ignore_label=255)
      >>> print(f"{total / weight:.4f}")
      0.1269
    """
    _check_smoothing(label_smoothing)
    maps = split_maps(logits, label, ignore_label=ignore_label)
    target = (1.0 - label_smoothing) * maps.truth + label_smoothing / 2
    factor = _positive_weights(pos_weight, logits.shape[-1], num_images=logits.shape[0])[:, None, None]
    loss = factor * target * jax.nn.softplus(-maps.logits) + (1.0 - target) * jax.nn.softplus(maps.logits)
    return sum_over_maps(loss, maps, label, class_weights=class_weights, top_k_fraction=top_k_fraction)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing}: must be in [0, 1)")


def _positive_weights(pos_weight: float | Sequence[float], num_logits: int, *, num_images: int) -> Float[Array, "m"]:
    """The factor of each map."""
    factors = np.atleast_1d(np.asarray(pos_weight, np.float32))
    if factors.shape not in ((1,), (num_logits,)) or not (factors > 0).all():
        raise ValueError(
            f"pos_weight={pos_weight}: must be one positive number, or one for each of {num_logits} classes"
        )
    return jnp.asarray(np.tile(np.broadcast_to(factors, num_logits), num_images))
