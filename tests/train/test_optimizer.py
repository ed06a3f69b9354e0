"""The optimisers against NumPy by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import OptimizerConfig
from deeplab_jax.train.optimizer import make_optimizer, make_schedule
from deeplab_jax.types import UserError

NUM_STEPS = 10


@pytest.fixture
def params(rng):
    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "backbone": {
            "conv": {"kernel": draw(3, 3, 2, 4), "bias": draw(4)},
            "bn": {"scale": draw(4), "bias": draw(4)},
            "depthwise": {"depthwise_kernel": draw(3, 3, 1, 4)},
        },
        "head": {"logits": {"kernel": draw(1, 1, 4, 3), "bias": draw(3)}},
    }


def flat(tree, prefix=""):
    if not isinstance(tree, dict):
        return {prefix[:-1]: np.asarray(tree)}
    return {key: value for name, part in tree.items() for key, value in flat(part, f"{prefix}{name}/").items()}


def gradients_at(params, step):
    rng = np.random.default_rng([11, step])
    return {key: rng.normal(size=value.shape).astype(np.float32) for key, value in flat(params).items()}


def unflat(values, like, prefix=""):
    if not isinstance(like, dict):
        return values[prefix[:-1]]
    return {name: unflat(values, part, f"{prefix}{name}/") for name, part in like.items()}


def run(config, params, num_steps=4):
    """The parameters after some steps with made-up gradients, as the train step applies the rule."""
    tx, learning_rate = make_optimizer(config, NUM_STEPS, params)
    opt_state = tx.init(params)
    values = params
    for step in range(num_steps):
        direction, opt_state = tx.update(unflat(gradients_at(params, step), params), opt_state, values)
        rate = float(learning_rate(step))
        values = unflat(
            {key: value - rate * flat(direction)[key] for key, value in flat(values).items()},
            params,
        )
    return flat(values)


def rate_at(config, step):
    poly = (config.learning_rate - config.end_learning_rate) * (1 - step / NUM_STEPS) ** config.poly_power
    return (config.end_learning_rate + poly) * (min(1, step / config.warmup_steps) if config.warmup_steps else 1)


def is_decayed(key, config):
    kernels = key.endswith("/kernel") or (config.decay_depthwise and key.endswith("depthwise_kernel"))
    return kernels or config.decay_all


def sgd_by_hand(config, params, factor_of, num_steps=4):
    values = {key: value.astype(np.float64) for key, value in flat(params).items()}
    velocity = {key: np.zeros_like(value) for key, value in values.items()}
    for step in range(num_steps):
        gradients = gradients_at(params, step)
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
        shrink = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        for key in values:
            decay = config.weight_decay if is_decayed(key, config) else 0.0
            velocity[key] = config.momentum * velocity[key] + shrink * gradients[key] + decay * values[key]
            values[key] = values[key] - rate_at(config, step) * factor_of(key) * velocity[key]
    return values


def assert_same(got, want):
    for key in want:
        np.testing.assert_allclose(got[key], want[key], atol=2e-6, err_msg=key)  # float32 against float64


@pytest.mark.parametrize("decayed", [{}, {"decay_depthwise": True}, {"decay_all": True}])
@pytest.mark.parametrize("clip_norm", [0.0, 1.5])
def test_sgd_is_momentum_with_decay_in_the_gradient(params, decayed, clip_norm):
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.2, **decayed, clip_norm=clip_norm, warmup_steps=3)
    assert_same(run(config, params), sgd_by_hand(config, params, lambda key: 1.0))


def test_the_first_matching_multiplier_counts(params):
    multipliers = {"backbone/bn": 0.0, "backbone": 0.1, "head/.*bias": 20.0}
    config = OptimizerConfig(learning_rate=0.1, learning_rate_multipliers=multipliers)

    def factor_of(key):
        if key.startswith("backbone/bn"):
            return 0.0
        return 0.1 if key.startswith("backbone") else 20.0 if key == "head/logits/bias" else 1.0

    got = run(config, params)
    assert_same(got, sgd_by_hand(config, params, factor_of))
    np.testing.assert_array_equal(got["backbone/bn/scale"], params["backbone"]["bn"]["scale"])


class Moments:
    """Adam's two averages of one array's gradients, by hand."""

    def __init__(self):
        self.first = self.second = 0.0
        self.count = 0

    def step(self, gradient, epsilon):
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.astype(np.float64) ** 2
        mean_square = self.second / (1 - 0.999**self.count)
        return self.first / (1 - 0.9**self.count) / (np.sqrt(mean_square) + epsilon)


def test_adamw_decays_beside_the_moments(params):
    config = OptimizerConfig(name="adamw", learning_rate=0.1, weight_decay=0.2)
    values = {key: value.astype(np.float64) for key, value in flat(params).items()}
    moments = {key: Moments() for key in values}
    for step in range(4):
        for key, g in gradients_at(params, step).items():
            adam = moments[key].step(g, 1e-8)
            decay = config.weight_decay * values[key] if is_decayed(key, config) else 0.0
            values[key] = values[key] - rate_at(config, step) * (adam + decay)
    got = run(config, params)
    for key in values:
        # Adam divides by a root of float32 squares: about 1e-5 of each of four unit updates.
        np.testing.assert_allclose(got[key], values[key], atol=2e-5, err_msg=key)


def test_schedule_starts_at_zero_with_warmup_and_ends_at_its_end():
    config = OptimizerConfig(learning_rate=0.5, end_learning_rate=0.01, warmup_steps=4)
    schedule = make_schedule(config, NUM_STEPS)
    got = [float(schedule(jnp.int32(step))) for step in range(NUM_STEPS + 1)]
    np.testing.assert_allclose(got, [rate_at(config, step) for step in range(NUM_STEPS + 1)], rtol=1e-5)
    assert got[0] == 0
    assert got[-1] == pytest.approx(0.01)


def test_a_pattern_that_matches_nothing_is_a_users_mistake(params):
    config = OptimizerConfig(learning_rate_multipliers={"bakcbone/.*": 0.1})
    with pytest.raises(UserError, match=r"'bakcbone/\.\*' matches no parameter.*backbone, head"):
        make_optimizer(config, NUM_STEPS, params)


def test_a_broken_pattern_is_a_users_mistake(params):
    config = OptimizerConfig(learning_rate_multipliers={"backbone/(": 0.1})
    with pytest.raises(UserError, match="no regular expression"):
        make_optimizer(config, NUM_STEPS, params)


def trusted(key, values, update):
    """`update`, rescaled to its kernel's length."""
    if not key.endswith("kernel"):
        return update
    return np.linalg.norm(values[key]) / np.linalg.norm(update) * update


