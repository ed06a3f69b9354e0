"""Images and masks are found whatever their folders are called; what may be read in two ways is refused."""

from __future__ import annotations

import json
import os
import pathlib
import unicodedata

import pytest

from deeplab_jax.data.sources.find_pairs import find_splits
from deeplab_jax.data.sources.path_words import FolderWords, Role, folder_words, inner_folder
from deeplab_jax.types import UserError


def make(folder: pathlib.Path, *files: str) -> pathlib.Path:
    """Empty files: only their names matter."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def pairs(folder: pathlib.Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Split -> name -> (image, mask)."""
    return {
        split: {
            sample.name: (str(sample.image.relative_to(folder)), str(sample.mask.relative_to(folder)))
            for sample in sorted(samples, key=lambda sample: sample.name)
        }
        for split, samples in find_splits(folder).splits.items()
    }


def drawn(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    found = pairs(folder)
    assert list(found) == ["train", "val"]
    return dict(sorted((found["train"] | found["val"]).items()))


def refused(folder: pathlib.Path) -> str:
    with pytest.raises(UserError) as caught:
        find_splits(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("imgs/{}.jpg", "labels/{}_mask.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("images/{}.jpg", "annotations/trimaps/{}.png"),
        ("images/{}.jpg", "masks/{}_gt.png"),
        ("images/{}.jpg", "masks/{}_L.png"),
        ("images/{}.jpg", "masks/mask_{}.png"),
        ("data/{}_image.png", "data/{}_annotation.png"),
        ("{}.jpg", "{}.png"),
        ("{}.png", "{}_mask.png"),
        ("images/{}.png", "images/{}_label.png"),
        ("images/{}_rgb.png", "masks/{}_seg.png"),
        ("photos/{}.jpg", "masks/{}.png"),
        ("unusual/{}.jpg", "masks/{}.png"),
        ("set/images/{}.png", "set/masks/{}.png"),
        ("img_dir/{}.png", "ann_dir/{}.png"),
        ("images/{}.jpg", "masks/{}.jpg.png"),
        ("images/image{}.png", "masks/mask{}.png"),
        ("Images/A{}.JPG", "Masks/a{}.png"),
        ("scene{}/image.png", "scene{}/mask.png"),
    ],
)
def test_names_and_folders(tmp_path, image, mask):
    names = [f"{index:03d}" for index in range(1, 8)]
    make(tmp_path, *(pattern.format(name) for name in names for pattern in (image, mask)))
    assert list(drawn(tmp_path).values()) == [(image.format(name), mask.format(name)) for name in names]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{}/a.png", "masks/{}/a.png"),
        ("{}/images/a.png", "{}/masks/a.png"),
        ("{}/a.jpg", "{}/a_mask.png"),
        ("{}/a.jpg", "{}_masks/a_mask.gif"),
        ("{}/a.png", "{}annot/a.png"),
        ("images_{}2017/a.png", "labels_{}2017/a.png"),
    ],
)
def test_splits_by_folder(tmp_path, image, mask):
    make(tmp_path, *(pattern.format(split) for split in ("train", "val") for pattern in (image, mask)))
    assert pairs(tmp_path) == {split: {"a": (image.format(split), mask.format(split))} for split in ("train", "val")}


def test_splits_go_by_their_usual_names(tmp_path):
    make(
        tmp_path, *(f"{kind}/{split}/a.png" for kind in ("images", "masks") for split in ("training", "valid", "mine"))
    )
    make(tmp_path, "images/test/a.png")  # nothing to score
    assert list(pairs(tmp_path)) == ["mine", "train", "val"]


@pytest.mark.parametrize("pattern", ["{kind}/{site}/{name}.png", "{site}/{kind}/{name}.png"])
def test_folders_within_folders_keep_their_names_apart(tmp_path, pattern):
    sites = [(site, name) for site in ("site_a", "site_b") for name in ("000", "001", "002")]
    make(tmp_path, *(pattern.format(kind=kind, site=s, name=n) for kind in ("images", "masks") for s, n in sites))
    found = drawn(tmp_path)
    assert list(found) == [f"{site}/{name}" for site, name in sites]
    assert found["site_b/001"][1] == pattern.format(kind="masks", site="site_b", name="001")


def test_what_systems_and_tools_leave_behind_is_passed_over(tmp_path):
    make(tmp_path, *(f"{kind}/im{index}.png" for kind in ("images", "masks") for index in range(12)))
    for kind in ("images", "masks"):
        make(tmp_path, f"__MACOSX/{kind}/._im0.png", f"{kind}/._im0.png", f"{kind}/.DS_Store", f"{kind}/Thumbs.db")
        make(tmp_path, f"{kind}/.ipynb_checkpoints/im3-checkpoint.png")
    assert len(drawn(tmp_path)) == 12
    assert not any("not used" in note for note in find_splits(tmp_path).notes)


def test_a_backup_inside_is_told_and_not_used(tmp_path):
    files = [f"{kind}/im{index:02d}.png" for kind in ("images", "masks") for index in range(12)]
    make(tmp_path, *files, *(f"backup_2023/{file}" for file in files), "legend.png")
    assert len(drawn(tmp_path)) == 12
    assert find_splits(tmp_path).notes == (
        "masks are found as masks/im00.png for images/im00.png; splits (drawn): train 9, val 3",
        "images that are not used: ./ (1), backup_2023/images/ (12), backup_2023/masks/ (12)",
    )


def test_two_masks_for_one_image(tmp_path):
    make(tmp_path, "images/a.png", "masks/a.png", "masks/a_mask.png")
    assert refused(tmp_path).startswith(
        f"{tmp_path}/masks/a.png: and a_mask.png both fit the image images/a.png; keep one of them, or tell them"
    )


