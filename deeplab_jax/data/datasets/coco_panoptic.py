"""COCO 2017's panoptic annotations as semantic ones: 80 thing classes, then 53 stuff classes.

`root` contains train2017/, val2017/ and the content of the archive of panoptic annotations
(annotations/panoptic_SPLIT2017.json and the folders annotations/panoptic_SPLIT2017/), or the original archives. Without
a root they are downloaded (21 GB).

A class id is the index of the category in COCO's list, in the order of the category ids; crowds are included. Pixels
without a segment are ignored.

Source: Kirillov et al. 2019 (arXiv:1801.00868), https://cocodataset.org/#panoptic-eval; names, ids and colours:
panoptic_coco_categories.json of https://github.com/cocodataset/panopticapi
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from deeplab_jax.data.dataset import IGNORE_LABEL, Dataset, make_info
from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.data.sources.coco_files import (
    IMAGES,
    AnnotationFile,
    find_annotations,
    find_image_folders,
    let_go_after_opening,
)
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.samples import Sample, find_images, image_name, read_bytes
from deeplab_jax.types import UserError


class Category(NamedTuple):
    """One of COCO's categories."""

    id: int
    name: str
    color: tuple[int, int, int]  # RGB


class Segments(NamedTuple):
    """The annotations of one mask."""

    ids: Int[np.ndarray, " n"]  # sorted
    classes: UInt8[np.ndarray, " n"]


ANNOTATIONS = Archive(
    "panoptic_annotations_trainval2017.zip",
    url="http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip",
    checksum="sha256:c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
    wanted=r"/panoptic_(train|val)2017\.(json|zip)$",
)
_REMEDY = (
    f"get train2017.zip, val2017.zip and {ANNOTATIONS.name} from https://cocodataset.org/#download and give "
    "config.data.root the folder with them, or with train2017/, val2017/ and annotations/"
)
_NO_SEGMENT = 0  # black

