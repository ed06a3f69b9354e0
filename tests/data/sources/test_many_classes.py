"""More classes than a byte can number, and ignore labels beyond it."""

from __future__ import annotations

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.apps.assembly.segment_files import ids_and_overlay
from deeplab_jax.config import DataConfig
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.class_counts import count_classes
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.ops.augment import augment

NUM_CLASSES = 847  # as in ADE20K-full
SIZE = (9, 13)


def make_ids(seed, ignore_label=65535):
    ids = np.random.default_rng(seed).integers(0, NUM_CLASSES, SIZE).astype(np.uint16)
    ids[0] = ignore_label
    return ids


def write_many(root, **fields):
    for part in ("images", "masks", "splits"):
        (root / part).mkdir(parents=True)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{seed}.png")
        Image.fromarray(make_ids(seed, fields.get("ignore_label", 65535))).save(root / "masks" / f"{seed}.png")
    (root / "splits" / "train.txt").write_text("0\n1\n")
    (root / "splits" / "val.txt").write_text("2\n")
    (root / "classes.json").write_text(json.dumps({"class_names": [f"c{k}" for k in range(NUM_CLASSES)], **fields}))
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


def test_labels_have_16_bits_everywhere(tmp_path):
    dataset = write_many(tmp_path / "data")
    assert (dataset.info.num_classes, dataset.info.ignore_label, dataset.info.label_dtype) == (847, 65535, "uint16")
    assert len(set(dataset.info.palette)) == NUM_CLASSES
    for form in (dataset, with_raw_copies(dataset)):
        source = form.open_split("train")
        for seed in range(2):
            assert source[seed].label.dtype == np.uint16
            np.testing.assert_array_equal(source[seed].label, make_ids(seed))
    counts = count_classes(dataset.open_split("train"), dataset.info, num_workers=1, title="")
    assert counts.pixels.sum() == 2 * (SIZE[0] - 1) * SIZE[1]
    assert counts.num_ignored == 2 * SIZE[1]
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    assert report.counts["train"].pixels.tolist() == counts.pixels.tolist()
    assert {finding.severity for finding in report.findings} <= {"note", "warning"}


def test_another_ignore_label_beyond_a_byte(tmp_path):
    dataset = write_many(tmp_path / "data", ignore_label=1000)
    assert dataset.info.ignore_label == 1000
    assert (dataset.open_split("train")[0].label[0] == 1000).all()


@pytest.mark.parametrize("options", [{}, {"max_class_share": 0.5}, {"device_augmentation": True}], ids=str)
def test_batches_have_16_bits(tmp_path, options):
    dataset = write_many(tmp_path / "data")
    config = DataConfig(
        batch_size=2, crop_size=(17, 17), min_scale=1, max_scale=1, flip=False, num_workers=1, **options
    )
    with make_loader(config, dataset.open_split("train"), dataset.info, seed=0, pad_pixel=(0, 0, 0)) as loader:
        names, batch = loader.names_at(0), next(loader)
    assert batch.label.dtype == np.uint16
    for name, label in zip(names, batch.label, strict=True):
        np.testing.assert_array_equal(label[: SIZE[0], : SIZE[1]], make_ids(int(name)))
        assert options.get("device_augmentation") or (label[SIZE[0] :] == 65535).all()


def test_the_device_pads_with_the_ignore_label():
    label = jnp.asarray(make_ids(0)[None])
    image = jnp.zeros((1, *SIZE, 3), jnp.uint8)
    geometry = jnp.array([[*SIZE, *SIZE, 0]], jnp.int32)
    _, got = augment(image, label, geometry, None, crop_size=(17, 17), pad_pixel=(0, 0, 0), ignore_label=65535)
    assert got.dtype == jnp.uint16
    np.testing.assert_array_equal(got[0, : SIZE[0], : SIZE[1]], make_ids(0))
    assert (got[0, SIZE[0] :] == 65535).all()


def test_predictions_of_many_classes_are_grey_of_16_bits(tmp_path):
    info = write_many(tmp_path / "data").info
    ids = make_ids(1, ignore_label=0).astype(np.int32)
    files = ids_and_overlay(tmp_path / "n", np.zeros((*SIZE, 3), np.uint8), ids, info)
    np.testing.assert_array_equal(decode_mask(files[tmp_path / "n.png"], "n"), ids)
    overlay = np.asarray(Image.open(io.BytesIO(files[tmp_path / "n_overlay.png"])))
    assert overlay.shape == (*SIZE, 3)
