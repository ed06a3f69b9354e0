"""Opens a folder of annotated images as a data set: the classes, and the masks drawn from the annotations."""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

from deeplab_jax.data.dataset import IGNORE_LABEL, Dataset
from deeplab_jax.data.sources.annotations.annotated_folder import AnnotatedFolder, find_annotations, read_areas
from deeplab_jax.data.sources.class_files import Classes, NoClassesFileError, read_classes
from deeplab_jax.data.sources.class_lists import IGNORED_NAME
from deeplab_jax.data.sources.file_dataset import file_dataset
from deeplab_jax.data.sources.find_pairs import find_splits
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import UserError

_BACKGROUND = ("background", "_background_", "__background__")
_MAX_CLASSES = 255  # of which each is drawn as a byte, and one of the 256 is for ignored pixels


class _Drawn(NamedTuple):
    """The classes of drawn masks."""

    classes: Classes
    background: int  # the class of what no object covers


def open_annotated(folder: pathlib.Path, prepared_dir: str, *, channels: int, dtype: str) -> Dataset | None:
    """The data set of a folder of images that an annotation tool has outlined; None if there are no such annotations.

    Args:
      channels, dtype: of the images.

    Raises:
      UserError: if the annotations or the classes file are invalid.
    """
    annotated = find_annotations(folder)
    if annotated is None:
        return None
    try:
        declared = read_classes(folder)
    except NoClassesFileError:
        declared = None
    classes, background = _classes_of(annotated, declared, folder)
    label_of = {name: label for label, name in enumerate(classes.names)} | {IGNORED_NAME: classes.ignore_label}
    found = find_splits(folder, annotated.pairs)
    info = classes.info(channels, dtype)
    drawn = (
        f"masks are drawn from annotations of {annotated.title}, later objects on top; what none covers is "
        f"'{classes.names[background]}'{annotated.note}"
    )
    return file_dataset(
        info,
        found.splits,
        prepared_dir=prepared_dir,
        read_ids=functools.partial(read_areas, annotated, label_of, background),
        notes=(*classes.notes, drawn, *found.notes),
    )


def _classes_of(annotated: AnnotatedFolder, declared: Classes | None, folder: pathlib.Path) -> _Drawn:
    """The declared classes, or those of the annotations; with the background, which annotations leave out."""
    names = declared.names if declared else tuple(name for name in annotated.labels() if name != IGNORED_NAME)
    if not names:
        raise UserError(f"{folder}: its annotations of {annotated.title} name no class; outline objects first")
    if len(names) > _MAX_CLASSES:
        raise UserError(f"{folder}: has {len(names)} classes; annotations are drawn for up to {_MAX_CLASSES}")
    background = next((label for label, name in enumerate(names) if name.lower() in _BACKGROUND), None)
    if declared and background is not None:
        return _Drawn(declared, background)
    first = "background" if background is None else names[background]
    ordered = (first, *(name for name in names if name != first))
    if len(ordered) > _MAX_CLASSES:
        raise UserError(f"{folder}: has annotations of {len(ordered)} classes; must be up to {_MAX_CLASSES}")
    palette = ((0, 0, 0), *declared.palette) if declared and declared.has_palette else voc_palette(len(ordered))
    ignore_label = declared.ignore_label if declared else IGNORE_LABEL
    notes = declared.notes if declared else (f"classes are those annotated: {', '.join(ordered[:6])}",)
    return _Drawn(Classes(ordered, palette, ignore_label, has_palette=True, notes=notes), 0)
