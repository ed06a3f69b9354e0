"""The files that declare a folder's classes: their names, colours and ignore label."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from deeplab_jax.data.sources.class_lists import read_class_list
from deeplab_jax.data.sources.text_files import read_json, read_text
from deeplab_jax.palettes import Palette, voc_palette
from deeplab_jax.types import DatasetInfo, UserError

_MAX_CLASSES = 65535  # ids have up to 16 bits, and one of them is for ignored pixels
_MAX_TOLD = 5  # names in a note
# Files in which annotation tools list the classes; looked for in this order, here and in the folders of splits.
_TOOL_FILES = (
    "labelmap.txt",
    "labels.txt",
    "class_names.txt",
    "label_names.txt",
    "class_dict.csv",
    "_classes.csv",
    "categories.json",
    "notes.json",
    "id2label.json",
    "meta.json",
)
_LISTS = ("class_names", "classes", "categories", "labels", "names", "id2label")  # fields that hold the classes

# Fields of a classes.json that need no classes beside them.
_SETTINGS = {"images", "masks", "task", "values", "threshold", "mask_palette", "ignore_label", "missing_masks"}


class Classes(NamedTuple):
    """What a classes file says."""

    names: tuple[str, ...]  # in class id order
    palette: Palette  # RGB per class id; VOC's if the file gives none
    ignore_label: int
    has_palette: bool = False  # whether the file gives the colours
    notes: tuple[str, ...] = ()  # what was assumed

    def info(self, channels: int, dtype: str, task: str = "multiclass") -> DatasetInfo:
        """The metadata of a folder with these classes, before its splits are known."""
        return DatasetInfo(
            name="folder",
            num_classes=len(self.names),
            ignore_label=self.ignore_label,
            class_names=self.names,
            palette=self.palette,
            splits={},
            channels=channels,
            dtype=dtype,
            task=task,
        )


class NoClassesFileError(UserError):
    """A folder does not say which classes its masks hold."""


def read_classes(folder: pathlib.Path) -> Classes:
    """Reads classes.json or classes.txt, or else the file in which an annotation tool lists the classes.

    Raises:
      NoClassesFileError: if there is none.
      UserError: if its content is invalid, or two tools' files disagree.
    """
    json_path, text_path = folder / "classes.json", folder / "classes.txt"
    if json_path.is_file() and "class_names" in load_json(json_path):
        return _read(json_path)
    if text_path.is_file():
        return _read(text_path)
    found = [(path, _read(path)) for path in tool_files(folder)]
    if not found:
        raise NoClassesFileError(
            f"{json_path}: does not exist, nor does classes.txt; write one class name per line into classes.txt"
        )
    (path, classes), *others = found
    for other, other_classes in others:
        if other_classes.names != classes.names:
            raise UserError(f"{path}: and {other} name different classes; copy the right one to {text_path}")
    return classes._replace(notes=(*classes.notes, _describe(classes, path.relative_to(folder))))


def default_ignore_label(num_classes: int) -> int:
    """The largest number of 8 bits, or of 16 where classes need more than 8."""
    return 255 if num_classes <= 255 else 65535


def tool_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder, or one level below, in which annotation tools list classes."""
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    paths = [path for name in _TOOL_FILES for inner in folders if (path := inner / name).is_file()]
    return [
        path for path in paths if path.name != "meta.json" or '"classes"' in read_text(path, wanted="save it as UTF-8")
    ]


def _describe(classes: Classes, path: pathlib.Path) -> str:
    more = ", ..." if len(classes.names) > _MAX_TOLD else ""
    return f"classes are those of {path}: {', '.join(classes.names[:_MAX_TOLD])}{more}"


def load_json(path: pathlib.Path) -> dict[str, Any]:
    """The content of classes.json; the classes, if it has them in any form, as the list "class_names".

    Raises:
      UserError: if it is no valid JSON, or nothing in it can be a class.
    """
    content = read_json(path, "fix it or use classes.txt")
    settings = content if isinstance(content, dict) else {}
    field = next((name for name in _LISTS if name in settings), None)
    listed = _class_list(settings[field] if field else content, is_open=field is None)
    if listed is None:
        if field is None and settings.keys() & _SETTINGS:
            return settings
        raise UserError(f'{path}: has no list "class_names"; write {{"class_names": ["background", ...]}}')
    names, colors, ids = listed
    if ids is not None and sorted(ids) != list(range(len(ids))):
        if field != "categories":
            raise UserError(f"{path}: numbers its classes {_first(ids)}; ids must be 0 to {len(ids) - 1} without gaps")
        names, colors = _from_zero(path, names, colors, ids)
    elif ids is not None:
        order = sorted(range(len(ids)), key=ids.__getitem__)
        names, colors = [names[index] for index in order], [colors[index] for index in order] if colors else None
    own = {} if field is None else {key: value for key, value in settings.items() if key != field}
    return own | {"class_names": names} | ({"palette": colors} if colors and "palette" not in own else {})


