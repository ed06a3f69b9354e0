"""Learning rate schedules, each found by its name: (settings, number of steps) -> step -> learning rate."""

from __future__ import annotations

import optax

from deeplab_jax.train.settings import OptimizerConfig


def poly(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """end + (start - end) (1 - t / num_steps)^power. Source: DeepLab v2 (1606.00915), sec. 4.1.2."""
    return optax.polynomial_schedule(config.learning_rate, config.end_learning_rate, config.poly_power, num_steps)


def step(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """start step_factor^floor(t / step_size). Source: DeepLab v1 (1412.7062), sec. 5."""
    return optax.exponential_decay(config.learning_rate, config.step_size, config.step_factor, staircase=True)


def exponential(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """start step_factor^(t / step_size), but never below the end."""
    end = config.end_learning_rate or None
    return optax.exponential_decay(config.learning_rate, config.step_size, config.step_factor, end_value=end)


def cosine(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """end + (start - end) (1 + cos(π t / num_steps)) / 2. Source: SGDR (1608.03983), one period."""
    share = config.end_learning_rate / config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, num_steps, alpha=share)


def one_cycle(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """By half cosines from start / 25 to start in 0.3 of the steps, then to start / 250,000: PyTorch's OneCycleLR.

    Source: 1708.07120.
    """
    return optax.cosine_onecycle_schedule(num_steps, config.learning_rate)


def constant(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """start."""
    return optax.constant_schedule(config.learning_rate)
