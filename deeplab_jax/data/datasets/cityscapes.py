"""Cityscapes: street scenes of 50 cities, 1024x2048, 19 classes for training and scores.

`root` has the official layout, or contains the original archives, which require registration:

    leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png            train, val, test
    gtCoarse/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtCoarse_labelIds.png        train, val, train_extra

The coarse splits are called 'train_coarse', 'val_coarse' and 'train_extra'; 'trainval' is fine train followed by val.
The masks of 'test' have no labels. The 34 label ids become train ids 0 to 18 or, if they are not evaluated, the ignore
label; `to_label_ids` converts back for the benchmark's server.

Source: Cordts et al. 2016 (arXiv:1604.01685); labels.py of https://github.com/mcordts/cityscapesScripts
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from deeplab_jax.data.dataset import IGNORE_LABEL, Dataset, make_info
from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.samples import Sample


class TrainClass(NamedTuple):
    """One of the evaluated classes."""

    label_id: int  # in the masks
    name: str
    color: tuple[int, int, int]  # RGB


# In the order of the train ids.
CLASSES = (
    TrainClass(7, "road", (128, 64, 128)),
    TrainClass(8, "sidewalk", (244, 35, 232)),
    TrainClass(11, "building", (70, 70, 70)),
    TrainClass(12, "wall", (102, 102, 156)),
    TrainClass(13, "fence", (190, 153, 153)),
    TrainClass(17, "pole", (153, 153, 153)),
    TrainClass(19, "traffic light", (250, 170, 30)),
    TrainClass(20, "traffic sign", (220, 220, 0)),
    TrainClass(21, "vegetation", (107, 142, 35)),
    TrainClass(22, "terrain", (152, 251, 152)),
    TrainClass(23, "sky", (70, 130, 180)),
    TrainClass(24, "person", (220, 20, 60)),
    TrainClass(25, "rider", (255, 0, 0)),
    TrainClass(26, "car", (0, 0, 142)),
    TrainClass(27, "truck", (0, 0, 70)),
    TrainClass(28, "bus", (0, 60, 100)),
    TrainClass(31, "train", (0, 80, 100)),
    TrainClass(32, "motorcycle", (0, 0, 230)),
    TrainClass(33, "bicycle", (119, 11, 32)),
)
INFO = make_info("cityscapes", tuple(one.name for one in CLASSES), tuple(one.color for one in CLASSES))
NUM_LABEL_IDS = 34
UNLABELED_ID = 0  # of ignored pixels, in `to_label_ids`

_IMAGES, _MASKS = r"/leftImg8bit/.+_leftImg8bit\.png$", r"/gt(Fine|Coarse)/.+_labelIds\.png$"
# Downloads require registration; checksums: docs/datasets.md.
ARCHIVES = (
    Archive("leftImg8bit_trainvaltest.zip", wanted=_IMAGES),
    Archive("gtFine_trainvaltest.zip", wanted=_MASKS),
    Archive("leftImg8bit_trainextra.zip", wanted=_IMAGES),
    Archive("gtCoarse.zip", wanted=_MASKS),
)
_REMEDY = (
    "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com/downloads "
    "and give config.data.root their folder, or the unpacked folder with leftImg8bit/ and gtFine/"
)
# Our split -> (annotations, split) of the original.
_SPLITS = {
    "train": ("gtFine", "train"),
    "val": ("gtFine", "val"),
    "test": ("gtFine", "test"),
    "train_coarse": ("gtCoarse", "train"),
    "val_coarse": ("gtCoarse", "val"),
    "train_extra": ("gtCoarse", "train_extra"),
}


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens Cityscapes at `root`.

    Raises:
      UserError: if `root` does not contain it; says which files are needed.
    """
    splits = locate(root, prepared_dir, archives=ARCHIVES, find=_find_splits, title="Cityscapes", remedy=_REMEDY)
    id_map = dict.fromkeys(range(NUM_LABEL_IDS), INFO.ignore_label)
    id_map |= {train_class.label_id: train_id for train_id, train_class in enumerate(CLASSES)}
    return file_dataset(INFO, splits, prepared_dir=prepared_dir, id_map=id_map)


def to_label_ids(train_ids: Integer[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Predictions in the ids that the benchmark's server expects; the ignore label becomes 'unlabeled'.

    Raises:
      ValueError: if there are ids other than 0 to 18 and the ignore label.
    """
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[: len(CLASSES)] = [train_class.label_id for train_class in CLASSES]
    table[IGNORE_LABEL] = UNLABELED_ID
    is_known = ((train_ids >= 0) & (train_ids < len(CLASSES))) | (train_ids == IGNORE_LABEL)
    if not is_known.all():
        raise ValueError(f"train id {train_ids[~is_known][0]}: must be 0 to {len(CLASSES) - 1} or {IGNORE_LABEL}")
    return table[train_ids]


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, list[Sample]] | None:
    splits = {}
    for split, (kind, theirs) in _SPLITS.items():
        images = first_folder(folders, [f"leftImg8bit/{theirs}"])
        masks = first_folder(folders, [f"{kind}/{theirs}"])
        if images and masks:
            splits[split] = _list_samples(images, masks, kind)
    if "train" in splits and "val" in splits:
        splits["trainval"] = splits["train"] + splits["val"]
    return splits or None


def _list_samples(images: pathlib.Path, masks: pathlib.Path, kind: str) -> list[Sample]:
    suffix = "_leftImg8bit.png"
    paths = {path.name.removesuffix(suffix): path for path in sorted(images.glob(f"*/*{suffix}"))}
    return [
        Sample(name, path, masks / path.parent.name / f"{name}_{kind}_labelIds.png") for name, path in paths.items()
    ]
