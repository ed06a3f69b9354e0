"""Several losses added, with a factor for each: still one sum over one weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from deeplab_jax.types import Label, Logits

Total: TypeAlias = tuple[Float[Array, ""], Float[Array, ""]]  # sum and weight
Loss: TypeAlias = Callable[[Logits, Label], Total]


def add_losses(terms: Sequence[tuple[float, Loss]]) -> Loss:
    """The loss Σ_k f_k L_k of pairs (f_k, L_k), at least one.

    Terms may have different weights (one uses hard-pixel mining, one does not), so their sums cannot be added directly.
    Each image's mean terms are added, and weighted by the image's weight in the first term:

        sum = Σ_i W_i1 Σ_k f_k S_ik / W_ik,   weight = Σ_i W_i1,   (S_ik, W_ik) = L_k of image i

    The first term is unchanged by the others, and sums and weights of micro-batches add up to the batch's. A term whose
    weight is 0 in an image is 0 there.

    Example:
      >>> import functools
      >>> import jax.numpy as jnp
      >>> import deeplab_jax as dl
      >>> terms = (dl.losses.softmax_cross_entropy, dl.losses.soft_dice)
      >>> loss = dl.losses.add_losses([(1.0, functools.partial(term, ignore_label=255)) for term in terms])
      >>> total, weight = loss(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 4, 4), jnp.uint8))
      >>> print(f"{total / weight:.4f}")
      1.0265
    """
    if len(terms) == 1:
        factor, loss = terms[0]
        return lambda logits, label: _scaled(factor, loss(logits, label))

    def of_image(
        logits: Float[Array, "h w c"], label: Integer[Array, "h w *planes"]
    ) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
        totals = [loss(logits[None], label[None]) for _, loss in terms]
        sums, weights = zip(*totals, strict=True)
        return jnp.stack(sums), jnp.stack(weights)

    def combined(logits: Logits, label: Label) -> Total:
        factors = jnp.asarray([factor for factor, _ in terms], jnp.float32)
        sums, weights = jax.vmap(of_image)(logits, label)
        own_weight = weights[:, :1]
        # The ratio is exactly 1 for the first term.
        share = jnp.where(weights > 0, own_weight / jnp.where(weights > 0, weights, 1.0), 0.0)
        return jnp.sum(factors[None] * sums * share), jnp.sum(own_weight)

    return combined


def _scaled(factor: float, total: Total) -> Total:
    return factor * total[0], total[1]
