"""Masks of classes that may overlap: every form gives the same label, which is kept, counted and checked."""

from __future__ import annotations

import numpy as np
import pytest
from made_overlapping import (
    CLASSES,
    SIZE,
    array_file,
    file_per_class,
    folder_per_class,
    folder_per_image,
    make_planes,
    png_channels,
    save,
    tiff_channels,
    write_overlapping,
)

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.class_counts import count_classes
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.types import UserError

FORMS = [file_per_class, folder_per_class, folder_per_image, array_file, tiff_channels, png_channels]


def open_made(root):
    return folder.open_dataset(str(root), str(root.parent / "prepared"))


def refusal(root):
    with pytest.raises(UserError) as caught:
        open_made(root).open_split("train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("write_masks", FORMS)
def test_every_form_gives_the_same_label(tmp_path, write_masks):
    dataset = open_made(write_overlapping(tmp_path / "data", write_masks))
    assert (dataset.info.task, dataset.info.class_names, dataset.info.num_outputs) == ("multilabel", CLASSES, 3)
    assert any(note.startswith("multilabel: a ") for note in dataset.notes)
    for form in (dataset, with_raw_copies(dataset)):
        source = form.open_split("train")
        assert list(source.names) == ["n0", "n1"]
        for seed in range(2):
            example = source[seed]
            assert example.label.dtype == np.uint8
            np.testing.assert_array_equal(example.label, make_planes(seed))
            np.testing.assert_array_equal(source.label(seed), make_planes(seed))


def test_config_may_say_the_task(tmp_path):
    root = write_overlapping(tmp_path / "data", array_file, task="")
    assert folder.open_dataset(str(root), str(tmp_path / "prepared"), "multilabel").info.task == "multilabel"


def test_classes_are_counted_and_checked(tmp_path):
    dataset = open_made(write_overlapping(tmp_path / "data", file_per_class))
    counts = count_classes(dataset.open_split("train"), dataset.info, num_workers=1, title="")
    planes = np.stack([make_planes(0), make_planes(1)])
    assert counts.pixels.tolist() == planes.sum(axis=(0, 1, 2)).tolist()
    assert (counts.num_labelled, counts.num_ignored) == (2 * SIZE[0] * SIZE[1], 0)
    assert dataset.open_split("train").label_pixels.of_class.tolist() == counts.pixels.tolist()
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    assert report.findings == []
    assert report.counts["train"].pixels.tolist() == counts.pixels.tolist()


def test_a_class_without_a_file_is_refused_unless_declared(tmp_path):
    root = write_overlapping(tmp_path / "data", file_per_class)
    (root / "masks" / "n1_red_car.png").unlink()
    told = refusal(root)
    assert "there is no mask of 'red car' for the image n1; add one (an empty file will do), or write" in told
    content = (root / "classes.json").read_text().replace("}", ', "missing_masks": "absent"}')
    (root / "classes.json").write_text(content)
    expected = make_planes(1)
    expected[..., 1] = 0
    np.testing.assert_array_equal(open_made(root).open_split("train")[1].label, expected)


def test_empty_files_say_that_a_class_is_nowhere(tmp_path):
    root = write_overlapping(tmp_path / "data", file_per_class)
    for name in ("car", "red_car", "wheel"):
        (root / "masks" / f"n0_{name}.png").write_bytes(b"")
    dataset = open_made(root)
    np.testing.assert_array_equal(dataset.open_split("train")[0].label, np.zeros((*SIZE, 3)))
    (finding,) = lint_dataset(dataset, train_split="train", eval_split="val").findings
    assert finding.kind == "all_background"
    assert "holds no class at all" in finding.message


def test_ignored_pixels_of_single_classes_are_kept(tmp_path):
    def write_masks(planes, masks, name):
        planes = planes.copy()
        planes[:2, :, 1] = 255
        np.save(masks / f"{name}.npy", planes)

    label = open_made(write_overlapping(tmp_path / "data", write_masks)).open_split("train")[0].label
    assert (label[:2, :, 1] == 255).all()
    np.testing.assert_array_equal(label[2:], make_planes(0)[2:])
    np.testing.assert_array_equal(label[..., [0, 2]], make_planes(0)[..., [0, 2]])


def test_files_that_do_not_fit(tmp_path):
    root = write_overlapping(tmp_path / "data", file_per_class)
    save(np.zeros((4, 4), np.uint8), root / "masks" / "n1_car.png")
    told = refusal(root)
    assert "n1_car.png: is 4x4 (height x width), but " in told
    save(np.full(SIZE, 7, np.uint8), root / "masks" / "n1_car.png")
    assert "its masks of single classes hold 7 beside what says absent or present; write " in refusal(root)
    root = write_overlapping(
        tmp_path / "channels", lambda planes, masks, name: array_file(planes[..., :2], masks, name)
    )
    assert "n0.npy: holds 2 channels, and there are 3 classes (car, red car, wheel), which may overlap" in refusal(root)


def test_changed_parts_are_prepared_anew(tmp_path):
    root = write_overlapping(tmp_path / "data", file_per_class)
    open_made(root).open_split("train")
    save(np.full(SIZE, 255, np.uint8), root / "masks" / "n0_wheel.png")
    assert (open_made(root).open_split("train")[0].label[..., 2] == 1).all()


def test_without_class_names_there_is_nothing_to_overlap(tmp_path):
    root = write_overlapping(tmp_path / "data", array_file)
    (root / "classes.json").write_text('{"task": "multilabel"}')
    assert 'has "task": "multilabel" and no class names' in refusal(root)