_Listed = tuple[list[str], list[list[int]] | None, list[int] | None]  # names, colours, ids


def _class_list(content: Any, *, is_open: bool) -> _Listed | None:
    """Names, colours and ids of a list of names or of categories, or of a dict; None if it is nothing of that kind."""
    if isinstance(content, list) and all(isinstance(each, (str, int)) for each in content):
        if is_open and not content:
            return None
        return [str(each) for each in content], None, None
    if isinstance(content, list) and all(isinstance(each, dict) for each in content):
        names = [each.get("name", each.get("title")) for each in content]
        if not all(isinstance(name, str) for name in names):
            return None
        colors = [_color(each.get("color")) for each in content]
        ids = [each.get("id") for each in content]
        has_ids = all(isinstance(each, int) for each in ids) and "title" not in content[0]  # Supervisely's mean nothing
        return names, (colors if all(colors) else None), (ids if has_ids else None)
    if not isinstance(content, dict) or not content:
        return None
    keys, values = list(content), list(content.values())
    if all(key.isdecimal() for key in keys) and all(isinstance(value, str) for value in values):
        return values, None, [int(key) for key in keys]
    if is_open and len(keys) == 1:
        return None  # a single setting, not a class
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return keys, None, values
    colors = [_color(value) for value in values]
    return (keys, colors, None) if all(colors) else None


def _color(content: Any) -> list[int]:
    if isinstance(content, str) and len(content) == 7 and content.startswith("#"):
        return list(bytes.fromhex(content[1:]))
    return content if isinstance(content, list) else []


def _from_zero(
    path: pathlib.Path, names: list[str], colors: list[list[int]] | None, ids: list[int]
) -> tuple[list[str], list[list[int]] | None]:
    """The same with 0 for the background, which COCO's categories leave out."""
    if sorted(ids) != list(range(1, len(ids) + 1)):
        raise UserError(
            f"{path}: numbers its categories {_first(ids)}, with gaps; write the classes into classes.json, and what "
            'the values in masks stand for as "values"'
        )
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return ["background", *(names[k] for k in order)], [[0, 0, 0], *(colors[k] for k in order)] if colors else None


def _first(ids: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(ids)[:5])) + (", ..." if len(ids) > 5 else "")


def _read(path: pathlib.Path) -> Classes:
    if path.suffix == ".json":
        return _parse_json(path)
    listed = read_class_list(path)
    return _checked(path, listed.names, listed.colors, default_ignore_label(len(listed.names)))


def _parse_json(path: pathlib.Path) -> Classes:
    content = load_json(path)
    names = tuple(str(name) for name in content["class_names"])
    if content.get("num_classes", len(names)) != len(names):
        raise UserError(
            f"{path}: has num_classes={content['num_classes']} but {len(names)} class_names; make them agree"
        )
    ignore_label = content.get("ignore_label", default_ignore_label(len(names)))
    if not _is_whole(ignore_label, _MAX_CLASSES):
        raise UserError(f"{path}: has ignore_label={ignore_label!r}; must be a whole number from 0 to {_MAX_CLASSES}")
    return _checked(path, names, content.get("palette"), ignore_label)


def _checked(path: pathlib.Path, names: tuple[str, ...], colors: Any, ignore_label: int) -> Classes:
    if not 0 < len(names) <= _MAX_CLASSES:
        raise UserError(f"{path}: names {len(names)} classes; must be 1 to {_MAX_CLASSES}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: names the class '{repeated[0]}' more than once; give each id a name of its own")
    if colors is None:
        return Classes(names, voc_palette(len(names)), ignore_label)
    if not isinstance(colors, list) or len(colors) != len(names) or not all(map(_is_color, colors)):
        raise UserError(f"{path}: must give all {len(names)} classes a colour of three numbers from 0 to 255, or none")
    return Classes(names, tuple((red, green, blue) for red, green, blue in colors), ignore_label, has_palette=True)


def _is_color(color: Any) -> bool:
    return isinstance(color, list) and len(color) == 3 and all(_is_whole(level, 255) for level in color)


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
