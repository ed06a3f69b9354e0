"""Momentum SGD, as in the papers, and other optimisers; poly and step schedules; weight decay on kernels only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import traverse_util

from deeplab_jax.train.settings import OptimizerConfig
from deeplab_jax.types import UserError


def make_optimizer(
    config: OptimizerConfig, num_steps: int, params: Any
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The update rule, in units of the learning rate, and the learning rate's schedule.

        SGD:    v <- momentum v + (g + weight_decay p),               p <- p - r(t) m v
        AdamW:  p <- p - r(t) m (adam(g) + weight_decay p),   b1 = momentum, b2 = 0.999
        LARS:   v <- momentum v + trust(g + weight_decay p),  p <- p - r(t) m v
        LAMB:   p <- p - r(t) m trust(adam(g) + weight_decay p)

        trust(u) = coefficient |p| / |u| u, for kernels (depthwise ones too) whose norms are not 0; else u

    where m is the parameter's learning-rate multiplier and norms are over whole kernels. Batch norm's scales and biases
    and all other biases are neither decayed nor rescaled: their norms say nothing about the step size they tolerate.
    The coefficient is `trust_coefficient` for LARS, 1 for LAMB.

    The transformation returns the last factor of each right-hand side; the train step multiplies it by -r(t), where t
    is the state's own step, so that a skipped update cannot make two counters disagree.

    Source: LARS: 1708.03888, algorithm 1, with the learning rate outside of the momentum, as for SGD here;
    LAMB: 1904.00962, algorithm 2.

    Args:
      num_steps: of the whole run, where the poly schedule ends.
      params: the parameter tree, or its shapes.

    Raises:
      UserError: if a pattern in `learning_rate_multipliers` is not a regular expression or matches no parameter.
    """
    decayed = _decay_mask(params, config.decay_depthwise)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.name == "adamw":
        parts += [optax.scale_by_adam(b1=config.momentum), decay]
    elif config.name == "lamb":
        parts += [optax.scale_by_adam(b1=config.momentum, eps=1e-6), decay, _trust(params, 1.0)]
    elif config.name == "lars":
        parts += [decay, _trust(params, config.trust_coefficient), optax.trace(config.momentum)]
    else:
        parts += [decay, optax.trace(config.momentum)]
    if config.learning_rate_multipliers:
        parts.append(_scale_by(_multipliers(params, config.learning_rate_multipliers)))
    return optax.chain(*parts), make_schedule(config, num_steps)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """The learning rate at step t, times min(1, t / warmup_steps).

        poly:  end + (start - end) (1 - t / num_steps)^power
        step:  start step_factor^floor(t / step_size)

    Source: DeepLab v2 (1606.00915), sec. 4.1.2 (poly); v1 (1412.7062), sec. 5 (step).
    """
    if config.schedule == "step":
        schedule = optax.exponential_decay(config.learning_rate, config.step_size, config.step_factor, staircase=True)
    else:
        schedule = optax.polynomial_schedule(
            config.learning_rate, config.end_learning_rate, config.poly_power, num_steps
        )
    if not config.warmup_steps:
        return schedule
    warmup = optax.linear_schedule(0.0, 1.0, config.warmup_steps)
    return lambda step: warmup(step) * schedule(step)


def _decay_mask(params: Any, decay_depthwise: bool) -> Any:
    """True for kernels; False for batch norm's scale and bias and for other biases."""
    return _where_named(params, {"kernel", "depthwise_kernel"} if decay_depthwise else {"kernel"})


def _trust(params: Any, coefficient: float) -> optax.GradientTransformation:
    kernels = _where_named(params, {"kernel", "depthwise_kernel"})
    return optax.masked(optax.scale_by_trust_ratio(trust_coefficient=coefficient), kernels)


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
