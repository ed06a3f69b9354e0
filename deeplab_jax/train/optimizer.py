"""Momentum SGD, as in the papers, and other optimisers; weight decay on kernels, or on all."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from deeplab_jax import registry
from deeplab_jax.train.settings import OptimizerConfig
from deeplab_jax.types import UserError


def make_optimizer(
    config: OptimizerConfig, num_steps: int, params: Any
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The update rule, in units of the learning rate, and the learning rate's schedule.

        SGD:    v <- momentum v + (g + weight_decay p),               p <- p - r(t) m v
        AdamW:  p <- p - r(t) m (adam(g) + weight_decay p),   b1 = momentum, b2 = 0.999
        LARS:   v <- momentum v + l (g + weight_decay p),     p <- p - r(t) m v
        LAMB:   p <- p - r(t) m trust(adam(g) + weight_decay p)

        trust(u) = |p| / |u| u,   l = trust_coefficient |p| / (|g| + weight_decay |p|)

    for kernels (depthwise ones too) whose norms are not 0, else u and 1. m is the parameter's learning-rate multiplier
    and norms are over whole kernels. Batch norm's scales and biases and all other biases are not rescaled: their norms
    say nothing about the step size they tolerate. They decay only with `decay_all`. `args` go to adam(), or to the
    momentum.

    A name with a colon is a factory from outside the project, (learning_rate, ...) -> optax transformation.

    The transformation returns the last factor of each right-hand side; the train step multiplies it by -r(t), where t
    is the state's own step, so that a skipped update cannot make two counters disagree.

    Source: LARS: 1708.03888, algorithm 1, with the learning rate outside of the momentum, as for SGD here;
    LAMB: 1904.00962, algorithm 2.

    Args:
      num_steps: of the whole run, where the poly schedule ends.
      params: the parameter tree, or its shapes.

    Raises:
      UserError: if a pattern in `learning_rate_multipliers` is not a regular expression or matches no parameter; if
        there is no such rule or schedule, or it does not take `args`.
    """
    parts = [optax.clip(config.clip_value)] if config.clip_value else []
    parts += [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    try:
        parts += _outside_rule(config, params) if ":" in config.name else _rule(config, params)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"config.optimizer: '{config.name}': {' '.join(str(error).split())}; correct its args"
        ) from None
    if config.learning_rate_multipliers:
        parts.append(_scale_by(_multipliers(params, config.learning_rate_multipliers)))
    return optax.chain(*parts), make_schedule(config, num_steps)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The learning rate at step t: that of the schedule by its name, times min(1, t / warmup_steps).

    Raises:
      UserError: if there is no such schedule.
    """
    try:
        schedule = _schedule(config.schedule)(config, num_steps)
    except ValueError as error:
        raise UserError(f"config.optimizer.schedule: {' '.join(str(error).split())}") from None
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, 1.0, config.warmup_steps)
    return lambda step: warmup(step) * schedule(step)


def _schedule(name: str) -> Callable[[OptimizerConfig, int], optax.Schedule]:
    return registry.resolve("train", name if ":" in name else f"schedules.{name}")


def _rule(config: OptimizerConfig, params: Any) -> list[optax.GradientTransformation]:
    """The house's own rules; `args` go to their moments."""
    decay = optax.add_decayed_weights(config.weight_decay, mask=_decay_mask(params, config))
    adams = {"eps": 1e-6} if config.name == "lamb" else {}
    known: Callable[..., Any] = optax.scale_by_adam if config.name in ("adamw", "lamb") else optax.trace
    registry.check_arguments(known, config.name, config.args)
    if config.name in ("adamw", "lamb"):
        moments = optax.scale_by_adam(**{"b1": config.momentum, **adams, **config.args})
        return [moments, decay, *([_trust(params)] if config.name == "lamb" else [])]
    first = _lars(config, params) if config.name == "lars" else decay
    return [first, optax.trace(**{"decay": config.momentum, **config.args})]


def _outside_rule(config: OptimizerConfig, params: Any) -> list[optax.GradientTransformation]:
    """A rule from outside the project, (learning_rate, ...) -> transformation, at a learning rate of 1.

    Weight decay is the rule's own where it takes one, with its mask; else it is added to the gradient, as for SGD.
    """
    factory = registry.resolve("train", config.name)
    registry.check_arguments(factory, config.name, config.args)
    accepted, mask = inspect.signature(factory).parameters, _decay_mask(params, config)
    own = {"weight_decay": config.weight_decay, "mask": mask, "weight_decay_mask": mask}
    own = {name: value for name, value in own.items() if name in accepted}
    decay = [] if "weight_decay" in own else [optax.add_decayed_weights(config.weight_decay, mask=mask)]
    return [*decay, factory(learning_rate=1.0, **{**own, **config.args}), optax.scale(-1.0)]


def _decay_mask(params: Any, config: OptimizerConfig) -> Any:
    """Whether a parameter decays: kernels, unless the config asks for all."""
    if config.decay_all:
        return jax.tree.map(lambda _: True, params)
    return _where_named(params, {"kernel", "depthwise_kernel"} if config.decay_depthwise else {"kernel"})


def _trust(params: Any) -> optax.GradientTransformation:
    return optax.masked(optax.scale_by_trust_ratio(), _kernels(params))


def _lars(config: OptimizerConfig, params: Any) -> optax.GradientTransformation:
    """Adds the decay and rescales in one: the divisor is a sum of the norms of gradient and decay, each alone."""

    def rescaled(g: Any, p: Any, is_kernel: bool, is_decayed: bool) -> Any:
        weight_decay = config.weight_decay if is_decayed else 0.0
        update = g + weight_decay * p
        if not is_kernel:
            return update
        length = jnp.linalg.norm(p.ravel())
        divisor = jnp.linalg.norm(g.ravel()) + weight_decay * length
        has_length = (length > 0) & (divisor > 0)
        return (
            jnp.where(has_length, config.trust_coefficient * length / jnp.where(has_length, divisor, 1.0), 1.0) * update
        )

    masks = _kernels(params), _decay_mask(params, config)
    return optax.stateless(lambda updates, values: jax.tree.map(rescaled, updates, values, *masks))


def _kernels(params: Any) -> Any:
    return _where_named(params, {"kernel", "depthwise_kernel"})


def _where_named(params: Any, names: set[str]) -> Any:
    return traverse_util.path_aware_map(lambda path, _: path[-1] in names, params)


def _multipliers(params: Any, patterns: Mapping[str, float]) -> Any:
    """The factor of each parameter: that of the first pattern that matches the start of its path, else 1."""
    compiled = {_compile(pattern): factor for pattern, factor in patterns.items()}
    paths = traverse_util.flatten_dict(params, sep="/")
    for pattern in compiled:
        if not any(pattern.match(path) for path in paths):
            raise UserError(
                f"config.optimizer.learning_rate_multipliers: '{pattern.pattern}' matches no parameter; "
                f"paths look like '{next(iter(paths))}', parts are {', '.join(sorted(params))}"
            )
    factors = {
        path: next((factor for pattern, factor in compiled.items() if pattern.match(path)), 1.0) for path in paths
    }
    return traverse_util.unflatten_dict(factors, sep="/")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"config.optimizer.learning_rate_multipliers: '{pattern}' is no regular expression ({error})"
        ) from None


def _scale_by(factors: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, factors))
