"""PASCAL-Context: fully labelled VOC 2010 images; the 59 most frequent classes and background, as in DeepLab v2.

`root` contains VOC 2010 (JPEGImages and ImageSets, or VOCdevkit/VOC2010 with them) and, inside it or next to it, the
labels in one of two forms:

    trainval/NAME.mat                      as published: 'LabelMap', ids 1 to 459; with VOC's own lists,
                                           ImageSets/Main/SPLIT.txt
    SegmentationClassContext/NAME.png      as converted by mmsegmentation: ids 0 to 59; with its lists,
                                           ImageSets/SegmentationContext/SPLIT.txt

or the original archives. Class ids follow the list of 459 labels, which is alphabetical, as in GluonCV,
PyTorch-Encoding and mmsegmentation; 0 is background, everything outside the 59 classes, which `pascal_context_59`
ignores. The merged JSON file of the Detail API is not supported. There are no official colours: VOC's palette is used.

Source: Mottaghi et al. 2014, https://cs.stanford.edu/~roozbeh/pascal-context
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.io
from jaxtyping import UInt8

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.data.sources.samples import Sample, image_name, read_bytes
from deeplab_jax.data.sources.text_files import read_list
from deeplab_jax.types import DatasetInfo, UserError

# Name -> position in the published list of 459 labels.
CLASSES = {
    "aeroplane": 2,
    "bag": 9,
    "bed": 18,
    "bedclothes": 19,
    "bench": 22,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "book": 33,
    "bottle": 34,
    "building": 44,
    "bus": 45,
    "cabinet": 46,
    "car": 59,
    "cat": 65,
    "ceiling": 68,
    "chair": 72,
    "cloth": 80,
    "computer": 85,
    "cow": 98,
    "cup": 104,
    "curtain": 105,
    "dog": 113,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "horse": 207,
    "keyboard": 220,
    "light": 232,
    "motorbike": 258,
    "mountain": 259,
    "mouse": 260,
    "person": 284,
    "plate": 295,
    "platform": 296,
    "pottedplant": 308,
    "road": 324,
    "rock": 326,
    "sheep": 347,
    "shelves": 349,
    "sidewalk": 354,
    "sign": 355,
    "sky": 360,
    "snow": 366,
    "sofa": 368,
    "table": 397,
    "track": 415,
    "train": 416,
    "tree": 420,
    "truck": 424,
    "tvmonitor": 427,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
INFO = make_info("pascal_context", ("background", *CLASSES))
NUM_LABELS = 459

VOC_2010 = Archive("VOCtrainval_03-May-2010.tar", wanted=r"/(JPEGImages|ImageSets/Main)/[^/]+$")
ARCHIVES = (VOC_2010, Archive("trainval.tar.gz", wanted=r"/trainval/[^/]+\.mat$"))
_REMEDY = (
    f"get http://host.robots.ox.ac.uk/pascal/VOC/voc2010/{VOC_2010.name} and "
    "https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz and give config.data.root their folder, "
    "or the unpacked folder with VOCdevkit/VOC2010/ and trainval/"
)
_DEVKITS = (".", "VOC2010", "VOCdevkit/VOC2010")


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens PASCAL-Context with 59 classes and background at `root`.

    Raises:
      UserError: if `root` does not contain it; says which files are needed.
    """
    return open_classes(INFO, root, prepared_dir)


def open_classes(info: DatasetInfo, root: str, prepared_dir: str) -> Dataset:
    """Opens the data set; if `info` has no background class, background is ignored.

    Raises:
      UserError: as `open_dataset`.
    """
    splits = locate(root, prepared_dir, archives=ARCHIVES, find=_find_splits, title="PASCAL-Context", remedy=_REMEDY)
    first = INFO.num_classes - info.num_classes  # 1 without background
    id_map = {0: info.ignore_label} | {value: value - first for value in range(first, INFO.num_classes)}
    return file_dataset(info, splits, prepared_dir=prepared_dir, id_map=id_map, read_ids=read_ids)


def read_ids(sample: Sample) -> UInt8[np.ndarray, "h w"]:
    """The ids, 0 to 59, in a sample's labels of either form.

    Raises:
      UserError: if the file cannot be read or is not a label map.
    """
    if sample.mask.suffix != ".mat":
        return decode_mask(read_bytes(sample.mask), str(sample.mask))
    try:
        labels = scipy.io.loadmat(io.BytesIO(read_bytes(sample.mask)))["LabelMap"]
    except UserError:
        raise
    except Exception as error:  # SciPy raises various exceptions for damaged files
        reason = " ".join(str(error).split())
        raise UserError(f"{sample.mask}: is no label map of PASCAL-Context ({reason}); unpack it again") from None
    if labels.ndim != 2 or labels.min() < 0 or labels.max() > NUM_LABELS:
        raise UserError(
            f"{sample.mask}: LabelMap has the shape {labels.shape} and values up to {labels.max()}; must be "
            f"height x width and at most {NUM_LABELS}; unpack it again"
        )
    table = np.zeros(NUM_LABELS + 1, np.uint8)
    table[list(CLASSES.values())] = np.arange(1, len(CLASSES) + 1)
    return table[labels]


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, list[Sample]] | None:
    images = first_folder(folders, [f"{inner}/JPEGImages" for inner in _DEVKITS])
    if images is None:
        return None
    devkit = images.parent
    label_maps = first_folder([*folders, devkit], ["trainval"])
    converted = first_folder([*folders, devkit], ["SegmentationClassContext"])
    if label_maps:
        masks, suffix, lists = label_maps, ".mat", devkit / "ImageSets" / "Main"
    elif converted:
        masks, suffix, lists = converted, ".png", devkit / "ImageSets" / "SegmentationContext"
    else:
        return None
    splits = {}
    for split in ("train", "val", "trainval"):
        if (lists / f"{split}.txt").is_file():
            names = [image_name(line) for line in read_list(lists / f"{split}.txt")]
            splits[split] = [Sample(name, images / f"{name}.jpg", masks / f"{name}{suffix}") for name in names]
    return splits or None