CATEGORIES = (
    Category(1, "person", (220, 20, 60)),
    Category(2, "bicycle", (119, 11, 32)),
    Category(3, "car", (0, 0, 142)),
    Category(4, "motorcycle", (0, 0, 230)),
    Category(5, "airplane", (106, 0, 228)),
    Category(6, "bus", (0, 60, 100)),
    Category(7, "train", (0, 80, 100)),
    Category(8, "truck", (0, 0, 70)),
    Category(9, "boat", (0, 0, 192)),
    Category(10, "traffic light", (250, 170, 30)),
    Category(11, "fire hydrant", (100, 170, 30)),
    Category(13, "stop sign", (220, 220, 0)),
    Category(14, "parking meter", (175, 116, 175)),
    Category(15, "bench", (250, 0, 30)),
    Category(16, "bird", (165, 42, 42)),
    Category(17, "cat", (255, 77, 255)),
    Category(18, "dog", (0, 226, 252)),
    Category(19, "horse", (182, 182, 255)),
    Category(20, "sheep", (0, 82, 0)),
    Category(21, "cow", (120, 166, 157)),
    Category(22, "elephant", (110, 76, 0)),
    Category(23, "bear", (174, 57, 255)),
    Category(24, "zebra", (199, 100, 0)),
    Category(25, "giraffe", (72, 0, 118)),
    Category(27, "backpack", (255, 179, 240)),
    Category(28, "umbrella", (0, 125, 92)),
    Category(31, "handbag", (209, 0, 151)),
    Category(32, "tie", (188, 208, 182)),
    Category(33, "suitcase", (0, 220, 176)),
    Category(34, "frisbee", (255, 99, 164)),
    Category(35, "skis", (92, 0, 73)),
    Category(36, "snowboard", (133, 129, 255)),
    Category(37, "sports ball", (78, 180, 255)),
    Category(38, "kite", (0, 228, 0)),
    Category(39, "baseball bat", (174, 255, 243)),
    Category(40, "baseball glove", (45, 89, 255)),
    Category(41, "skateboard", (134, 134, 103)),
    Category(42, "surfboard", (145, 148, 174)),
    Category(43, "tennis racket", (255, 208, 186)),
    Category(44, "bottle", (197, 226, 255)),
    Category(46, "wine glass", (171, 134, 1)),
    Category(47, "cup", (109, 63, 54)),
    Category(48, "fork", (207, 138, 255)),
    Category(49, "knife", (151, 0, 95)),
    Category(50, "spoon", (9, 80, 61)),
    Category(51, "bowl", (84, 105, 51)),
    Category(52, "banana", (74, 65, 105)),
    Category(53, "apple", (166, 196, 102)),
    Category(54, "sandwich", (208, 195, 210)),
    Category(55, "orange", (255, 109, 65)),
    Category(56, "broccoli", (0, 143, 149)),
    Category(57, "carrot", (179, 0, 194)),
    Category(58, "hot dog", (209, 99, 106)),
    Category(59, "pizza", (5, 121, 0)),
    Category(60, "donut", (227, 255, 205)),
    Category(61, "cake", (147, 186, 208)),
    Category(62, "chair", (153, 69, 1)),
    Category(63, "couch", (3, 95, 161)),
    Category(64, "potted plant", (163, 255, 0)),
    Category(65, "bed", (119, 0, 170)),
    Category(67, "dining table", (0, 182, 199)),
    Category(70, "toilet", (0, 165, 120)),
    Category(72, "tv", (183, 130, 88)),
    Category(73, "laptop", (95, 32, 0)),
    Category(74, "mouse", (130, 114, 135)),
    Category(75, "remote", (110, 129, 133)),
    Category(76, "keyboard", (166, 74, 118)),
    Category(77, "cell phone", (219, 142, 185)),
    Category(78, "microwave", (79, 210, 114)),
    Category(79, "oven", (178, 90, 62)),
    Category(80, "toaster", (65, 70, 15)),
    Category(81, "sink", (127, 167, 115)),
    Category(82, "refrigerator", (59, 105, 106)),
    Category(84, "book", (142, 108, 45)),
    Category(85, "clock", (196, 172, 0)),
    Category(86, "vase", (95, 54, 80)),
    Category(87, "scissors", (128, 76, 255)),
    Category(88, "teddy bear", (201, 57, 1)),
    Category(89, "hair drier", (246, 0, 122)),
    Category(90, "toothbrush", (191, 162, 208)),
    Category(92, "banner", (255, 255, 128)),
    Category(93, "blanket", (147, 211, 203)),
    Category(95, "bridge", (150, 100, 100)),
    Category(100, "cardboard", (168, 171, 172)),
    Category(107, "counter", (146, 112, 198)),
    Category(109, "curtain", (210, 170, 100)),
    Category(112, "door-stuff", (92, 136, 89)),
    Category(118, "floor-wood", (218, 88, 184)),
    Category(119, "flower", (241, 129, 0)),
    Category(122, "fruit", (217, 17, 255)),
    Category(125, "gravel", (124, 74, 181)),
    Category(128, "house", (70, 70, 70)),
    Category(130, "light", (255, 228, 255)),
    Category(133, "mirror-stuff", (154, 208, 0)),
    Category(138, "net", (193, 0, 92)),
    Category(141, "pillow", (76, 91, 113)),
    Category(144, "platform", (255, 180, 195)),
    Category(145, "playingfield", (106, 154, 176)),
    Category(147, "railroad", (230, 150, 140)),
    Category(148, "river", (60, 143, 255)),
    Category(149, "road", (128, 64, 128)),
    Category(151, "roof", (92, 82, 55)),
    Category(154, "sand", (254, 212, 124)),
    Category(155, "sea", (73, 77, 174)),
    Category(156, "shelf", (255, 160, 98)),
    Category(159, "snow", (255, 255, 255)),
    Category(161, "stairs", (104, 84, 109)),
    Category(166, "tent", (169, 164, 131)),
    Category(168, "towel", (225, 199, 255)),
    Category(171, "wall-brick", (137, 54, 74)),
    Category(175, "wall-stone", (135, 158, 223)),
    Category(176, "wall-tile", (7, 246, 231)),
    Category(177, "wall-wood", (107, 255, 200)),
    Category(178, "water-other", (58, 41, 149)),
    Category(180, "window-blind", (183, 121, 142)),
    Category(181, "window-other", (255, 73, 97)),
    Category(184, "tree-merged", (107, 142, 35)),
    Category(185, "fence-merged", (190, 153, 153)),
    Category(186, "ceiling-merged", (146, 139, 141)),
    Category(187, "sky-other-merged", (70, 130, 180)),
    Category(188, "cabinet-merged", (134, 199, 156)),
    Category(189, "table-merged", (209, 226, 140)),
    Category(190, "floor-other-merged", (96, 36, 108)),
    Category(191, "pavement-merged", (96, 96, 96)),
    Category(192, "mountain-merged", (64, 170, 64)),
    Category(193, "grass-merged", (152, 251, 152)),
    Category(194, "dirt-merged", (208, 229, 228)),
    Category(195, "paper-merged", (206, 186, 171)),
    Category(196, "food-other-merged", (152, 161, 64)),
    Category(197, "building-other-merged", (116, 112, 0)),
    Category(198, "rock-merged", (0, 114, 143)),
    Category(199, "wall-other-merged", (102, 102, 156)),
    Category(200, "rug-merged", (250, 141, 255)),
)
INFO = make_info("coco_panoptic", tuple(one.name for one in CATEGORIES), tuple(one.color for one in CATEGORIES))


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens COCO 2017 at `root`; '': downloads it.

    Raises:
      UserError: if `root` does not contain it or the download fails; says which files are needed.
    """
    found = locate(
        root, prepared_dir, archives=[*IMAGES, ANNOTATIONS], find=_find_splits, title="COCO panoptic", remedy=_REMEDY
    )
    files = {masks: AnnotationFile(path, _reduce, _by_name) for _, masks, path in found.values()}
    dataset = file_dataset(
        INFO,
        {
            split: [Sample(name, path, masks / f"{name}.png") for name, path in find_images(images).items()]
            for split, (images, masks, _) in found.items()
        },
        prepared_dir=prepared_dir,
        read_ids=lambda sample: read_ids(sample, files[sample.mask.parent]),
    )
    return let_go_after_opening(dataset, files.values())


def read_ids(sample: Sample, file: AnnotationFile[dict[str, Segments]]) -> UInt8[np.ndarray, "h w"]:
    """The class ids of a panoptic mask, whose colours are segments' ids.

    Raises:
      UserError: if the mask or its segments are not in the files.
    """
    colors = decode_image(read_bytes(sample.mask), str(sample.mask)).astype(np.int32)
    ids = colors[..., 0] + 256 * colors[..., 1] + 256**2 * colors[..., 2]
    segments = file.content.get(sample.name)
    if segments is None:
        raise UserError(f"{file.path}: says nothing of '{sample.name}'; unpack it from its archive again")
    place = np.searchsorted(segments.ids, ids).clip(max=len(segments.ids) - 1)
    is_known = segments.ids[place] == ids
    if not is_known.all():
        raise UserError(
            f"{sample.mask}: holds the segment {ids[~is_known][0]}, which {file.path.name} does not list; "
            "unpack both from their archive again"
        )
    return segments.classes[place]


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, tuple[pathlib.Path, pathlib.Path, pathlib.Path]] | None:
    """Split -> (folder of images, folder of masks, file of annotations)."""
    found = {}
    for split, images in find_image_folders(folders).items():
        name = f"panoptic_{split}2017"
        masks, path = first_folder(folders, [f"annotations/{name}", name]), find_annotations(folders, f"{name}.json")
        if masks and path:
            found[split] = images, masks, path
    return found or None


def _reduce(item: dict[str, Any]) -> Any:
    """Keeps only the needed parts of the file's objects."""
    if "segments_info" in item:
        return image_name(item["file_name"]), item["segments_info"]
    return (item["id"], item["category_id"]) if "category_id" in item else item


def _by_name(content: Any) -> dict[str, Segments]:
    classes = {category.id: class_id for class_id, category in enumerate(CATEGORIES)}
    by_name = {}
    for name, segments in content["annotations"]:
        pairs = sorted([(_NO_SEGMENT, IGNORE_LABEL), *((segment, classes[category]) for segment, category in segments)])
        ids, class_ids = zip(*pairs, strict=True)
        by_name[name] = Segments(np.array(ids, np.int32), np.array(class_ids, np.uint8))
    return by_name
