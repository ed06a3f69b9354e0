"""Losses: logits and labels -> (sum, weight); the sum over the weight, each over the whole batch, is the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplab_jax import registry

if TYPE_CHECKING:
    from deeplab_jax.losses.combined import add_losses as add_losses
    from deeplab_jax.losses.cross_entropy import sigmoid_cross_entropy as sigmoid_cross_entropy
    from deeplab_jax.losses.cross_entropy import softmax_cross_entropy as softmax_cross_entropy
    from deeplab_jax.losses.dice import sigmoid_dice as sigmoid_dice
    from deeplab_jax.losses.dice import soft_dice as soft_dice
    from deeplab_jax.losses.focal import sigmoid_focal as sigmoid_focal
    from deeplab_jax.losses.focal import softmax_focal as softmax_focal
    from deeplab_jax.losses.lovasz import lovasz_hinge as lovasz_hinge
    from deeplab_jax.losses.lovasz import lovasz_softmax as lovasz_softmax
    from deeplab_jax.losses.tversky import sigmoid_tversky as sigmoid_tversky
    from deeplab_jax.losses.tversky import soft_tversky as soft_tversky
else:
    _NAMES = {
        "combined": ("add_losses",),
        "cross_entropy": ("softmax_cross_entropy", "sigmoid_cross_entropy"),
        "dice": ("soft_dice", "sigmoid_dice"),
        "focal": ("softmax_focal", "sigmoid_focal"),
        "lovasz": ("lovasz_softmax", "lovasz_hinge"),
        "tversky": ("soft_tversky", "sigmoid_tversky"),
    }
    __getattr__, __dir__ = registry.lazy_names(__name__, _NAMES)
