"""PASCAL VOC 2012 segmentation, and anything laid out like it.

`root` is the folder with JPEGImages, SegmentationClass and ImageSets/Segmentation, or a folder above it (VOCdevkit or
its parent), or the original archive, or the folder with the archive. Without a root the archive is downloaded. Each
list in ImageSets/Segmentation is a split.

`trainaug` consists of the 10,582 images of SBD (Hariharan et al. 2011), with masks in SegmentationClassAug and the list
ImageSets/Segmentation/trainaug.txt (or train_aug.txt).

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources.archives import Archive, locate
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.samples import Sample, image_name, list_samples
from deeplab_jax.data.sources.text_files import read_list
from deeplab_jax.types import ExampleSource, UserError

INFO = make_info(
    "voc",
    (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)

ARCHIVE = Archive(
    "VOCtrainval_11-May-2012.tar",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    checksum="sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    wanted=r"/(JPEGImages|SegmentationClass|SegmentationClassAug|ImageSets/Segmentation)/[^/]+$",
)
_REMEDY = (
    f"get {ARCHIVE.url} and give config.data.root its folder, "
    "or the unpacked folder with JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/"
)
_LISTS = pathlib.PurePosixPath("ImageSets/Segmentation")


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens VOC 2012, or data of its form, at `root`; '': downloads it.

    Raises:
      UserError: if `root` contains no such data or the download fails; says which files are needed.
    """
    folder = locate(root, prepared_dir, archives=[ARCHIVE], find=_find_devkit, title="VOC", remedy=_REMEDY)
    splits: dict[str, list[Sample]] = {}
    for path in sorted((folder / _LISTS).glob("*.txt")):
        is_augmented = path.stem in ("trainaug", "train_aug")
        masks = folder / ("SegmentationClassAug" if is_augmented else "SegmentationClass")
        if masks.is_dir():
            # Some lists contain "/JPEGImages/NAME.jpg /SegmentationClassAug/NAME.png".
            names = [image_name(line.split()[0]) for line in read_list(path)]
            splits["trainaug" if is_augmented else path.stem] = list_samples(names, folder / "JPEGImages", masks)
    dataset = file_dataset(INFO, splits, prepared_dir=prepared_dir)

    def open_split(split: str) -> ExampleSource:
        if split == "trainaug" and split not in splits:
            raise UserError(
                f"{folder}: has no split 'trainaug'; put the 10,582 masks of SBD into SegmentationClassAug/ "
                f"and their names into {_LISTS / 'trainaug.txt'}"
            )
        return dataset.open_split(split)

    return dataclasses.replace(dataset, open_split=open_split)


def _find_devkit(folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The folder with JPEGImages, SegmentationClass and ImageSets/Segmentation."""
    for folder in (path / inner for path in folders for inner in ("", "VOC2012", "VOCdevkit/VOC2012")):
        if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir() and (folder / _LISTS).is_dir():
            return folder
    return None
