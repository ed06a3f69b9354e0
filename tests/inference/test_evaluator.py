"""The confusion of a split: over eight devices, with filled-up rows, in int64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.inference.evaluator import Counts, evaluate, make_confusion_step
from deeplab_jax.inference.tally import Tally
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import Batch

CLASS_NAMES = ("ground", "disc", "box", "never")
IGNORE = 255


def forward(variables, images):
    """Predicts the class that the red channel holds, shifted by the variables."""
    return jax.nn.one_hot((images[..., 0].astype(jnp.int32) + variables["shift"]) % 4, 4)


def make_batches(rng, sizes):
    """Batches of eight rows; `sizes`: how many of them are images."""
    batches = []
    for k, num_images in enumerate(sizes):
        valid = np.arange(8) < num_images
        image = rng.integers(0, 3, (8, 6, 5, 3), dtype=np.uint8)
        label = rng.integers(0, 3, (8, 6, 5)).astype(np.uint8)
        label[:, 0] = IGNORE
        names = tuple(f"image{k}_{row}" for row in range(num_images))
        batches.append((Batch(image, label, valid), names))
    return batches


def new_tally(**options):
    return Tally(CLASS_NAMES, ignore_label=IGNORE, **options)


def count_slowly(batches, shift):
    confusion = np.zeros((4, 4), np.int64)
    for batch, _ in batches:
        for image, label, valid in zip(*batch, strict=True):
            for pixel, truth in zip(image[..., 0].ravel(), label.ravel(), strict=True):
                if valid and truth != IGNORE:
                    confusion[truth, (pixel + shift) % 4] += 1
    return confusion


@pytest.mark.parametrize("num_devices", [1, 8])
def test_counts_every_pixel_of_every_image_once(rng, num_devices):
    mesh = make_mesh(num_devices)
    batches = make_batches(rng, [8, 8, 3])
    step = make_confusion_step(forward, mesh, num_classes=4, ignore_label=IGNORE)
    result = evaluate(step, {"shift": jnp.int32(1)}, batches, mesh, new_tally())

    np.testing.assert_array_equal(result.confusion, count_slowly(batches, shift=1))
    assert result.confusion.dtype == np.int64
    assert result.num_images == 19
    assert [row["name"] for row in result.per_image] == [name for _, names in batches for name in names]
    assert list(result.scores["iou_per_class"]) == list(CLASS_NAMES)


def test_rows_that_fill_up_count_nowhere_whatever_their_labels(rng):
    """The step trusts `valid`, not the loader's promise that such rows are ignored throughout."""
    mesh = make_mesh()
    (batch, names), *_ = make_batches(rng, [2])
    step = make_confusion_step(forward, mesh, num_classes=4, ignore_label=IGNORE)
    result = evaluate(step, {"shift": jnp.int32(0)}, [(batch, names)], mesh, new_tally())
    assert result.confusion.sum() == 2 * 5 * 5


def test_perfect_and_wrong_images_are_told_apart(rng):
    mesh = make_mesh()
    (batch, names), *_ = make_batches(rng, [8])
    label = np.where(batch.label == IGNORE, IGNORE, batch.image[..., 0]).astype(np.uint8)
    label[3, 1:] = (label[3, 1:] + 1) % 3
    label[5] = IGNORE
    step = make_confusion_step(forward, mesh, num_classes=4, ignore_label=IGNORE)
    result = evaluate(step, {"shift": jnp.int32(0)}, [(batch._replace(label=label), names)], mesh, new_tally())
    by_name = {row["name"]: row["mean_iou"] for row in result.per_image}
    assert by_name["image0_3"] == 0.0
    assert by_name["image0_5"] is None  # nothing to score
    assert all(by_name[f"image0_{k}"] == 1.0 for k in (0, 1, 2, 4, 6, 7))
    assert result.scores["iou_per_class"]["never"] is None
    assert result.num_images == 8


def test_fetches_a_batch_after_the_next_one_was_dispatched(rng):
    mesh = make_mesh()
    events = []

    class Result:
        def __init__(self, k):
            self.k = k

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.k}")
            return np.zeros((8, 4, 4), np.int32)

    def step(variables, batch):
        k = sum(event.startswith("dispatch") for event in events)
        events.append(f"dispatch {k}")
        return Counts(Result(k), np.ones(8, bool), np.ones(8, bool))

    evaluate(step, {}, make_batches(rng, [8, 8, 8]), mesh, new_tally())
    assert events == ["dispatch 0", "dispatch 1", "fetch 0", "dispatch 2", "fetch 1", "fetch 2"]


def test_an_empty_split_scores_nothing():
    mesh = make_mesh()
    step = make_confusion_step(forward, mesh, num_classes=4, ignore_label=IGNORE)
    result = evaluate(step, {}, [], mesh, new_tally())
    assert (result.num_images, result.scores["mean_iou"], result.per_image) == (0, None, [])
