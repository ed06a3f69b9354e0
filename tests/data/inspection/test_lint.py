"""Planted faults: each is found, named by file and value, and none hides another."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from made_files import CLASS_NAMES, make_ids, write_folder, write_mask
from PIL import Image

from deeplab_jax.data.datasets import folder, shapes, voc
from deeplab_jax.data.inspection.lint_findings import KINDS
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import UserError

TRAIN, VAL = ["a", "b", "c", "d", "e"], ["v", "w"]


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "original", [*TRAIN, *VAL], {"train": TRAIN, "val": VAL})


def lint(root: pathlib.Path, **options):
    dataset = folder.open_dataset(str(root), str(root.parent / "prepared"))
    return lint_dataset(dataset, **{"train_split": "train", "eval_split": "val", **options})


def found(report, kind):
    """The findings of one kind, which must be in KINDS."""
    assert kind in KINDS
    for finding in report.findings:
        assert finding.message.startswith(finding.file)
        assert "\n" not in finding.message
    return [finding for finding in report.findings if finding.kind == kind]


def the_only(report, kind):
    """The finding, where nothing else is wrong."""
    (finding,) = report.findings
    assert finding.kind == kind
    assert found(report, kind) == [finding]
    return finding


def test_nothing_is_found_where_nothing_is_wrong(root):
    report = lint(root)
    assert report.findings == []
    assert report.num_samples == 7
    assert not (root.parent / "prepared").exists()  # the original files are read, nothing is prepared
    pixels = np.sum([np.bincount(make_ids(seed=seed).ravel(), minlength=256) for seed in range(len(TRAIN))], axis=0)
    assert report.counts["train"].pixels.tolist() == pixels[:3].tolist()
    assert report.counts["train"].images.tolist() == [5, 5, 5]
    assert report.counts["train"].num_ignored == pixels[255]
    assert report.counts["val"].num_images == 2


@pytest.mark.parametrize(("folder_name", "suffix"), [("images", ".jpg"), ("masks", ".png")])
def test_missing_file(root, folder_name, suffix):
    (root / folder_name / "b.png").unlink()
    finding = the_only(lint(root), "missing_file")
    assert finding.file == str(root / folder_name / f"b{suffix}")
    assert "does not exist, though 'b' is listed" in finding.message
    assert finding.splits == ("train",)


@pytest.mark.parametrize("folder_name", ["images", "masks"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"no image",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: data[:-100] + bytes(60) + data[-40:],
    ],
    ids=["empty", "text", "half", "nearly whole", "a hole"],
)
def test_unreadable(root, folder_name, damage):
    path = root / folder_name / "w.png"
    path.write_bytes(damage(path.read_bytes()))
    finding = the_only(lint(root), "unreadable")
    assert (finding.file, finding.splits) == (str(path), ("val",))
    words = ("is empty; copy", "is no readable image (", "is truncated or damaged (")
    assert any(f"w.png: {each}" in finding.message for each in words)


def test_size_mismatch(root):
    write_mask(root / "masks" / "c.png", make_ids((20, 31)))
    finding = the_only(lint(root), "size_mismatch")
    assert finding.message.startswith(f"{root}/masks/c.png: is 20x31 (height x width), but its image c.png is 20x30")


def test_invalid_values(root):
    ids = make_ids()
    ids[7, 11] = ids[9, 0] = 42
    ids[12, 3] = 99
    write_mask(root / "masks" / "c.png", ids)
    finding = the_only(lint(root), "invalid_value")
    assert finding.values == {"42": 2, "99": 1}
    assert (
        "c.png: holds the values 42 (2 pixels), 99 (1 pixel), the first at row 7, column 11; valid are 0 to 2 and 255"
        in finding.message
    )


def test_values_beyond_a_byte(root):
    ids = make_ids().astype(np.uint16)
    ids[5, 6] = 300
    Image.fromarray(ids).save(root / "masks" / "c.png")
    finding = the_only(lint(root), "invalid_value")
    assert finding.values == {"300": 1}
    assert "the first at row 5, column 6" in finding.message


def rgb_of(ids, ignored=(224, 224, 192)):
    colors = np.zeros((256, 3), np.uint8)
    colors[:3], colors[255] = voc_palette(3), ignored
    return colors[ids]


def test_palette_saved_as_rgb_is_converted_on_request(root, tmp_path):
    ids = make_ids(seed=9)
    Image.fromarray(rgb_of(ids)).save(root / "masks" / "c.png")
    before = (root / "masks" / "c.png").read_bytes()
    finding = the_only(lint(root, convert_to=tmp_path / "new"), "palette_as_rgb")
    assert finding.convertible
    assert "--mode=lint --output=NEW_FOLDER writes a converted copy" in finding.message
    assert {path.stem for path in (tmp_path / "new" / "images").iterdir()} == {*TRAIN, *VAL}
    copy = lint(tmp_path / "new")
    assert copy.findings == []
    assert copy.num_samples == 7
    np.testing.assert_array_equal(decode_mask((tmp_path / "new" / "masks" / "c.png").read_bytes(), "c"), ids)
    assert (root / "masks" / "c.png").read_bytes() == before


def test_copies_never_overwrite(root, tmp_path):
    (tmp_path / "new").mkdir()
    lint(root, convert_to=tmp_path / "new")  # empty
    (tmp_path / "new" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"--output=.*new: is there already; name a new folder"):
        lint(root, convert_to=tmp_path / "new")


def test_ids_in_three_channels_where_masks_may_hold_colors(root, tmp_path):
    content = {"class_names": CLASS_NAMES, "palette": [[9, 8, 7], [200, 0, 0], [0, 200, 0]]}
    (root / "classes.json").write_text(json.dumps(content))
    ids = make_ids(seed=9)
    Image.fromarray(np.repeat(ids[..., None], 3, axis=2)).save(root / "masks" / "c.png")
    assert the_only(lint(root, convert_to=tmp_path / "new"), "ids_as_rgb").convertible
    np.testing.assert_array_equal(decode_mask((tmp_path / "new" / "masks" / "c.png").read_bytes(), "c"), ids)


def test_palette_saved_as_grey(root, tmp_path):
    ids = make_ids(seed=9)
    Image.fromarray(rgb_of(ids)).convert("L").save(root / "masks" / "c.png")
    finding = the_only(lint(root, convert_to=tmp_path / "new"), "palette_as_grey")
    assert "holds the values 38, 75, 220: the brightness of classes' colours" in finding.message
    np.testing.assert_array_equal(decode_mask((tmp_path / "new" / "masks" / "c.png").read_bytes(), "c"), ids)


def test_colors_of_no_class(root):
    pixels = rgb_of(make_ids())
    pixels[3, :5] = (1, 2, 3)
    Image.fromarray(pixels).save(root / "masks" / "c.png")
    finding = the_only(lint(root), "color_mask")
    assert finding.values == {"#010203": 5}
    assert not finding.convertible
    assert "c.png: holds 1 colours that are no class's, as (1, 2, 3)" in finding.message


def test_lossy_mask(root):
    (root / "masks" / "c.png").unlink()
    Image.fromarray(make_ids()).save(root / "masks" / "c.jpg")
    assert "is a JPEG file, which does not keep class ids exact" in the_only(lint(root), "lossy_mask").message


def test_a_palette_that_tells_other_classes(root):
    ids = make_ids()
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    first, second, third = voc_palette(3)
    rest = [0] * 3 * 253
    picture.putpalette([*first, *third, *second, *rest])  # numbered anew
    picture.save(root / "masks" / "c.png")
    finding = the_only(lint(root), "palette_disagrees")
    assert "its index 1 has the colour (0, 128, 0) of class 2: if the colours are right, write" in finding.message
    picture.putpalette([*first, *second, *third, *rest])
    picture.save(root / "masks" / "c.png")
    assert lint(root).findings == []


def test_nothing_labelled_and_nothing_but_background(root):
    write_mask(root / "masks" / "b.png", np.full((20, 30), 255, np.uint8))
    write_mask(root / "masks" / "c.png", np.where(make_ids() == 255, 255, 0).astype(np.uint8))
    report = lint(root)
    (ignored,), (background,) = found(report, "all_ignored"), found(report, "all_background")
    assert len(report.findings) == 2
    assert ignored.file.endswith("masks/b.png")
    assert "c.png: holds nothing but 'ground' (0)" in background.message


def test_a_picture_for_training_and_evaluation_in_two_formats(root):
    (root / "images" / "v.png").unlink()
    Image.open(root / "images" / "b.png").save(root / "images" / "v.bmp")
    finding = the_only(lint(root), "shared_image")
    assert "images/b.png (train): is the same picture as " in finding.message
    assert "images/v.bmp (val), but their masks differ; take it off one list" in finding.message
    assert finding.splits == ("train", "val")
    assert the_only(lint(root, eval_split="train"), "duplicate_image").severity == "warning"


def test_a_picture_twice_in_one_split(root):
    for part in ("images", "masks"):
        shutil.copy(root / part / "b.png", root / part / "c.png")
    finding = the_only(lint(root), "duplicate_image")
    assert "differ" not in finding.message


def test_lists_that_overlap_or_repeat(root):
    (root / "splits" / "val.txt").write_text("v\nw\na\nb\n")
    (root / "splits" / "small.txt").write_text("a\na\nc\n")
    report = lint(root)
    (shared,) = found(report, "shared_image")
    assert shared.message.startswith("train, val: 2 images are in both splits")
    assert {finding.file for finding in found(report, "overlap")} == {"small, train", "small, val"}
    assert "a.png: is listed 2 times in split 'small'" in found(report, "duplicate_image")[0].message
    assert report.num_samples == 7
    assert report.counts["small"].num_images == 2


def test_an_image_that_was_cut_off_and_closed_again(root):
    rng = np.random.default_rng(0)
    (root / "images" / "c.png").unlink()
    pixels = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images" / "c.jpg", quality=90)
    data = (root / "images" / "c.jpg").read_bytes()
    write_mask(root / "masks" / "c.png", make_ids((64, 48)))
    assert lint(root).findings == []
    (root / "images" / "c.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    assert "rows are the grey that stands for missing data" in the_only(lint(root), "cut_off_image").message


def test_a_suffix_that_tells_another_format(root):
    (root / "images" / "c.png").rename(root / "images" / "c.jpg")
    finding = the_only(lint(root), "wrong_suffix")
    assert finding.severity == "note"
    assert "c.jpg: is a PNG file by its content" in finding.message


def test_classes_that_are_evaluated_and_never_trained(root):
    for name in TRAIN:
        write_mask(root / "masks" / f"{name}.png", np.minimum(make_ids(seed=ord(name)), 1))
    report = lint(root)
    assert "never shows tree, which 'val' does" in found(report, "unseen_class")[0].message
    assert found(report, "absent_class")[0].message == "train: never shows tree"
    assert len(report.findings) == 2


def test_splits_that_are_not_there(root):
    report = lint(root, train_split="trian")
    assert (
        "has no split 'trian'; its splits and their sizes: train (5), val (2)"
        in the_only(report, "missing_split").message
    )


def test_rendered_scenes_are_examples_without_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "INFO", shapes.INFO.__class__(*_fields(shapes.INFO, splits={"train": 6, "val": 3})))
    dataset = shapes.open_dataset("", str(tmp_path))
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    assert report.num_samples == 9
    assert {finding.severity for finding in report.findings} <= {"note", "warning"}
    assert report.counts["train"].num_images == 6


def _fields(info, **changes):
    return [changes.get(name, getattr(info, name)) for name in info.__slots__]


def test_a_split_that_cannot_be_opened_is_a_finding(root):
    """A data set that tells no files, and whose preparation fails."""
    dataset = folder.open_dataset(str(root), str(root.parent / "prepared"))
    write_mask(root / "masks" / "v.png", np.full((20, 30), 9, np.uint8))
    blind = dataset.__class__(dataset.info, dataset.open_split)
    report = lint_dataset(blind, train_split="train", eval_split="val")
    (finding,) = found(report, "unreadable")
    assert "v.png: holds the value 9" in finding.message
    assert report.counts["train"].num_images == 5


@pytest.fixture
def pets(shared, tmp_path):
    """A copy of the small lists of real photographs in VOC's form."""
    source, root = shared / "data" / "pets", tmp_path / "pets"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part in ("JPEGImages", "SegmentationClass"):
        (root / part).mkdir()
    names = {}
    for split in ("train", "val"):
        text = (source / "ImageSets" / "Segmentation" / f"{split}_mini.txt").read_text()
        (lists / f"{split}.txt").write_text(text)
        names[split] = text.split()
        for name in names[split]:
            shutil.copy(source / "JPEGImages" / f"{name}.jpg", root / "JPEGImages")
            shutil.copy(source / "SegmentationClass" / f"{name}.png", root / "SegmentationClass")
    return root, names


