"""COCO-Stuff: all of COCO 2017 with 80 thing and 91 stuff classes, 171 in all.

`root` contains the photographs, train2017/ and val2017/ (or in images/), and the unpacked archive of maps: train2017/
and val2017/ in annotations/, stuffthingmaps/ or stuffthingmaps_trainval2017/. Or it contains the original archives.
Without a root they are downloaded (20 GB).

A map's value is the label id minus one, 0 to 181, or 255 if unlabelled. 11 of these ids have names but no pixel
anywhere: COCO dropped them. Classes are the other 171, renumbered in the same order, as in mmsegmentation;
`coco_stuff_182` keeps the values, as Caffe's DeepLab v2 and its PyTorch reimplementation do. COCO-Stuff has no official
colours: in both data sets a class has VOC's colour of its label id.

Source: Caesar et al. 2018 (arXiv:1612.03716); names: labels.txt of https://github.com/nightrome/cocostuff
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.data.sources.coco_files import IMAGES, find_image_folders
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.samples import Sample, find_images
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import DatasetInfo

MAPS = Archive(
    "stuffthingmaps_trainval2017.zip",
    url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
    wanted=r"\.png$",  # no checksum is published
)
_REMEDY = (
    f"get train2017.zip and val2017.zip from https://cocodataset.org/#download and {MAPS.url} and give "
    "config.data.root the folder with them, or with images/SPLIT2017/ and annotations/SPLIT2017/"
)

# In the order of the maps' values.
LABEL_NAMES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "street sign",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "hat",
    "backpack",
    "umbrella",
    "shoe",
    "eye glasses",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "plate",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "mirror",
    "dining table",
    "window",
    "desk",
    "toilet",
    "door",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "blender",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
    "hair brush",
    "banner",
    "blanket",
    "branch",
    "bridge",
    "building-other",
    "bush",
    "cabinet",
    "cage",
    "cardboard",
    "carpet",
    "ceiling-other",
    "ceiling-tile",
    "cloth",
    "clothes",
    "clouds",
    "counter",
    "cupboard",
    "curtain",
    "desk-stuff",
    "dirt",
    "door-stuff",
    "fence",
    "floor-marble",
    "floor-other",
    "floor-stone",
    "floor-tile",
    "floor-wood",
    "flower",
    "fog",
    "food-other",
    "fruit",
    "furniture-other",
    "grass",
    "gravel",
    "ground-other",
    "hill",
    "house",
    "leaves",
    "light",
    "mat",
    "metal",
    "mirror-stuff",
    "moss",
    "mountain",
    "mud",
    "napkin",
    "net",
    "paper",
    "pavement",
    "pillow",
    "plant-other",
    "plastic",
    "platform",
    "playingfield",
    "railing",
    "railroad",
    "river",
    "road",
    "rock",
    "roof",
    "rug",
    "salad",
    "sand",
    "sea",
    "shelf",
    "sky-other",
    "skyscraper",
    "snow",
    "solid-other",
    "stairs",
    "stone",
    "straw",
    "structural-other",
    "table",
    "tent",
    "textile-other",
    "towel",
    "tree",
    "vegetable",
    "wall-brick",
    "wall-concrete",
    "wall-other",
    "wall-panel",
    "wall-stone",
    "wall-tile",
    "wall-wood",
    "water-other",
    "waterdrops",
    "window-blind",
    "window-other",
    "wood",
)
LABELS_WITHOUT_PIXELS = frozenset(
    ("street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door", "blender", "hair brush")
)


def choose_labels(name: str, values: Sequence[int]) -> DatasetInfo:
    """The data set with the given labels, as values in the maps in the order of the class ids."""
    palette = voc_palette(len(LABEL_NAMES) + 1)
    return make_info(name, tuple(LABEL_NAMES[value] for value in values), tuple(palette[value + 1] for value in values))


_VALUES = [value for value, name in enumerate(LABEL_NAMES) if name not in LABELS_WITHOUT_PIXELS]
INFO = choose_labels("coco_stuff", _VALUES)


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens COCO-Stuff with its 171 classes at `root`; '': downloads it.

    Raises:
      UserError: if `root` does not contain it or the download fails; says which files are needed.
    """
    return open_labels(INFO, root, prepared_dir, _VALUES)


def open_labels(info: DatasetInfo, root: str, prepared_dir: str, values: Sequence[int]) -> Dataset:
    """Opens the data set with the given labels, see `choose_labels`; other values in the maps are refused.

    Raises:
      UserError: as `open_dataset`.
    """
    splits = locate(root, prepared_dir, archives=[*IMAGES, MAPS], find=_find_splits, title="COCO-Stuff", remedy=_REMEDY)
    id_map = {value: class_id for class_id, value in enumerate(values)}
    return file_dataset(info, splits, prepared_dir=prepared_dir, id_map=id_map)


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, list[Sample]] | None:
    found = {}
    for split, images in find_image_folders(folders).items():
        maps = _find_maps(folders, f"{split}2017", images)
        if maps:
            found[split] = [Sample(name, path, maps / f"{name}.png") for name, path in find_images(images).items()]
    return found or None


def _find_maps(folders: Sequence[pathlib.Path], name: str, images: pathlib.Path) -> pathlib.Path | None:
    named = first_folder(folders, [f"{inner}/{name}" for inner in ("annotations", MAPS.name[:-4], "stuffthingmaps")])
    # Unpacked on its own, the archive of maps has folders with the same names as those of the photographs.
    others = [folder for folder in folders if folder / name != images]
    return named or first_folder(others, [name])