def test_several_masks_of_one_image(tmp_path):
    make(tmp_path, "benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "b.png", "b_mask.png")
    assert "benign (1)_mask.png: and benign (1)_mask_1.png both fit the image benign (1).png" in refused(tmp_path)


def test_masks_and_masks_of_another_kind(tmp_path):
    """A folder called masks goes before one that is also called so."""
    make(tmp_path, "images/a.png", "masks/a.png", "masks_old/a.png")
    assert drawn(tmp_path) == {"a": ("images/a.png", "masks/a.png")}
    make(tmp_path, "labels/a.png")
    assert "have the same name; keep one of them" in refused(tmp_path)


def test_a_folder_around_everything(tmp_path):
    make(tmp_path, "kvasir/kvasir-v2/images/a.png", "kvasir/kvasir-v2/masks/a.png")
    assert inner_folder(tmp_path) == tmp_path / "kvasir" / "kvasir-v2"
    make(tmp_path, "other/images/a.png")
    assert inner_folder(tmp_path / "other") == tmp_path / "other"  # its masks are missing


def test_two_images_of_one_name(tmp_path):
    make(tmp_path, "images/a.png", "imgs/a.png", "masks/a.png")
    assert refused(tmp_path) == f"{tmp_path}/imgs/a.png: and images/a.png have the same name; keep one of them"


def test_a_mask_whose_name_is_another_images(tmp_path):
    """No affix is taken off where the whole name fits."""
    make(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in ("cell", "cell_mask")))
    assert drawn(tmp_path)["cell_mask"] == ("images/cell_mask.png", "masks/cell_mask.png")


def test_no_two_names_agree(tmp_path):
    make(tmp_path, "images/photo1.png", "masks/1.png")
    assert refused(tmp_path).startswith(
        f"{tmp_path}: no name of its 1 images (images/photo1.png, ...) is that of one of its 1 masks (masks/1.png, ...)"
    )


def test_no_masks(tmp_path):
    make(tmp_path, "a.png", "b.png")
    assert "holds 2 images (a.png, ...) and nothing that can be told to be their masks; put these into" in refused(
        tmp_path
    )


def test_patterns_say_what_names_do_not(tmp_path):
    make(tmp_path, "photo/a-1.jpg", "photo/a-2.jpg", "trimap/seg-a-1-final.png", "trimap/seg-a-2-final.png")
    settings = {"images": "photo/{name}.jpg", "masks": "trimap/seg-{name}-*.png"}
    (tmp_path / "classes.json").write_text(json.dumps(settings))
    assert drawn(tmp_path) == {name: (f"photo/{name}.jpg", f"trimap/seg-{name}-final.png") for name in ("a-1", "a-2")}


def test_patterns_may_name_the_split(tmp_path):
    make(tmp_path, *(f"x_{split}/{kind}/b/a.png" for split in ("train", "valid") for kind in ("p", "q")))
    settings = {"images": "x_{split}/p/{name}.png", "masks": "x_{split}/q/{name}.png"}
    (tmp_path / "classes.json").write_text(json.dumps(settings))
    assert pairs(tmp_path)["val"] == {"a": ("x_valid/p/b/a.png", "x_valid/q/b/a.png")}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"images": "images/{name}.png"}, 'has "masks": None; write a path with {name} in it'),
        ({"images": "images/{name}.png", "masks": "masks/*.png"}, "has \"masks\": 'masks/*.png'; write a path"),
        ({"images": "images/{name}.tif", "masks": "masks/{name}.png"}, "which fits no file in"),
        ({"images": "*/{name}.png", "masks": "masks/{name}.png"}, 'fits the pattern "images" and "masks" alike'),
    ],
)
def test_patterns_that_make_no_sense(tmp_path, settings, problem):
    make(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "classes.json").write_text(json.dumps(settings))
    assert problem in refused(tmp_path)


def test_names_that_are_no_utf_8(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (pathlib.Path(os.fsdecode(os.fsencode(tmp_path / kind) + b"/caf\xe9.png"))).touch()
    make(tmp_path, "images/a.png", "masks/a.png", "splits/train.txt")
    (tmp_path / "splits" / "train.txt").write_bytes(b"caf\xe9\n")
    (sample,) = find_splits(tmp_path).splits["train"]
    assert sample.name == r"caf\xe9"
    assert sample.image.exists()
    assert sample.mask.exists()


def test_accents_however_they_are_written(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    make(tmp_path, f"images/{decomposed}.png", f"masks/{decomposed}.png", "splits/train.txt")
    (tmp_path / "splits" / "train.txt").write_text(unicodedata.normalize("NFC", "café"), encoding="utf-8")
    (sample,) = find_splits(tmp_path).splits["train"]
    assert sample.image.exists()
    assert sample.mask.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_masks", FolderWords("train", Role.MASK)),
        ("trainannot", FolderWords("train", Role.MASK)),
        ("imagesTr", FolderWords("train", Role.IMAGE)),
        ("val2017", FolderWords("val", None)),
        ("JPEGImages", FolderWords("", Role.IMAGE)),
        ("Task1_Training_GroundTruth", FolderWords("train", Role.MASK, is_whole=False)),
        ("img_dir", FolderWords("", Role.IMAGE, is_whole=False)),
        ("SegmentationObject", FolderWords("", None)),
        ("tr", FolderWords("", None)),
        ("trees", FolderWords("", None)),
        ("train_station", FolderWords("", None)),
        ("testimony", FolderWords("", None)),
        ("site_a", FolderWords("", None)),
    ],
)
def test_words_of_folders(name, words):
    assert folder_words(name) == words
