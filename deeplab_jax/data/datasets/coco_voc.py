"""COCO 2017 with VOC's 21 classes, for pre-training networks for VOC.

`root` contains train2017/, val2017/ and annotations/instances_SPLIT2017.json, or the original archives. Without a root
they are downloaded (20 GB).

The instances of VOC's classes are drawn, including crowds; everything else is background, and overlaps of two instances
are ignored. 'train' contains the images in which instances of these classes cover more than 1000 pixels (the sum of
their areas), 'val' all images.

Source: Lin et al. 2014 (arXiv:1405.0312); choice of images: DeepLab v3 (1706.05587), sec. 4.4; overlaps and the sum
of areas as in torchvision's references, so that its models' published scores are scores on the same masks
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from deeplab_jax.data.dataset import IGNORE_LABEL, Dataset
from deeplab_jax.data.datasets import voc
from deeplab_jax.data.sources.archives import Archive, locate
from deeplab_jax.data.sources.coco_files import (
    IMAGES,
    SPLITS,
    AnnotationFile,
    find_annotations,
    find_image_folders,
    let_go_after_opening,
)
from deeplab_jax.data.sources.coco_masks import Mask, decode_run_lengths, fill_polygons, paint
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.prepare import prepared_folder, write_errors_for_users
from deeplab_jax.data.sources.samples import Sample, image_name
from deeplab_jax.files import whole
from deeplab_jax.types import UserError

INFO = dataclasses.replace(voc.INFO, name="coco_voc")
MIN_ANNOTATED_PIXELS = 1000  # training images have more

# COCO's category id -> VOC's class id.
CLASS_OF_CATEGORY = {
    5: 1,  # airplane
    2: 2,  # bicycle
    16: 3,  # bird
    9: 4,  # boat
    44: 5,  # bottle
    6: 6,  # bus
    3: 7,  # car
    17: 8,  # cat
    62: 9,  # chair
    21: 10,  # cow
    67: 11,  # dining table
    18: 12,  # dog
    19: 13,  # horse
    4: 14,  # motorcycle
    1: 15,  # person
    64: 16,  # potted plant
    20: 17,  # sheep
    63: 18,  # couch
    7: 19,  # train
    72: 20,  # tv
}

ANNOTATIONS = Archive(
    "annotations_trainval2017.zip",
    url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    wanted=r"/instances_(train|val)2017\.json$",
)
_REMEDY = (
    f"get train2017.zip, val2017.zip and {ANNOTATIONS.name} from https://cocodataset.org/#download and give "
    "config.data.root the folder with them, or with train2017/, val2017/ and annotations/"
)


class Instance(NamedTuple):
    """One annotated object, or crowd of objects, of one of VOC's classes."""

    image_id: int
    class_id: int
    area: float  # pixels
    polygons: tuple[Float[np.ndarray, "n 2"], ...]
    run_lengths: Any  # counts or compressed text instead of polygons, or None


class AnnotatedImage(NamedTuple):
    """One photograph's instances."""

    name: str
    size: tuple[int, int]  # (height, width)
    instances: list[Instance]


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens COCO 2017 at `root`; '': downloads it.

    Raises:
      UserError: if `root` does not contain it or the download fails; says which files are needed.
    """
    found = locate(
        root, prepared_dir, archives=[*IMAGES, ANNOTATIONS], find=_find_splits, title="COCO instance", remedy=_REMEDY
    )
    files = {split: AnnotationFile(path, _reduce, _by_name) for split, (_, path) in found.items()}
    splits = {}
    for split, (images, path) in found.items():
        areas = annotated_areas(files[split], prepared_folder(prepared_dir))
        names = [name for name, area in areas.items() if split != "train" or area > MIN_ANNOTATED_PIXELS]
        splits[split] = [Sample(name, images / f"{name}.jpg", path) for name in names]
    by_path = {file.path: file for file in files.values()}
    dataset = file_dataset(
        INFO,
        splits,
        prepared_dir=prepared_dir,
        read_ids=lambda sample: draw(by_path[sample.mask].content[sample.name], sample.mask),
    )
    return let_go_after_opening(dataset, files.values())


def annotated_areas(file: AnnotationFile[dict[str, AnnotatedImage]], prepared: pathlib.Path) -> dict[str, float]:
    """Name of each image -> pixels covered by instances of VOC's classes, sorted by name.

    Cached in the folder `prepared`: it is needed whenever the data set is opened, and computing it means parsing the
    whole file, 15 seconds and a gigabyte of memory for 'train'.
    """
    status = file.path.stat()
    kept = prepared / f"coco_voc-{file.path.stem}-{status.st_size}-{status.st_mtime_ns}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    images = file.content
    areas = {name: float(sum(instance.area for instance in images[name].instances)) for name in sorted(images)}
    with write_errors_for_users(prepared), whole(kept) as unfinished:
        unfinished.write_text(json.dumps(areas))
    return areas


def draw(image: AnnotatedImage, path: pathlib.Path) -> UInt8[np.ndarray, "h w"]:
    """The class ids of an image's pixels; `path` is for error messages."""
    try:
        masks = [(instance.class_id, _mask(instance, image.size)) for instance in image.instances]
    except ValueError as error:
        raise UserError(f"{path}: image '{image.name}' has {error}; unpack the file from its archive anew") from None
    return paint(masks, image.size, ignore_label=IGNORE_LABEL)


def _mask(instance: Instance, size: tuple[int, int]) -> Mask:
    if instance.run_lengths is None:
        return fill_polygons(instance.polygons, size)
    return decode_run_lengths(instance.run_lengths, size)


def _find_splits(folders: Sequence[pathlib.Path]) -> dict[str, tuple[pathlib.Path, pathlib.Path]] | None:
    """Split -> (folder of images, file of annotations)."""
    images = find_image_folders(folders)
    annotations = {split: find_annotations(folders, f"instances_{split}2017.json") for split in SPLITS}
    found = {split: (images[split], path) for split, path in annotations.items() if path and split in images}
    return found or None


def _reduce(item: dict[str, Any]) -> Any:
    """Keeps only the needed parts of the file's objects."""
    if "segmentation" in item:
        class_id = CLASS_OF_CATEGORY.get(item["category_id"])
        if class_id is None:
            return None
        region = item["segmentation"]
        is_crowd = isinstance(region, dict)
        polygons = () if is_crowd else tuple(np.array(part, np.float64).reshape(-1, 2) for part in region)
        return Instance(item["image_id"], class_id, item["area"], polygons, region["counts"] if is_crowd else None)
    if "file_name" in item:
        return item["id"], AnnotatedImage(image_name(item["file_name"]), (item["height"], item["width"]), [])
    return item


def _by_name(content: Any) -> dict[str, AnnotatedImage]:
    images = dict(content["images"])
    for instance in content["annotations"]:
        if instance is not None:
            images[instance.image_id].instances.append(instance)
    return {image.name: image for image in images.values()}
