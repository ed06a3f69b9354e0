"""PASCAL-Person-Part: people in VOC 2010's images, six body parts and background, as in DeepLab v2.

`root` contains VOC's images (JPEGImages, or VOCdevkit/VOC2010 or VOC2012 with it) and, inside it or next to it, the
annotations:

    pascal_person_part_gt/NAME.png              ids 0 to 6, and 255 where unlabelled
    pascal_person_part_trainval_list/SPLIT.txt  or SPLIT_id.txt

optionally in a folder pascal_person_part; or the original archives.

Source: Chen et al. 2014 (arXiv:1406.2031), merged to six parts by Chen et al. 2016 (1511.03339)
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.datasets.pascal_context import VOC_2010
from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.samples import Sample, image_name, list_samples
from deeplab_jax.data.sources.text_files import read_list

INFO = make_info(
    "pascal_person_part", ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
)

ANNOTATIONS = Archive("pascal_person_part.zip", wanted=r"/pascal_person_part_(gt/[^/]+\.png|trainval_list/[^/]+\.txt)$")
_REMEDY = (
    f"get http://host.robots.ox.ac.uk/pascal/VOC/voc2010/{VOC_2010.name} and "
    f"http://liangchiehchen.com/data/{ANNOTATIONS.name} and give config.data.root their folder, or the "
    "unpacked folder with VOCdevkit/VOC2010/ and pascal_person_part/"
)
_DEVKITS = (".", "VOC2010", "VOCdevkit/VOC2010", "VOC2012", "VOCdevkit/VOC2012")


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens PASCAL-Person-Part at `root`.

    Raises:
      UserError: if `root` does not contain it; says which files are needed.
    """
    splits = locate(
        root,
        prepared_dir,
        archives=[VOC_2010, ANNOTATIONS],
        find=_find_splits,
        title="PASCAL-Person-Part",
        remedy=_REMEDY,
    )
    return file_dataset(INFO, splits, prepared_dir=prepared_dir)


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, list[Sample]] | None:
    images = first_folder(folders, [f"{inner}/JPEGImages" for inner in _DEVKITS])
    if images is None:
        return None
    inner = ("pascal_person_part", ".")
    masks = first_folder([*folders, images.parent], [f"{name}/pascal_person_part_gt" for name in inner])
    lists = first_folder([*folders, images.parent], [f"{name}/pascal_person_part_trainval_list" for name in inner])
    if masks is None or lists is None:
        return None
    splits = {}
    for split in ("train", "val", "trainval"):
        path = next((lists / name for name in (f"{split}.txt", f"{split}_id.txt") if (lists / name).is_file()), None)
        if path:
            # A line is a name, or '/JPEGImages/NAME.jpg' and the path of the mask.
            names = [image_name(line.split()[0]) for line in read_list(path)]
            splits[split] = list_samples(names, images, masks)
    return splits or None
