"""A folder of images that an annotation tool has outlined: recognises the tool's files and draws masks from them."""

from __future__ import annotations

import functools
import pathlib
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from deeplab_jax.data.sources.annotations import coco_json, cvat_xml, labelme_json, supervisely_json, via_json
from deeplab_jax.data.sources.annotations.annotated_images import ImageFinder, documents_of, split_of
from deeplab_jax.data.sources.annotations.outlines import AnnotationContent, ImageAnnotation, paint_over
from deeplab_jax.data.sources.file_formats import image_files
from deeplab_jax.data.sources.image_sizes import SizeLimit, check_size
from deeplab_jax.data.sources.match_masks import Pairs, pair_places, without_common
from deeplab_jax.data.sources.orientation import shown_size
from deeplab_jax.data.sources.path_words import place_of
from deeplab_jax.data.sources.pictures import open_picture
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.data.sources.text_files import read_json
from deeplab_jax.data.sources.walk_folder import walk
from deeplab_jax.data.workers import each
from deeplab_jax.types import UserError

Parsed = TypeVar("Parsed")

_MAX_FILES = 50  # about many images; more of them are something else
_REMEDY = "export it again"
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, ElementTree.ParseError, zlib.error)


class AnnotatedFolder(NamedTuple):
    """The images of a folder with the files that outline their objects."""

    title: str  # of the tool
    pairs: Pairs  # each image with its annotation file as mask
    labels: Callable[[], tuple[str, ...]]  # classes in the tool's order; may read all files
    read: Callable[[Sample], ImageAnnotation]
    note: str  # what is left out


def find_annotations(folder: pathlib.Path) -> AnnotatedFolder | None:
    """The annotations in a folder of images; None if there are none that are known, or if there are masks.

    Raises:
      UserError: if a file is damaged, or two describe the same images.
    """
    paths = walk(folder)
    images = image_files(paths)
    documents = [path for path in paths if path.suffix.lower() in (".json", ".xml") and path.name != "classes.json"]
    if not documents or _has_masks(folder, images):
        return None
    beside = documents_of(images, documents)
    about_many = [path for path in documents if path not in beside]
    found = [_about_each(folder, beside), _about_many(folder, about_many[:_MAX_FILES], images)]
    known = [annotated for annotated in found if annotated is not None]
    if len(known) > 1:
        raise UserError(
            f"{folder}: holds the annotations of {known[0].title} and of {known[1].title}; keep those that are meant"
        )
    return known[0] if known else None


def read_areas(
    annotated: AnnotatedFolder, label_of: Mapping[str, int], background: int, sample: Sample
) -> UInt8[np.ndarray, "h w"]:
    """The label map of a sample: `background` outside all objects.

    Raises:
      UserError: if its annotation is damaged or names an unknown class.
    """
    annotation = annotated.read(sample)
    size = annotation.size or _size_of(sample.image)
    check_size(size, str(sample.mask), SizeLimit())
    try:
        return paint_over(annotation.objects, size, label_of, background)
    except KeyError as error:
        raise UserError(
            f"{sample.mask}: outlines {error} in {sample.image.name}, which is no class ({', '.join(label_of)}); "
            "correct it or add it to the classes"
        ) from None
    except _MALFORMED as error:
        raise UserError(f"{sample.mask}: holds {error}, in the annotation of {sample.image.name}; correct it") from None


def _size_of(image: pathlib.Path) -> tuple[int, int]:
    return shown_size(open_picture(read_bytes(image), str(image)))


def _has_masks(folder: pathlib.Path, images: Sequence[pathlib.PurePath]) -> bool:
    try:
        return bool(pair_places(folder, [place_of(path) for path in images]).masks)
    except UserError:
        return False


def _about_each(folder: pathlib.Path, image_of: Mapping[pathlib.PurePath, pathlib.PurePath]) -> AnnotatedFolder | None:
    """The annotations of a tool that writes a file for each image."""
    documents = [path for path in image_of if path.suffix == ".json"]
    if not documents:
        return None
    content = read_json(folder / documents[0], _REMEDY)
    if labelme_json.recognize(content):
        title = labelme_json.TITLE
    elif supervisely_json.recognize(content):
        title = supervisely_json.TITLE
    else:
        return None
    pairs = _pairs(folder, [(image_of[path], path, "") for path in documents])

    def read(path: pathlib.Path, image: str) -> ImageAnnotation:
        parse = labelme_json.parse if title == labelme_json.TITLE else functools.partial(_parse_supervisely, image)
        content = read_json(path, _REMEDY)
        return _parsed(path, title, lambda: parse(content))

    def labels() -> tuple[str, ...]:
        annotations = each(lambda path: read(folder / path, ""), documents, title=f"reading {title}'s files")
        return _labels_in(annotations)

    return AnnotatedFolder(title, pairs, labels, lambda sample: read(sample.mask, sample.image.name), "")


