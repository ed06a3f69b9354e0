"""What classes.json says about a folder's masks, besides the classes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from deeplab_jax.data.sources.class_files import Classes, load_json
from deeplab_jax.data.sources.class_masks import check_missing_masks
from deeplab_jax.data.sources.legend import TRUE, color_code
from deeplab_jax.registry import near
from deeplab_jax.types import TASKS, UserError

IGNORED = "ignore"  # instead of a class, in "values"
_BY_COLOR = {"color": True, "index": False}


@dataclasses.dataclass(frozen=True, slots=True)
class MaskDeclaration:
    """The fields of classes.json that say what the values in masks mean; everything may be left out.

    Attributes:
      task: "task": one of TASKS, or '' to be told from the masks.
      values: "values": code in a mask -> class name, id or 'ignore', as written.
      threshold: "threshold": the share of the object, in (0, 1], from which a pixel of a soft mask is the object.
      by_color: "mask_palette": whether palette images are read by 'color' (True) or by 'index' (False).
      page: "mask_page": of files with several pages, the one that is the mask; the first is 1.
      has_palette: whether the classes' colours are given, so that masks may hold them.
      has_ignore: whether "ignore_label" is given.
      may_lack_masks: "missing_masks": whether classes that may overlap may lack a file, and are 'absent' then.
    """

    task: str = ""
    values: Mapping[int, Any] | None = None
    threshold: float | None = None
    by_color: bool | None = None
    page: int | None = None
    has_palette: bool = False
    has_ignore: bool = False
    may_lack_masks: bool = False


def read_declaration(folder: pathlib.Path, classes: Classes, task: str = "") -> MaskDeclaration:
    """The declaration in a folder's classes.json; an empty one if there is no such file.

    Args:
      task: of the config; goes before that of the file.

    Raises:
      UserError: for a value that makes no sense.
    """
    path = folder / "classes.json"
    content = load_json(path) if path.is_file() else {}
    told = content.get("task", "")
    if told not in ("", *TASKS):
        raise UserError(f"{path}: has task={told!r}{near(str(told), TASKS)}")
    threshold = content.get("threshold")
    if threshold is not None and not (isinstance(threshold, (int, float)) and 0 < threshold <= 1):
        raise UserError(f"{path}: has threshold={threshold!r}; must be a share of the largest value, in (0, 1]")
    by = content.get("mask_palette")
    if by is not None and by not in tuple(_BY_COLOR):
        raise UserError(f"{path}: has mask_palette={by!r}; must be 'color' or 'index': which of them tells the class")
    page = content.get("mask_page")
    if page is not None and (type(page) is not int or page < 1):
        raise UserError(f"{path}: has mask_page={page!r}; must be a page's number, from 1")
    return MaskDeclaration(
        task=task or told,
        values=_read_values(path, content["values"]) if "values" in content else None,
        threshold=threshold,
        by_color=None if by is None else _BY_COLOR[by],
        page=page,
        has_palette=classes.has_palette,
        has_ignore="ignore_label" in content,
        may_lack_masks=check_missing_masks(content.get("missing_masks"), path),
    )


def meaning_of(values: Mapping[int, Any], names: tuple[str, ...], ignore_label: int) -> dict[int, int]:
    """Code -> class id or ignore label.

    Raises:
      UserError: for a class that does not exist.
    """
    meaning = {}
    for code, meant in values.items():
        if meant == IGNORED:
            meaning[code] = ignore_label
        elif isinstance(meant, str) and meant in names:
            meaning[code] = names.index(meant)
        elif isinstance(meant, int) and not isinstance(meant, bool) and meant in (*range(len(names)), ignore_label):
            meaning[code] = meant
        else:
            raise UserError(f'classes.json: "values" names the class {meant!r}{near(str(meant), (*names, IGNORED))}')
    return meaning


def _read_values(path: pathlib.Path, content: Any) -> dict[int, Any]:
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: has values={content!r}; write {{"0": "background", "255": "name of a class"}}')
    return {_parse_code(path, key): meant for key, meant in content.items()}


def _parse_code(path: pathlib.Path, key: str) -> int:
    """A grey value or index ('128'), a colour ('128, 0, 0' or '#800000'), or 'true'."""
    text = key.strip().lower()
    if text == "true":
        return TRUE
    if re.fullmatch(r"\d{1,5}", text) and int(text) <= 0xFFFF:
        return int(text)
    if re.fullmatch(r"#[0-9a-f]{6}", text):
        return color_code(bytes.fromhex(text[1:]))
    parts = re.fullmatch(r"\(?\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*\)?", text)
    if parts and all(int(part) < 256 for part in parts.groups()):
        return color_code(int(part) for part in parts.groups())
    raise UserError(f"{path}: \"values\" has the key {key!r}; write a grey value '128', a colour '128, 0, 0' or 'true'")