def test_lars_rescales_and_decays_kernels_alone(params):
    config = OptimizerConfig(name="lars", learning_rate=2.0, weight_decay=0.2, trust_coefficient=0.05, warmup_steps=3)
    values = {key: value.astype(np.float64) for key, value in flat(params).items()}
    velocity = dict.fromkeys(values, 0.0)
    for step in range(4):
        for key, g in gradients_at(params, step).items():
            decay = config.weight_decay if is_decayed(key, config) else 0.0
            length = np.linalg.norm(values[key])
            rate = 0.05 * length / (np.linalg.norm(g) + decay * length) if key.endswith("kernel") else 1.0
            velocity[key] = 0.9 * velocity[key] + rate * (g + decay * values[key])
            values[key] = values[key] - rate_at(config, step) * velocity[key]
    got = run(config, params)
    for key in values:
        # Steps of up to 20 units here (biases, which are not rescaled), in float32.
        np.testing.assert_allclose(got[key], values[key], atol=2e-5, err_msg=key)


def test_lamb_rescales_adams_step_to_the_kernels_length(params):
    config = OptimizerConfig(name="lamb", learning_rate=0.1, weight_decay=0.2)
    values = {key: value.astype(np.float64) for key, value in flat(params).items()}
    moments = {key: Moments() for key in values}
    for step in range(4):
        for key, g in gradients_at(params, step).items():
            adam = moments[key].step(g, 1e-6)
            decay = config.weight_decay if is_decayed(key, config) else 0.0
            values[key] = values[key] - rate_at(config, step) * trusted(key, values, adam + decay * values[key])
    got = run(config, params)
    for key in values:
        np.testing.assert_allclose(got[key], values[key], atol=5e-5, err_msg=key)  # as AdamW, times the ratio


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_kernel_of_zeros_moves_by_its_plain_update(params, name):
    params["head"]["logits"]["kernel"][:] = 0
    config = OptimizerConfig(name=name, learning_rate=0.1, momentum=0.0)
    got = run(config, params, num_steps=1)["head/logits/kernel"]
    gradient = gradients_at(params, 0)["head/logits/kernel"]
    update = gradient if name == "lars" else np.sign(gradient)  # Adam's first step, without momentum
    np.testing.assert_allclose(got, -0.1 * update, rtol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "peer"),
    [
        ("cosine", lambda t: 0.01 + 0.49 * (1 + np.cos(np.pi * t / NUM_STEPS)) / 2),
        ("exponential", lambda t: 0.5 * 0.1 ** (t / 4)),
        ("constant", lambda t: 0.5),
    ],
)
def test_schedules_follow_their_equations(schedule, peer):
    config = OptimizerConfig(learning_rate=0.5, schedule=schedule, step_size=4)
    config.end_learning_rate = 0.01 if schedule == "cosine" else 0.0
    got = [float(make_schedule(config, NUM_STEPS)(step)) for step in range(NUM_STEPS + 1)]
    np.testing.assert_allclose(got, [peer(step) for step in range(NUM_STEPS + 1)], rtol=1e-5)


