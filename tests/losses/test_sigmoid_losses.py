"""What sigmoid losses promise, of one logit and of several: the twin's value and slope, and no wrong label unseen."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import IGNORE, SIGMOID_TWINS

from deeplab_jax import registry
from deeplab_jax.losses.combined import add_losses

BINARY = (0.25, 3.0)
WEIGHTS = {"binary": BINARY, "multilabel": (1.0, 0.25, 3.0)}
ARGUMENTS = {
    "cross_entropy.sigmoid_cross_entropy": {"label_smoothing": 0.2, "pos_weight": 3.0},
    "focal.sigmoid_focal": {"gamma": 0.5, "alpha": 0.25},
    "tversky.sigmoid_tversky": {"alpha": 0.9, "beta": 0.2, "smooth": 3.0},
    "dice.sigmoid_dice": {"smooth": 2.0},
}
PIXEL_LOSSES = ("cross_entropy.sigmoid_cross_entropy", "focal.sigmoid_focal")
NAMES = sorted(SIGMOID_TWINS)


def make(name, **arguments):
    return functools.partial(registry.resolve("losses", name), ignore_label=IGNORE, **arguments)


def draw(rng, task):
    """Three images; the last is mostly ignored and has no pixel of the (first) class."""
    maps = {"binary": 1, "multilabel": 3}[task]
    logits = rng.normal(scale=3, size=(3, 5, 7, maps)).astype(np.float32)
    label = rng.integers(0, 2, size=logits.shape).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = IGNORE  # each class by itself
    label[2, :, :4] = IGNORE
    label[2, ..., 0][label[2, ..., 0] == 1] = 0
    return logits, label[..., 0] if task == "binary" else label


@pytest.fixture(params=["binary", "multilabel"])
def task(request):
    return request.param


@pytest.fixture
def example(rng, task):
    return draw(rng, task)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("arguments", ["defaults", "others"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_slow_twin(example, task, rng, name, arguments, weighted):
    logits, label = example
    arguments = ARGUMENTS.get(name, {}) if arguments == "others" else {}
    weights = WEIGHTS[task] if weighted else None
    loss = make(name, class_weights=weights, **arguments)
    (total, weight), gradient = jax.jit(
        lambda z: (loss(z, jnp.asarray(label)), jax.grad(lambda q: loss(q, jnp.asarray(label))[0])(z))
    )(logits)

    def twin(z):
        return SIGMOID_TWINS[name](z, label, weights or (1.0,) * 3, **arguments)

    # float32 against float64 over about 150 pixels.
    np.testing.assert_allclose((total, weight), twin(logits), rtol=3e-6)
    for _ in range(3):
        direction = rng.normal(size=logits.shape)
        step = 1e-5 * direction
        slope = (twin(logits + step)[0] - twin(logits - step)[0]) / 2e-5
        np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-4, atol=1e-4)  # of the difference


@pytest.mark.parametrize("name", NAMES)
def test_sums_and_weights_of_slices_add_up(example, task, name):
    logits, label = example
    loss = jax.jit(make(name, class_weights=WEIGHTS[task]))
    rows = [loss(logits[i : i + 1], jnp.asarray(label[i : i + 1])) for i in range(len(logits))]
    np.testing.assert_allclose(loss(logits, jnp.asarray(label)), np.sum(rows, axis=0), rtol=1e-6)  # order of a sum


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_is_zero_with_a_zero_gradient(name):
    loss, label = make(name), jnp.full((2, 3, 3, 2), IGNORE, jnp.uint8)
    logits = jnp.ones((2, 3, 3, 2))
    assert loss(logits, label) == (0.0, 0.0)
    np.testing.assert_array_equal(jax.grad(lambda z: loss(z, label)[0])(logits), 0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [1e-3, 20.0, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_finite_where_the_prediction_is_perfect_or_perfectly_wrong(example, name, size, sign):
    logits, label = example
    logits = sign * size * (2.0 * (label.reshape(logits.shape) == 1) - 1.0)
    loss = make(name, **({"gamma": 0.5} if "focal" in name else {}))  # the power with an infinite slope at 0
    total, weight = loss(logits, jnp.asarray(label))
    assert np.isfinite(jax.grad(lambda z: loss(z, jnp.asarray(label))[0])(logits)).all()
    assert np.isfinite(total)
    if (sign, size) == (1, 1e4):
        assert abs(total) <= 1e-6 * weight


@pytest.mark.parametrize("wrong", [2, 254, -1])
@pytest.mark.parametrize("name", NAMES)
def test_a_label_that_is_neither_0_nor_1_poisons_the_loss(example, name, wrong):
    logits, label = example
    label = label.astype(np.int32)
    label[1, 2, 2] = wrong
    assert jnp.isnan(make(name)(logits, jnp.asarray(label))[0])


@pytest.mark.parametrize("name", NAMES)
def test_class_weights_must_match_the_classes(example, task, name):
    logits, label = example
    with pytest.raises(ValueError, match=f"5 class weights for {len(WEIGHTS[task])} classes"):
        make(name, class_weights=(1.0,) * 5)(logits, jnp.asarray(label))


@pytest.mark.parametrize("name", NAMES)
def test_classes_that_exclude_each_other_are_refused(rng, name):
    with pytest.raises(ValueError, match="a sigmoid loss is for one logit"):
        make(name)(jnp.zeros((1, 2, 2, 3)), jnp.zeros((1, 2, 2), jnp.uint8))


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_the_hardest_pixels_of_each_map_count(example, name):
    logits, label = example
    total, weight = make(name, top_k_fraction=0.3)(logits, jnp.asarray(label))
    z, y = logits, label.reshape(logits.shape)
    want = want_weight = 0.0
    for image in range(len(z)):
        for k in range(z.shape[-1]):
            kept = y[image, ..., k] != IGNORE
            ones = (1.0, 1.0)
            losses = [
                SIGMOID_TWINS[name](logit.reshape(1, 1, 1, 1), true.reshape(1, 1, 1), ones)[0]
                for logit, true in zip(z[image, ..., k][kept], y[image, ..., k][kept], strict=True)
            ]
            number = int(np.ceil(0.3 * len(losses)))
            want, want_weight = want + sum(sorted(losses)[-number:]), want_weight + number
    np.testing.assert_allclose((total, weight), (want, want_weight), rtol=3e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_one_logit_is_the_softmax_of_two_of_which_the_first_is_zero(rng, kind):
    logits, label = draw(rng, "binary")
    two = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    ours = make(f"{kind}.sigmoid_{kind}", class_weights=BINARY)(logits, jnp.asarray(label))
    theirs = make(f"{kind}.softmax_{kind}", class_weights=BINARY)(two, jnp.asarray(label))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_lovasz_hinge_of_hard_predictions_is_one_minus_the_iou(rng):
    """Logits of 1 and -1 have hinges of 0 and 2: twice the Jaccard loss, also of a map without the class."""
    truth, prediction = rng.integers(0, 2, (2, 1, 9, 9, 2))
    truth[..., 1] = 0
    total, weight = make("lovasz.lovasz_hinge")(2.0 * prediction - 1, jnp.asarray(truth))
    iou = [np.sum(truth[..., k] & prediction[..., k]) / np.sum(truth[..., k] | prediction[..., k]) for k in range(2)]
    np.testing.assert_allclose(total / weight, 2 * (1 - np.mean(iou)), rtol=1e-6)


def test_pos_weight_is_one_for_each_class_or_one_for_all(example):
    logits, label = example
    loss, num_maps = functools.partial(make, "cross_entropy.sigmoid_cross_entropy"), logits.shape[-1]
    one = loss(pos_weight=3.0)(logits, jnp.asarray(label))
    np.testing.assert_array_equal(loss(pos_weight=(3.0,) * num_maps)(logits, jnp.asarray(label)), one)
    np.testing.assert_array_equal(one[1], loss()(logits, jnp.asarray(label))[1])  # not in the weight
    with pytest.raises(ValueError, match="one positive number, or one for each"):
        loss(pos_weight=(1.0,) * 7)(logits, jnp.asarray(label))
    with pytest.raises(ValueError, match="one positive number"):
        loss(pos_weight=0.0)(logits, jnp.asarray(label))


@pytest.mark.parametrize(
    ("name", "arguments"), [("focal.sigmoid_focal", {"alpha": 1.0}), ("tversky.sigmoid_tversky", {"beta": 0.0})]
)
def test_settings_out_of_range_are_refused(example, name, arguments):
    logits, label = example
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}=.*must be"):
        make(name, **arguments)(logits, jnp.asarray(label))


def test_they_are_added_image_by_image(example):
    """An image without the class has the pixel loss alone."""
    logits, label = example
    terms = [make("cross_entropy.sigmoid_cross_entropy"), make("dice.sigmoid_dice")]
    want = want_weight = 0.0
    for i in range(3):
        (pixel, weight), (region, size) = (term(logits[i : i + 1], jnp.asarray(label[i : i + 1])) for term in terms)
        want += pixel + (2.0 * weight * region / size if size else 0.0)
        want_weight += weight
    total = jax.jit(add_losses([(1.0, terms[0]), (2.0, terms[1])]))(logits, jnp.asarray(label))
    np.testing.assert_allclose(total, (want, want_weight), rtol=1e-6)