def _parse_supervisely(image: str, content: Any) -> ImageAnnotation:
    return supervisely_json.parse(content, image)


def _about_many(
    folder: pathlib.Path, documents: Sequence[pathlib.PurePath], images: Sequence[pathlib.PurePath]
) -> AnnotatedFolder | None:
    """The annotations of a tool that writes one file for a split or for everything."""
    finder = ImageFinder(images)
    titles: dict[str, pathlib.PurePath] = {}
    annotations: dict[pathlib.Path, ImageAnnotation] = {}
    listed: list[tuple[pathlib.PurePath, pathlib.PurePath, str]] = []
    contents: list[AnnotationContent] = []
    for document in documents:
        recognized = _recognized(folder / document)
        if recognized is None:
            continue
        title, content = recognized
        titles.setdefault(title, document)
        contents.append(content)
        for annotation in content.images:
            image = finder.find(annotation.image, document)
            other = annotations.setdefault(folder / image, annotation)
            if other is not annotation:
                earlier = next(path for seen, path, _ in listed if seen == image)
                raise UserError(f"{folder / document}: and {earlier} both describe {image}; keep the one that is meant")
            listed.append((image, document, split_of(document)))
    if not contents:
        return None
    if len(titles) > 1:
        (one, path), (second, second_path), *_ = titles.items()
        raise UserError(f"{folder / path}: is of {one} and {second_path} of {second}; keep the one that is meant")
    told = [label for content in contents for label in content.labels or ()]
    objects = [outlined for content in contents for image in content.images for outlined in image.objects]
    if objects and not any(outlined.area for outlined in objects):
        raise UserError(f"{folder / documents[0]}: outlines no object: boxes or points alone; export polygons or masks")
    num_left = sum(outlined.area is None for outlined in objects)
    note = f"; {num_left} objects without an area (boxes, points, lines) are left out" if num_left else ""
    return AnnotatedFolder(
        next(iter(titles)),
        _pairs(folder, listed),
        lambda: tuple(dict.fromkeys(told)) or _labels_in(image for content in contents for image in content.images),
        lambda sample: annotations[sample.image],
        note,
    )


def _recognized(path: pathlib.Path) -> tuple[str, AnnotationContent] | None:
    if path.suffix.lower() == ".xml":
        data = read_bytes(path)
        if not cvat_xml.recognize(data):
            return None
        return cvat_xml.TITLE, _parsed(path, cvat_xml.TITLE, lambda: cvat_xml.parse(data))
    content = read_json(path, _REMEDY)
    for module in (coco_json, via_json):
        if module.recognize(content):
            return module.TITLE, _parsed(path, module.TITLE, functools.partial(module.parse, content))
    return None


def _parsed(path: pathlib.Path, title: str, parse: Callable[[], Parsed]) -> Parsed:
    try:
        return parse()
    except (*_MALFORMED, UserError) as error:
        kind = "" if isinstance(error, (ValueError, UserError)) else f"{type(error).__name__}: "
        raise UserError(f"{path}: is no file of {title} that can be read ({kind}{error}); {_REMEDY}") from None


def _pairs(folder: pathlib.Path, listed: Iterable[tuple[pathlib.PurePath, pathlib.PurePath, str]]) -> Pairs:
    """(image, document, split or '') -> pairs, sorted by image."""
    found = sorted(listed)
    places = without_common([place_of(image) for image, _, _ in found])
    return Pairs(
        folder,
        {
            place._replace(split=split or place.split): place_of(document)
            for place, (_, document, split) in zip(places, found, strict=True)
        },
    )


def _labels_in(annotations: Iterable[ImageAnnotation]) -> tuple[str, ...]:
    return tuple(sorted({outlined.label for annotation in annotations for outlined in annotation.objects}))