def test_one_cycle_rises_for_three_tenths_of_the_steps():
    schedule = make_schedule(OptimizerConfig(learning_rate=0.5, schedule="one_cycle"), 100)
    got = [float(schedule(step)) for step in (0, 15, 30, 65, 100)]
    np.testing.assert_allclose(got, [0.02, (0.02 + 0.5) / 2, 0.5, 0.25, 0.5 / 250_000], rtol=1e-4)


def test_a_rule_of_optax_is_found_by_its_name(params):
    config = OptimizerConfig(name="optax:lion", args={"b1": 0.8}, learning_rate=0.1, weight_decay=0.2)
    got, values = run(config, params, num_steps=1), flat(params)
    for key, gradient in gradients_at(params, 0).items():
        decay = 0.2 * values[key] if is_decayed(key, config) else 0.0
        np.testing.assert_allclose(got[key], values[key] - 0.1 * (np.sign(gradient) + decay), atol=1e-6, err_msg=key)


def test_a_rule_without_weight_decay_gets_it_in_the_gradient(params):
    named = OptimizerConfig(name="optax:sgd", args={"momentum": 0.9}, learning_rate=0.1, weight_decay=0.2)
    assert_same(run(named, params), run(OptimizerConfig(learning_rate=0.1, weight_decay=0.2), params))


@pytest.mark.parametrize("name", ["optax:contrib.muon", "optax:lamb", "optax:rmsprop"])
def test_any_rule_of_optax_moves_each_parameter(params, name):
    got = run(OptimizerConfig(name=name, learning_rate=0.1), params, num_steps=1)
    assert all(np.isfinite(got[key]).all() and not np.array_equal(got[key], flat(params)[key]) for key in got)


def test_gradients_are_bounded_number_by_number(params):
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0, momentum=0.0, clip_value=0.25)
    got = run(config, params, num_steps=1)
    for key, gradient in gradients_at(params, 0).items():
        np.testing.assert_allclose(got[key], flat(params)[key] - gradient.clip(-0.25, 0.25), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "optax:lyon"}, "no 'lyon' in .*did you mean 'lion'"),
        ({"name": "optax:lion", "args": {"b3": 1}}, "takes no argument 'b3'"),
        ({"name": "adamw", "args": {"beta2": 0.9}}, "takes no argument 'beta2'"),
        ({"name": "nowhere:rule"}, "no module 'nowhere'"),
        ({"schedule": "nowhere:schedule"}, "no module 'nowhere'"),
    ],
)
def test_a_rule_that_does_not_exist_or_fit_is_one_line(params, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        make_optimizer(OptimizerConfig(**settings), NUM_STEPS, params)
    assert "\n" not in str(caught.value)
