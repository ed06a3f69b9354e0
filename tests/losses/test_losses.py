"""What all losses promise: the twin's value and slope, sums that add up, finite gradients, no wrong label unseen."""

from __future__ import annotations

import functools
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import IGNORE, SIGMOID_TWINS, TWINS, softmax

from deeplab_jax import registry

WEIGHTS = (1.0, 0.25, 3.0, 0.0, 2.0)
NUM_CLASSES = len(WEIGHTS)
EVEN = (1.0,) * NUM_CLASSES
ARGUMENTS = {
    "cross_entropy.softmax_cross_entropy": {"label_smoothing": 0.2},
    "focal.softmax_focal": {"gamma": 0.5},
    "tversky.soft_tversky": {"alpha": 0.9, "beta": 0.2, "smooth": 3.0},
    "dice.soft_dice": {"smooth": 2.0},
}
NAMES = sorted(TWINS)


def make(name, **arguments):
    return functools.partial(registry.resolve("losses", name), ignore_label=IGNORE, **arguments)


@pytest.fixture
def example(rng):
    logits = rng.normal(scale=3, size=(3, 5, 7, NUM_CLASSES)).astype(np.float32)
    label = rng.integers(0, NUM_CLASSES, size=(3, 5, 7)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = IGNORE
    label[2, :, :5] = IGNORE  # images differ in how much of them counts
    label[1][label[1] == 2] = 4  # and in their classes
    return logits, label


def test_every_loss_has_its_twin():
    """A loss is a function that is told the ignore label and returns two numbers."""
    found = {
        f"{module}.{name}"
        for module in registry.module_names("losses")
        for name, function in vars(importlib.import_module(f"deeplab_jax.losses.{module}")).items()
        if inspect.isfunction(function)
        and (function.__module__, function.__name__) == (f"deeplab_jax.losses.{module}", name)
        if list(inspect.signature(function).parameters)[:4] == ["logits", "label", "ignore_label", "class_weights"]
    }
    assert found == {*TWINS, *SIGMOID_TWINS}


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("arguments", ["defaults", "others"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_slow_twin(example, rng, name, arguments, class_weights):
    logits, label = example
    arguments = ARGUMENTS.get(name, {}) if arguments == "others" else {}
    loss = make(name, class_weights=class_weights, **arguments)
    (total, weight), gradient = jax.jit(
        lambda z: (loss(z, jnp.asarray(label)), jax.grad(lambda q: loss(q, jnp.asarray(label))[0])(z))
    )(logits)

    def twin(z):
        return TWINS[name](z, label, class_weights or EVEN, **arguments)

    # float32 against float64 over about 70 pixels.
    np.testing.assert_allclose((total, weight), twin(logits), rtol=2e-6)
    for _ in range(3):
        direction = rng.normal(size=logits.shape)
        step = 1e-5 * direction
        slope = (twin(logits + step)[0] - twin(logits - step)[0]) / 2e-5
        np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-4, atol=1e-5)  # of the difference


@pytest.mark.parametrize("name", NAMES)
def test_sums_and_weights_of_slices_add_up(example, name):
    logits, label = example
    loss = jax.jit(make(name, class_weights=WEIGHTS))
    rows = [loss(logits[i : i + 1], jnp.asarray(label[i : i + 1])) for i in range(len(logits))]
    np.testing.assert_allclose(loss(logits, jnp.asarray(label)), np.sum(rows, axis=0), rtol=1e-6)  # order of a sum


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_is_zero_with_a_zero_gradient(name):
    label = jnp.full((2, 3, 3), IGNORE, jnp.uint8)
    loss = make(name)
    logits = jnp.ones((2, 3, 3, 4))
    assert loss(logits, label) == (0.0, 0.0)
    np.testing.assert_array_equal(jax.grad(lambda z: loss(z, label)[0])(logits), 0)


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_weight_zero_alone_are_zero(name):
    loss = make(name, class_weights=(0.0, 1.0))
    total = loss(jnp.ones((1, 2, 2, 2)), jnp.zeros((1, 2, 2), jnp.uint8))
    assert total == (0.0, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [1e-3, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_finite_where_the_prediction_is_perfect_or_perfectly_wrong(example, name, size, sign):
    _, label = example
    logits = sign * size * jax.nn.one_hot(label, NUM_CLASSES)
    loss = make(name, **({"gamma": 0.5} if "focal" in name else {}))  # the power with an infinite slope at 0
    total, weight = loss(logits, jnp.asarray(label))
    gradient = jax.grad(lambda z: loss(z, jnp.asarray(label))[0])(logits)
    assert np.isfinite(gradient).all()
    assert np.isfinite(total)
    if (sign, size) == (1, 1e4):
        assert abs(total) <= 1e-6 * weight


@pytest.mark.parametrize("wrong", [NUM_CLASSES, 254, -1])
@pytest.mark.parametrize("name", NAMES)
def test_a_label_that_is_no_class_poisons_the_loss(example, name, wrong):
    logits, label = example
    label = label.astype(np.int32)
    label[1, 2, 2] = wrong
    assert jnp.isnan(make(name, class_weights=WEIGHTS)(logits, jnp.asarray(label))[0])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_logits_are_summed_in_float32(example, name):
    logits, label = example
    narrow = jnp.asarray(logits, jnp.bfloat16)
    total, weight = jax.jit(make(name))(narrow, jnp.asarray(label))
    assert (total.dtype, weight.dtype) == (jnp.float32, jnp.float32)
    want = TWINS[name](np.asarray(narrow.astype(jnp.float32)), label, EVEN)
    np.testing.assert_allclose((total, weight), want, rtol=2e-6)  # only the input was rounded


@pytest.mark.parametrize("name", NAMES)
def test_class_weights_must_match_the_classes(example, name):
    logits, label = example
    with pytest.raises(ValueError, match="2 class weights for 5 classes"):
        make(name, class_weights=(1.0, 2.0))(logits, jnp.asarray(label))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", NAMES)
def test_one_logit_or_a_label_for_each_class_is_refused(example, name):
    logits, label = example
    with pytest.raises(ValueError, match="for classes that exclude each other"):
        make(name)(logits[..., :1], jnp.asarray(label))
    with pytest.raises(ValueError, match="for classes that exclude each other"):
        make(name)(logits, jnp.zeros(logits.shape, jnp.uint8))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cross_entropy.softmax_cross_entropy", {"label_smoothing": 1.0}),
        ("cross_entropy.softmax_cross_entropy", {"label_smoothing": -0.1}),
        ("focal.softmax_focal", {"gamma": -1}),
        ("tversky.soft_tversky", {"alpha": -0.1}),
        ("tversky.soft_tversky", {"beta": 0.0}),
        ("dice.soft_dice", {"smooth": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(example, name, arguments):
    logits, label = example
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}=.*must be"):
        make(name, **arguments)(logits, jnp.asarray(label))


def test_special_cases_are_the_losses_they_generalise(example):
    logits, label = example[0], jnp.asarray(example[1])
    cross_entropy = make("cross_entropy.softmax_cross_entropy")
    np.testing.assert_allclose(make("focal.softmax_focal", gamma=0)(logits, label), cross_entropy(logits, label))
    np.testing.assert_array_equal(
        make("tversky.soft_tversky", alpha=0.5, beta=0.5)(logits, label), make("dice.soft_dice")(logits, label)
    )


def test_lovasz_of_hard_predictions_is_one_minus_the_iou(rng):
    """The surrogate is exact at the corners: what the metric calls the mean IoU."""
    truth, prediction = rng.integers(0, 3, (2, 1, 9, 9))
    logits = 1e4 * jax.nn.one_hot(prediction, 3)
    total, weight = make("lovasz.lovasz_softmax")(logits, jnp.asarray(truth))
    iou = [np.sum((truth == c) & (prediction == c)) / np.sum((truth == c) | (prediction == c)) for c in range(3)]
    np.testing.assert_allclose(total / weight, 1 - np.mean(iou), rtol=1e-6)


def test_lovasz_keeps_its_digits_in_a_large_image(rng):
    """Steps of 1 / 263,169, taken as differences of numbers near 1, would be off by percents."""
    label = rng.integers(0, 2, (1, 513, 513)).astype(np.uint8)
    logits = rng.normal(size=(1, 513, 513, 2)).astype(np.float32)
    loss = make("lovasz.lovasz_softmax")
    (total, weight), gradient = jax.jit(
        lambda z: (loss(z, jnp.asarray(label)), jax.grad(lambda q: loss(q, jnp.asarray(label))[0])(z))
    )(logits)
    p, slope, want = softmax(logits[0]).reshape(-1, 2), np.zeros((513 * 513, 2)), 0.0
    for c in range(2):
        truth = label.ravel() == c
        error = np.abs(truth - p[:, c])
        order = np.argsort(-error, kind="stable")
        joined = np.arange(1, len(order) + 1)
        steps = np.diff(joined / (truth.sum() + np.cumsum(~truth[order])), prepend=0)
        want += error[order] @ steps / 2
        slope[order, c] = np.where(truth[order], -steps, steps) / 2
    through_softmax = p * (slope - np.sum(p * slope, axis=-1, keepdims=True)) * label.size
    np.testing.assert_allclose(total / weight, want, rtol=1e-6)
    difference = np.linalg.norm(gradient.reshape(-1, 2) - through_softmax)
    assert difference < 1e-4 * np.linalg.norm(through_softmax)