def lint_pets(root, **options):
    return lint_dataset(voc.open_dataset(str(root), ""), train_split="train", eval_split="val", **options)


def test_every_fault_planted_in_real_photographs_is_found_beside_the_others(pets, shared, tmp_path):
    root, names = pets
    assert {finding.kind for finding in lint_pets(root).findings} == {"absent_class"}
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    train, val = names["train"], names["val"]

    def ids_of(name):
        return np.array(Image.open(masks / f"{name}.png"))

    planted = {}
    data = (images / f"{train[0]}.jpg").read_bytes()
    (images / f"{train[0]}.jpg").write_bytes(data[: len(data) * 2 // 3])
    planted[images / f"{train[0]}.jpg"] = "unreadable"

    data = (masks / f"{train[1]}.png").read_bytes()
    (masks / f"{train[1]}.png").write_bytes(data[: len(data) // 2])
    planted[masks / f"{train[1]}.png"] = "unreadable"

    (images / f"{train[2]}.jpg").unlink()
    planted[images / f"{train[2]}.jpg"] = "missing_file"

    Image.fromarray(ids_of(train[3])[:-1]).save(masks / f"{train[3]}.png")
    planted[masks / f"{train[3]}.png"] = "size_mismatch"

    ids = ids_of(train[4])
    ids[10, 20:23] = 77
    Image.fromarray(ids).save(masks / f"{train[4]}.png")
    planted[masks / f"{train[4]}.png"] = "invalid_value"

    Image.open(masks / f"{train[5]}.png").convert("RGB").save(masks / f"{train[5]}.png")
    planted[masks / f"{train[5]}.png"] = "palette_as_rgb"

    colors = Image.open(masks / f"{train[6]}.png").convert("RGB")
    colors.resize((colors.width // 2, colors.height // 2), Image.Resampling.BILINEAR).resize(colors.size).save(
        masks / f"{train[6]}.png"
    )
    planted[masks / f"{train[6]}.png"] = "color_mask"

    Image.open(masks / f"{train[7]}.png").convert("RGB").convert("L").save(masks / f"{train[7]}.png")
    planted[masks / f"{train[7]}.png"] = "palette_as_grey"

    Image.fromarray(np.full_like(ids_of(train[8]), 255)).save(masks / f"{train[8]}.png")
    planted[masks / f"{train[8]}.png"] = "all_ignored"

    Image.fromarray(np.zeros_like(ids_of(train[9]))).save(masks / f"{train[9]}.png")
    planted[masks / f"{train[9]}.png"] = "all_background"

    # A picture of the training split under another name, in another format.
    (images / f"{val[0]}.jpg").unlink()
    Image.open(images / f"{train[10]}.jpg").save(images / f"{val[0]}.png")
    Image.fromarray(ids_of(train[10])).save(masks / f"{val[0]}.png")
    planted[images / f"{train[10]}.jpg"] = "shared_image"

    report = lint_pets(root, convert_to=tmp_path / "new")
    faults = [finding for finding in report.findings if finding.severity != "note"]
    by_file = {pathlib.Path(finding.file): finding for finding in faults}
    assert len(by_file) == len(faults)
    assert {path: finding.kind for path, finding in by_file.items()} == planted
    assert by_file[masks / f"{train[4]}.png"].values == {"77": 3}
    assert val[0] in by_file[images / f"{train[10]}.jpg"].message
    refused = {train[k] for k in (0, 1, 2, 3, 4, 6)}
    assert {pathlib.Path(path).stem for path in report.copy.refused} == refused
    copied = {path.stem: path for path in (tmp_path / "new" / "masks").iterdir()}
    assert copied.keys() == {*train, *val} - refused
    for name in (train[5], train[7], train[11]):
        want = np.array(Image.open(shared / "data" / "pets" / "SegmentationClass" / f"{name}.png"))
        np.testing.assert_array_equal(decode_mask(copied[name].read_bytes(), ""), want)
