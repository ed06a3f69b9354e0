"""CamVid: street scenes from a driving car, 360x480, 11 classes.

`root` is laid out like the data set `folder` (images/, masks/, splits/; no classes file is needed), or as in the SegNet
tutorial: SPLIT/ and SPLITannot/ for train, val and test, where the mask value 11 is ignored.

Source: Brostow, Fauqueur, Cipolla 2008; 11 classes: SegNet (1511.00561), sec. 4
"""

from __future__ import annotations

import pathlib

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.find_pairs import find_splits
from deeplab_jax.data.sources.samples import find_images, list_samples, require_folder
from deeplab_jax.types import UserError

_CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
INFO = make_info("camvid", tuple(_CLASSES), tuple(_CLASSES.values()))
_SEGNET_VOID_ID = 11


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens CamVid at `root`.

    Raises:
      UserError: if `root` has neither layout.
    """
    if not root:
        raise UserError("config.data.root is empty; give the folder with CamVid's images/, masks/ and splits/")
    folder = require_folder(pathlib.Path(root).expanduser(), "data.root")
    id_map, notes = None, tuple[str, ...]()
    segnet_splits = [split for split in ("train", "val", "test") if (folder / f"{split}annot").is_dir()]
    if segnet_splits:
        splits = {
            split: list_samples(find_images(folder / split), folder / split, folder / f"{split}annot")
            for split in segnet_splits
        }
        id_map = {class_id: class_id for class_id in range(INFO.num_classes)} | {_SEGNET_VOID_ID: INFO.ignore_label}
    else:
        splits, notes = find_splits(folder)
    return file_dataset(INFO, splits, prepared_dir=prepared_dir, id_map=id_map, notes=notes)
