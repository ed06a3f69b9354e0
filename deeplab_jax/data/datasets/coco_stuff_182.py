"""COCO-Stuff with all 182 labels of its maps, 11 of which have no pixel anywhere: see `coco_stuff`."""

from __future__ import annotations

from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.datasets.coco_stuff import LABEL_NAMES, choose_labels, open_labels

_VALUES = range(len(LABEL_NAMES))
INFO = choose_labels("coco_stuff_182", _VALUES)


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens COCO-Stuff at `root` with the values of its maps as class ids; '': downloads it.

    Raises:
      UserError: if `root` does not contain it or the download fails; says which files are needed.
    """
    return open_labels(INFO, root, prepared_dir, _VALUES)
