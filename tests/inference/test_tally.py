"""What is measured of a split, on the mesh and image by image: the same, and that of the maps without padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deeplab_jax.inference import tally as tally_module
from deeplab_jax.inference.evaluator import evaluate, evaluate_images, make_confusion_step
from deeplab_jax.inference.forward import make_forward
from deeplab_jax.inference.predictor import PredictorOptions, make_async_predictor
from deeplab_jax.inference.settings import InferenceConfig, MeasureConfig
from deeplab_jax.inference.tally import Tally
from deeplab_jax.metrics import boundary
from deeplab_jax.metrics.bootstrap import confidence_interval, image_counts
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import Batch, DatasetInfo, Example

NAMES = ("a", "b", "c")
IGNORE = 255
INFO = DatasetInfo("toy", 3, IGNORE, NAMES, ((0, 0, 0),) * 3, {"val": 3})
ALL = MeasureConfig(boundary_iou=True, trimap=True, trimap_around="labels", calibration=True)
CANVAS = (17, 33)


def apply_fn(variables, images, *, train):
    """Class k where channel k is the brightest."""
    return images.astype(jnp.float32) / 60


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(5)
    found = []
    for k, size in enumerate([(12, 30), (17, 20), (9, 33)]):
        label = np.kron(rng.integers(0, 3, (5, 9)), np.ones((4, 4), int))[: size[0], : size[1]].astype(np.uint8)
        image = rng.integers(0, 160, (*size, 3)) + 90 * (label[..., None] == np.arange(3)[None, None])
        label[:2, :5] = IGNORE
        found.append(Example(f"image{k}", image.astype(np.uint8), label))
    return found


def as_batch(examples):
    """Eight rows, as the devices want them."""
    image, label = np.zeros((8, *CANVAS, 3), np.uint8), np.full((8, *CANVAS), IGNORE, np.uint8)
    for row, example in enumerate(examples):
        height, width = example.label.shape
        image[row, :height, :width], label[row, :height, :width] = example.image, example.label
    return Batch(image, label, np.arange(8) < len(examples)), tuple(example.name for example in examples)


@pytest.fixture(scope="module")
def both(examples):
    """The evaluation on the mesh, and the one image by image."""
    mesh = make_mesh()
    options = PredictorOptions(InferenceConfig(pad_to=CANVAS))
    step = make_confusion_step(
        make_forward(apply_fn, options.settings, align_corners=True),
        mesh,
        num_classes=3,
        ignore_label=IGNORE,
        measures=ALL,
    )
    tallies = [Tally(NAMES, ignore_label=IGNORE, measures=ALL) for _ in range(2)]
    sizes = {example.name: example.label.shape for example in examples}
    on_mesh = evaluate(step, {}, [as_batch(examples)], mesh, tallies[0], sizes)
    return on_mesh, evaluate_images(make_async_predictor(apply_fn, {}, options), examples, INFO, tallies[1])


def test_both_ways_measure_the_same(both):
    on_mesh, by_image = both
    np.testing.assert_array_equal(on_mesh.confusion, by_image.confusion)
    assert on_mesh.num_images == by_image.num_images == 3
    assert on_mesh.per_image == by_image.per_image
    assert set(on_mesh.scores) == set(by_image.scores)
    for key in ("boundary_iou", "trimap", "confidence_interval"):
        assert on_mesh.scores[key] == by_image.scores[key]
    for ours, theirs in zip(*(each.scores["calibration"]["bins"] for each in both), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_boundaries_are_those_of_the_maps_without_padding(both, examples):
    predictions = [example.image.argmax(axis=-1).astype(np.uint8) for example in examples]
    total = None
    for example, prediction in zip(examples, predictions, strict=True):
        counts = boundary.count_boundaries(example.label, prediction, num_classes=3, ignore_label=IGNORE)
        total = counts if total is None else boundary.BoundaryCounts(*map(np.add, total, counts))
    assert both[0].scores["boundary_iou"] == boundary.boundary_iou(total, NAMES)


def test_the_interval_is_of_the_images(both, examples):
    confusions = []
    for example in examples:
        known = example.label != IGNORE
        cells = example.label[known] * 3 + example.image.argmax(axis=-1)[known]
        confusions.append(np.bincount(cells, minlength=9).reshape(3, 3))
    expected = confidence_interval([image_counts(confusion) for confusion in confusions])
    assert both[0].scores["confidence_interval"] == expected


def test_what_is_not_asked_for_is_not_there(examples):
    predict = make_async_predictor(apply_fn, {}, PredictorOptions(InferenceConfig(pad_to=CANVAS)))
    found = evaluate_images(predict, examples, INFO).scores
    assert not {"boundary_iou", "trimap", "calibration"} & set(found)


def test_counts_of_several_processes_are_added_in_64_bits(monkeypatch):
    """Each of three processes has the same; 32 bits would overflow."""
    monkeypatch.setattr(jax, "process_count", lambda: 3)

    def gather(tree):
        assert all(leaf.dtype == np.int32 for leaf in jax.tree.leaves(tree))
        return jax.tree.map(lambda leaf: np.stack([leaf] * 3), tree)

    monkeypatch.setattr(tally_module.multihost_utils, "process_allgather", gather)
    counts = boundary.BoundaryCounts(np.array([2**40 + 7, 0]), np.array([2**31, 5]))
    added = tally_module._over_processes(counts)
    np.testing.assert_array_equal(added.intersection, 3 * counts.intersection)
    np.testing.assert_array_equal(added.union, 3 * counts.union)
    trimap = boundary.TrimapCounts(np.ones((2, 1, 1), int), np.zeros((2, 1, 1), int), 4, 2**33)
    assert tally_module._over_processes(trimap).num_band == 3 * 2**33


def test_results_are_on_every_device(examples):
    mesh = make_mesh()
    forward = make_forward(apply_fn, InferenceConfig(), align_corners=True)
    step = make_confusion_step(forward, mesh, num_classes=3, ignore_label=IGNORE, measures=ALL)
    batch, _ = as_batch(examples)
    for leaf in jax.tree.leaves(step({}, jax.tree.map(jnp.asarray, batch))):
        assert leaf.sharding.spec == PartitionSpec()
