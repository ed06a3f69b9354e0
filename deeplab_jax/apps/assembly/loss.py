"""The loss of a config: a weighted sum of losses found by name and checked on abstract shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deeplab_jax import registry
from deeplab_jax.apps.assembly.class_weights import class_weights
from deeplab_jax.apps.listing import ARGUMENTS
from deeplab_jax.config import LossConfig
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.losses.combined import add_losses
from deeplab_jax.losses.pixels import WrongTaskError
from deeplab_jax.losses.settings import CROSS_ENTROPIES
from deeplab_jax.train.step import StepLoss
from deeplab_jax.types import DatasetInfo, Label, Logits, UserError

_OF_REGIONS = ("dice", "tversky", "lovasz")  # losses of a ratio of areas; those of a binary task have one class


def make_loss(config: LossConfig, info: DatasetInfo, counts: Callable[[], ClassCounts] | None = None) -> StepLoss:
    """(logits, label, step) -> (sum, weight), with the fraction of hard pixels ramped down over the first steps.

    Args:
      counts: class counts of the training split; required if class weights are computed from them.

    Raises:
      UserError: if the number of class weights differs from the number of classes, or a loss rejects its arguments.
    """
    weights = class_weights(config.class_weights, info, counts)
    name = config.name or CROSS_ENTROPIES[info.task]
    parts = [(config.factor, name, config.args), *((each.factor, each.name, each.args) for each in config.added)]
    if weights and info.task == "binary" and all(name.partition(".")[0] in _OF_REGIONS for _, name, _ in parts):
        raise UserError(
            f"config.loss.class_weights: '{name}' of a binary task has one class, the object, so that weights change "
            "nothing; leave them out, or add a cross-entropy"
        )
    losses = [(factor, _bind(name, args, config, info, weights)) for factor, name, args in parts]

    def step_loss(logits: Logits, label: Label, step: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        fraction: Any = config.top_k_fraction
        if config.top_k_ramp_steps and config.top_k_fraction < 1:
            progress = jnp.minimum(step / config.top_k_ramp_steps, 1.0)
            fraction = 1.0 - (1.0 - config.top_k_fraction) * progress
        terms = [(factor, functools.partial(loss, fraction=fraction)) for factor, loss in losses]
        return add_losses(terms)(logits, label)

    return step_loss


def _bind(
    name: str, args: Mapping[str, Any], config: LossConfig, info: DatasetInfo, weights: tuple[float, ...] | None
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """(logits, label, fraction) -> (sum, weight) of one loss, checked on abstract shapes."""
    loss = registry.resolve("losses", name)
    mines = "top_k_fraction" in registry.defaults(loss)
    if config.top_k_fraction < 1 and not mines and name == config.name:
        raise UserError(
            f"config.loss.top_k_fraction={config.top_k_fraction}: '{name}' has no hard-pixel mining; set it to 1"
        )
    taken = sorted({"logits", "label", "ignore_label", "class_weights", "top_k_fraction"} & set(args))
    if taken:
        raise UserError(f"config.loss: the args of '{name}' must not hold '{taken[0]}', which is set by other fields")

    def bound(logits: Logits, label: Label, fraction: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        mining = {"top_k_fraction": fraction} if mines else {}
        return loss(logits, label, ignore_label=info.ignore_label, class_weights=weights, **mining, **args)

    logits = jax.ShapeDtypeStruct((1, 2, 2, info.num_outputs), jnp.float32)
    label = jax.ShapeDtypeStruct((1, 2, 2, *info.label_maps), jnp.int32)
    try:
        jax.eval_shape(functools.partial(bound, fraction=config.top_k_fraction), logits, label)
    except WrongTaskError:
        module = name.partition(".")[0]
        known = registry.factories("losses", ARGUMENTS["losses"]).values()
        others = [f"'{each}'" for each in known if each.partition(".")[0] == module and each != name]
        raise UserError(
            f"config.loss: '{name}' is for another task, data set {info.name} is {info.task}: take "
            f"{' or '.join(others) or CROSS_ENTROPIES[info.task]}"
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(f"config.loss: '{name}': {' '.join(str(error).split())}; correct its args") from None
    return bound
