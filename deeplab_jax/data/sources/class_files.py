"""The files that declare a folder's classes: their names, colours and ignore label."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from deeplab_jax.data.sources.samples import read_list
from deeplab_jax.palettes import Palette, voc_palette
from deeplab_jax.types import UserError

_MAX_CLASSES = 255  # ids are bytes, and one of the 256 is for ignored pixels


class Classes(NamedTuple):
    """What a classes file says."""

    names: tuple[str, ...]  # in class id order
    palette: Palette  # RGB per class id; VOC's if the file gives none
    ignore_label: int


def read_classes(folder: pathlib.Path) -> Classes:
    """Reads classes.json or classes.txt.

    Raises:
      UserError: if neither exists, or its content is invalid.
    """
    json_path, text_path = folder / "classes.json", folder / "classes.txt"
    if json_path.is_file():
        return _parse_json(json_path)
    if text_path.is_file():
        return _parse_text(text_path)
    raise UserError(
        f"{json_path}: does not exist, nor does classes.txt; write one class name per line into classes.txt"
    )


def load_json(path: pathlib.Path) -> dict[str, Any]:
    """The content of classes.json; raises UserError if it is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no valid JSON ({error}); fix it or use classes.txt") from None
    if not isinstance(content, dict) or not isinstance(content.get("class_names"), list):
        raise UserError(f'{path}: has no list "class_names"; write {{"class_names": ["background", ...]}}')
    return content


def _parse_json(path: pathlib.Path) -> Classes:
    content = load_json(path)
    names = tuple(str(name) for name in content["class_names"])
    if content.get("num_classes", len(names)) != len(names):
        raise UserError(
            f"{path}: has num_classes={content['num_classes']} but {len(names)} class_names; make them agree"
        )
    ignore_label = content.get("ignore_label", 255)
    if ignore_label not in range(256):
        raise UserError(f"{path}: has ignore_label={ignore_label!r}; must be a whole number from 0 to 255")
    return _checked(path, names, content.get("palette"), ignore_label)


def _parse_text(path: pathlib.Path) -> Classes:
    names, colors = [], []
    for line in read_list(path):
        words = line.split()
        if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
            colors.append([int(word) for word in words[-3:]])
            words = words[:-3]
        names.append(" ".join(words))
    return _checked(path, tuple(names), colors or None, 255)


def _checked(path: pathlib.Path, names: tuple[str, ...], colors: Any, ignore_label: int) -> Classes:
    if not 0 < len(names) <= _MAX_CLASSES:
        raise UserError(f"{path}: names {len(names)} classes; must be 1 to {_MAX_CLASSES}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: names the class '{repeated[0]}' more than once; give each id a name of its own")
    if colors is None:
        return Classes(names, voc_palette(len(names)), ignore_label)
    if len(colors) != len(names) or not all(_is_color(color) for color in colors):
        raise UserError(f"{path}: must give all {len(names)} classes a colour of three numbers from 0 to 255, or none")
    return Classes(names, tuple((red, green, blue) for red, green, blue in colors), ignore_label)


def _is_color(color: Any) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(level in range(256) for level in color)
