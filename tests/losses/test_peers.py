"""The losses beside torch's and segmentation_models.pytorch's, with what they do differently undone in plain sight."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import import_peer, to_torch

from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.losses.dice import soft_dice
from deeplab_jax.losses.focal import softmax_focal
from deeplab_jax.losses.lovasz import lovasz_softmax
from deeplab_jax.losses.tversky import soft_tversky

pytestmark = pytest.mark.peer

IGNORE = 255
NUM_CLASSES = 4
WEIGHTS = (0.5, 2.0, 1.0, 4.0)
RTOL = 3e-6  # float32 sums in another order


@pytest.fixture
def example(rng):
    """Class 3 is in no label, so that the treatment of absent classes is seen."""
    logits = rng.normal(scale=2, size=(2, 6, 8, NUM_CLASSES)).astype(np.float32)
    label = rng.integers(0, 3, size=(2, 6, 8))
    label[:, :2] = IGNORE  # as many in each image
    return logits, label


def torch_of(logits, label):
    torch = import_peer("torch")
    return to_torch(logits), torch.from_numpy(label)


def mean(pair):
    return float(pair[0] / pair[1])


def as_one_image(logits, label):
    """smp takes the batch for one large image."""
    return logits.reshape(1, -1, 8, NUM_CLASSES), jnp.asarray(label.reshape(1, -1, 8))


@pytest.mark.parametrize("options", [{"weight": WEIGHTS}, {"label_smoothing": 0.2}])
def test_cross_entropy_is_torchs(example, options):
    torch = import_peer("torch")
    weight = options.get("weight")
    theirs = torch.nn.functional.cross_entropy(
        *torch_of(*example),
        ignore_index=IGNORE,
        weight=None if weight is None else torch.tensor(weight),
        label_smoothing=options.get("label_smoothing", 0.0),
    )
    ours = softmax_cross_entropy(
        example[0],
        jnp.asarray(example[1]),
        ignore_label=IGNORE,
        class_weights=weight,
        label_smoothing=options.get("label_smoothing", 0.0),
    )
    np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)


def test_focal_is_the_softmax_form_of_smp(example):
    """Their class FocalLoss is the sigmoid form for each class; the softmax form is a function beside it."""
    smp = import_peer("segmentation_models_pytorch.losses._functional")
    logits, label = torch_of(*example)
    pixels = logits.movedim(1, -1)[label != IGNORE]
    theirs = smp.softmax_focal_loss_with_logits(pixels, label[label != IGNORE], gamma=1.5)
    ours = softmax_focal(example[0], jnp.asarray(example[1]), ignore_label=IGNORE, gamma=1.5)
    np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)


def test_focal_of_two_classes_is_the_binary_loss_of_smp(example):
    """Logits 0 and z make the softmax a sigmoid."""
    smp = import_peer("segmentation_models_pytorch.losses")
    logits, label = example[0][..., :1], np.where(example[1] == 2, 1, example[1])
    theirs = smp.FocalLoss("binary", gamma=2.0, ignore_index=IGNORE)(*torch_of(logits, label))
    two = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    ours = softmax_focal(two, jnp.asarray(label), ignore_label=IGNORE)
    np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)


@pytest.mark.parametrize("smooth", [0.0, 5.0])
def test_dice_and_tversky_are_smps_over_the_classes_that_are_there(example, smooth):
    """They sum the batch as one image, and divide by all classes, of which absent ones contribute 0."""
    smp = import_peer("segmentation_models_pytorch.losses")
    options = {"mode": "multiclass", "ignore_index": IGNORE, "smooth": smooth}
    their_dice = smp.DiceLoss(**options)(*torch_of(*example))
    their_tversky = smp.TverskyLoss(**options, alpha=0.2, beta=0.6)(*torch_of(*example))
    image = as_one_image(*example)
    dice = soft_dice(*image, ignore_label=IGNORE, smooth=smooth)
    index = soft_tversky(*image, ignore_label=IGNORE, smooth=smooth, alpha=0.2, beta=0.6)
    present = 3 / NUM_CLASSES
    np.testing.assert_allclose(mean(dice) * present, float(their_dice), rtol=RTOL)
    np.testing.assert_allclose(mean(index) * present, float(their_tversky), rtol=RTOL)


def test_lovasz_is_smps_per_image_and_over_the_batch(example):
    """Theirs means over images, ours over labelled pixels; the two images here have as many."""
    smp = import_peer("segmentation_models_pytorch.losses")
    per_image = smp.LovaszLoss("multiclass", per_image=True, ignore_index=IGNORE)(*torch_of(*example))
    ours = lovasz_softmax(example[0], jnp.asarray(example[1]), ignore_label=IGNORE)
    np.testing.assert_allclose(mean(ours), float(per_image), rtol=RTOL)
    whole = smp.LovaszLoss("multiclass", per_image=False, ignore_index=IGNORE)(*torch_of(*example))
    ours = lovasz_softmax(*as_one_image(*example), ignore_label=IGNORE)
    np.testing.assert_allclose(mean(ours), float(whole), rtol=RTOL)
