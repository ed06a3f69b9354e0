"""The sigmoid losses beside torch's and segmentation_models.pytorch's in its modes 'binary' and 'multilabel'."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from torch_peers import import_peer, to_torch

from deeplab_jax.losses.cross_entropy import sigmoid_cross_entropy
from deeplab_jax.losses.dice import sigmoid_dice
from deeplab_jax.losses.focal import sigmoid_focal
from deeplab_jax.losses.lovasz import lovasz_hinge
from deeplab_jax.losses.tversky import sigmoid_tversky

pytestmark = pytest.mark.peer

IGNORE = 255
RTOL = 1e-6  # float32 sums in another order; seen: 4e-7


@pytest.fixture(params=["binary", "multilabel"])
def example(request, rng):
    """(mode, logits, label): two images with as many ignored pixels; every class is in both."""
    maps = 1 if request.param == "binary" else 3
    logits = rng.normal(scale=2, size=(2, 6, 8, maps)).astype(np.float32)
    label = rng.integers(0, 2, size=logits.shape)
    label[:, :2] = IGNORE
    return request.param, logits, label[..., 0] if maps == 1 else label


def torch_of(logits, label):
    """Theirs: [b, c, h, w], and [b, h, w] or [b, c, h, w]."""
    torch = import_peer("torch")
    return to_torch(logits), torch.from_numpy(label if label.ndim == 3 else np.moveaxis(label, -1, 1).copy())


def mean(pair):
    return float(pair[0] / pair[1])


def as_one_image(logits, label):
    """smp takes the batch for one large image in Dice and Tversky."""
    return logits.reshape(1, -1, *logits.shape[2:]), jnp.asarray(label.reshape(1, -1, *label.shape[2:]))


@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
def test_cross_entropy_is_torchs(example, pos_weight):
    torch = import_peer("torch")
    _, logits, label = example
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits.reshape(label.shape))[label != IGNORE],
        torch.from_numpy(label[label != IGNORE].astype(np.float32)),
        pos_weight=torch.tensor(pos_weight),
    )
    ours = sigmoid_cross_entropy(logits, jnp.asarray(label), ignore_label=IGNORE, pos_weight=pos_weight)
    np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)


def test_cross_entropy_is_smps_with_smoothing(example):
    """Their factor is half of ours; they divide by all pixels, of which a third is ignored here."""
    smp = import_peer("segmentation_models_pytorch.losses")
    _, logits, label = example
    z, y = torch_of(logits, label)
    theirs = smp.SoftBCEWithLogitsLoss(ignore_index=IGNORE, smooth_factor=0.1)(z.reshape(y.shape), y.float())
    ours = sigmoid_cross_entropy(logits, jnp.asarray(label), ignore_label=IGNORE, label_smoothing=0.2)
    np.testing.assert_allclose(mean(ours) * 4 / 6, float(theirs), rtol=RTOL)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_is_smps(example, alpha):
    """Theirs fails on maps with ignored pixels: it sees the rest."""
    smp = import_peer("segmentation_models_pytorch.losses")
    mode, logits, label = example
    theirs = smp.FocalLoss(mode, gamma=1.5, alpha=alpha)(*torch_of(logits[:, 2:], label[:, 2:]))
    ours = sigmoid_focal(logits, jnp.asarray(label), ignore_label=IGNORE, gamma=1.5, alpha=alpha)
    np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)


@pytest.mark.parametrize("smooth", [0.0, 5.0])
def test_dice_and_tversky_are_smps(example, smooth):
    smp = import_peer("segmentation_models_pytorch.losses")
    mode, logits, label = example
    options = {"mode": mode, "ignore_index": IGNORE, "smooth": smooth}
    their_dice = smp.DiceLoss(**options)(*torch_of(logits, label))
    their_tversky = smp.TverskyLoss(**options, alpha=0.2, beta=0.6)(*torch_of(logits, label))
    image = as_one_image(logits, label)
    dice = sigmoid_dice(*image, ignore_label=IGNORE, smooth=smooth)
    index = sigmoid_tversky(*image, ignore_label=IGNORE, smooth=smooth, alpha=0.2, beta=0.6)
    np.testing.assert_allclose(mean(dice), float(their_dice), rtol=RTOL)
    np.testing.assert_allclose(mean(index), float(their_tversky), rtol=RTOL)


@pytest.mark.parametrize("empty", [False, True])
def test_lovasz_is_smps_per_image(example, empty):
    """Also where an image does not have the class. Theirs takes all classes' pixels together: one class at a time."""
    smp = import_peer("segmentation_models_pytorch.losses")
    _, logits, label = example
    label = label.reshape(logits.shape)
    if empty:
        label[1][label[1] == 1] = 0
    for k in range(logits.shape[-1]):
        z, y = logits[..., k : k + 1], label[..., k]
        theirs = smp.LovaszLoss("binary", per_image=True, ignore_index=IGNORE)(*torch_of(z, y))
        ours = lovasz_hinge(z, jnp.asarray(y), ignore_label=IGNORE)
        np.testing.assert_allclose(mean(ours), float(theirs), rtol=RTOL)
