"""Patterns in classes.json that say which files are images and which are masks, where their paths do not.

    {"images": "photos/{name}.jpg", "masks": "labels/{name}_mask.png", ...}
    {"images": "{split}/rgb/{name}.*", "masks": "{split}/trimap/{name}.png", ...}

{name} is equal for an image and its mask and may contain folders; {split} is one folder, or a part of its name; * is
anything within a name.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from deeplab_jax.data.sources.path_words import Place, Role, split_name
from deeplab_jax.types import UserError

_PARTS = {"{name}": r"(?P<name>.+)", "{split}": r"(?P<split>[^/]+?)", "*": r"[^/]*"}


def places_by_pattern(
    content: Mapping[str, Any], path: pathlib.Path, files: Iterable[pathlib.PurePath]
) -> list[Place] | None:
    """The images and masks among `files` by the patterns of classes.json; None if it has none.

    Args:
      content: of the file.
      path: of the file, for messages.

    Raises:
      UserError: if a pattern is missing, is none, or fits no file.
    """
    given = {role: content.get(f"{role.value}s") for role in Role}
    if not any(given.values()):
        return None
    listed = list(files)
    places = []
    for role, pattern in given.items():
        field = f'"{role.value}s"'
        if not isinstance(pattern, str) or pattern.count("{name}") != 1 or pattern.count("{split}") > 1:
            raise UserError(
                f'{path}: has {field}: {pattern!r}; write a path with {{name}} in it, as "{role.value}s/{{name}}.png"'
            )
        expression = re.compile("".join(_PARTS.get(part, re.escape(part)) for part in _tokens(pattern)))
        matches = [(file, match) for file in listed if (match := expression.fullmatch(file.as_posix()))]
        if not matches:
            raise UserError(f"{path}: has {field}: {pattern!r}, which fits no file in {path.parent}; correct it")
        places += [_place(file, role, match) for file, match in matches]
    images = {place.path for place in places if place.role is Role.IMAGE}
    both = next((place.path for place in places if place.role is Role.MASK and place.path in images), None)
    if both is not None:
        raise UserError(f'{path}: {both} fits the pattern "images" and "masks" alike; make them differ')
    return places


def _tokens(pattern: str) -> list[str]:
    return [part for part in re.split(r"(\{name\}|\{split\}|\*)", pattern) if part]


def _place(file: pathlib.PurePath, role: Role, match: re.Match[str]) -> Place:
    *folders, name = match["name"].split("/")
    split = split_name(match.groupdict().get("split") or "")
    return Place(file, role, split, (), tuple(folders), name)
