"""PASCAL VOC 2012 segmentation, and anything laid out like it.

`root` is the folder with JPEGImages, SegmentationClass and ImageSets/Segmentation, or a folder above it (VOCdevkit or
its parent), or the original archive, or the folder with the archive. Without a root the archive is downloaded. Each
list in ImageSets/Segmentation is a split.

`trainaug` consists of 10,582 images of VOC and SBD (Hariharan et al. 2011): from SBD as published, its folder
benchmark_RELEASE or archive benchmark.tgz in `root` or beside the data; or from masks in SegmentationClassAug with the
list ImageSets/Segmentation/trainaug.txt (or train_aug.txt).

Source: Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources import sbd_masks
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
    sbd = _find_sbd(root, folder, prepared_dir) if "trainaug" not in splits else None
    if sbd is None:
        dataset = file_dataset(INFO, splits, prepared_dir=prepared_dir)
    else:
        splits["trainaug"] = sbd_masks.trainaug_samples(folder, sbd)
        dataset = file_dataset(INFO, splits, prepared_dir=prepared_dir, read_ids=sbd_masks.read_ids)

    def open_split(split: str) -> ExampleSource:
        if split == "trainaug" and split not in splits:
            raise UserError(
                f"{folder}: has no split 'trainaug'; put SBD's {sbd_masks.ARCHIVE.name} or benchmark_RELEASE/ there, "
                f"or its 10,582 masks into SegmentationClassAug/ and their names into {_LISTS / 'trainaug.txt'}"
            )
        return dataset.open_split(split)

    return dataclasses.replace(dataset, open_split=open_split)


def _find_sbd(root: str, devkit: pathlib.Path, prepared_dir: str) -> pathlib.Path | None:
    """SBD's folder in `root`, in the devkit or beside it, unpacked from its archive if need be."""
    given = [pathlib.Path(root).expanduser()] if root else []
    folders = list(dict.fromkeys([*(path.parent if path.is_file() else path for path in given), devkit, devkit.parent]))
    found = sbd_masks.find_sbd(folders)
    packed = next((path for folder in folders if (path := folder / sbd_masks.ARCHIVE.name).is_file()), None)
    if found or packed is None:
        return found
    remedy = f"get {sbd_masks.ARCHIVE.url}"
    archives = [sbd_masks.ARCHIVE]
    return locate(str(packed), prepared_dir, archives=archives, find=sbd_masks.find_sbd, title="SBD", remedy=remedy)


def _find_devkit(folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The folder with JPEGImages, SegmentationClass and ImageSets/Segmentation."""
    for folder in (path / inner for path in folders for inner in ("", "VOC2012", "VOCdevkit/VOC2012")):
        if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClass").is_dir() and (folder / _LISTS).is_dir():
            return folder
    return None
