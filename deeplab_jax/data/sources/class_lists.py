"""Text files of class names, as people and annotation tools write them.

background                          a name per line, in class id order
background 0 0 0                    and its colour; also background,0,0,0 and 0,0,0,background
0 background                        and its id; also 0: background, 0,background and 0,background,0,0,0
# label:color_rgb:parts:actions     CVAT's and Datumaro's labelmap.txt
background:0,0,0::
__ignore__                          labelme's labels.txt: the first line stands for ignored pixels, and ids begin
_background_                        with the second
name,r,g,b                          tables with one of the known headers (CamVid, Roboflow's _classes.csv)
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from deeplab_jax.data.sources.text_files import read_text
from deeplab_jax.types import UserError

IGNORED_NAME = "__ignore__"  # labelme's
_HEADERS = ("name,r,g,b", "class,r,g,b", "pixel value,class", "id,name", "id,class", "class_id,class_name", "id,label")
_COMMENT = re.compile(r"#|//|;|%|<|\[|\{|---")
_HEADING = re.compile(
    r"(?i)\W*(?:class|label|category|categorie)(?:e?s)?(?:[ _]?(?:names?|list|map|ids?))?\W*"
    r"|(?:id|names?|index)(?:[\s,;:].*)?"
)
_CVAT_LINE = re.compile(r"([^:]+):\s*(\d+\s*,\s*\d+\s*,\s*\d+)?\s*:[^:]*:[^:]*")
_NUMBER = re.compile(r"\d{1,9}")


class ClassList(NamedTuple):
    """The lines of a list of classes."""

    names: tuple[str, ...]  # in class id order
    colors: list[list[int]] | None  # of each class, if the file gives them


def read_class_list(path: pathlib.Path) -> ClassList:
    """Reads a text file of class names.

    Raises:
      UserError: if it is no text; if a line may be a comment or a heading; if lines disagree on their form.
    """
    text = read_text(path, wanted="save it as UTF-8, one class name per line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    is_cvat = _is_cvat(lines)
    if is_cvat or (lines and _squeezed(lines[0]) in _HEADERS):
        lines = lines[1:] if not _CVAT_LINE.fullmatch(lines[0]) else lines
    if lines and lines[0] == IGNORED_NAME:
        lines = lines[1:]
    for line in lines:
        _require_name(line, path)
    if is_cvat:
        return _parse_cvat(lines)
    return _parse(lines, path)


def _is_cvat(lines: Sequence[str]) -> bool:
    body = lines[1:] if lines and lines[0].startswith("#") else lines
    return bool(body) and all(map(_CVAT_LINE.fullmatch, body))


def _require_name(line: str, path: pathlib.Path) -> None:
    what = ""
    if _COMMENT.match(line):
        what = "a comment or markup"
    elif _HEADING.fullmatch(line):
        what = "a heading"
    elif line == IGNORED_NAME:
        what = "labelme's mark for ignored pixels, which belongs in the first line"
    if what:
        raise UserError(
            f"{path}: its line '{line}' looks like {what}, not like a class; take the line out, or write the names "
            'into classes.json if it is one: {"class_names": [...]}'
        )


def _squeezed(line: str) -> str:
    return re.sub(r"\s*[,;\t]\s*", ",", line.strip().lower())


def _parse_cvat(lines: Sequence[str]) -> ClassList:
    matches = [match for line in lines if (match := _CVAT_LINE.fullmatch(line))]
    colors = [[int(level) for level in match[2].split(",")] if match[2] else [] for match in matches]
    return ClassList(tuple(match[1].strip() for match in matches), colors if any(colors) else None)


class _Row(NamedTuple):
    before: list[int]  # numbers before the name
    name: str
    after: list[int]  # and behind it


def _parse(lines: Sequence[str], path: pathlib.Path) -> ClassList:
    separated = [_row(re.split(r"[,;\t:]", line)) for line in lines]
    if all(row.before or row.after for row in separated) and len({_form(row) for row in separated}) == 1:
        rows = separated
    else:
        rows = [_spaced(line) for line in lines]
    if not all(len(row.before) == 1 for row in rows) and any(len(row.before) == 1 for row in rows):
        rows = [_spaced(line, numbered=False) for line in lines]
    names = [row.name for row in rows]
    colors = [row.after or row.before[-3:] if max(map(len, (row.after, row.before))) >= 3 else [] for row in rows]
    ids = [row.before[0] for row in rows if len(row.before) in (1, 4)]
    ids = ids or [row.after[0] for row in rows if len(row.after) == 1]
    if len(ids) == len(rows) and rows:
        order = sorted(range(len(ids)), key=ids.__getitem__)
        if [ids[index] for index in order] != list(range(len(ids))):
            raise UserError(
                f"{path}: numbers its classes {_summary(ids)}; ids are counted from 0 without gaps: write a name for "
                "each, as '0 background', or leave the numbers out"
            )
        names, colors = [names[index] for index in order], [colors[index] for index in order]
    return ClassList(tuple(names), colors if any(colors) else None)


def _summary(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")


def _form(row: _Row) -> tuple[int, int]:
    return len(row.before), len(row.after)


def _row(cells: Sequence[str]) -> _Row:
    """Numbers before the name and behind it; what is neither belongs to the name."""
    cells = [cell.strip() for cell in cells if cell.strip()]
    start, end = 0, len(cells)
    while start < end - 1 and _NUMBER.fullmatch(cells[start]):
        start += 1
    while end > start + 1 and _NUMBER.fullmatch(cells[end - 1]):
        end -= 1
    before, after = [int(cell) for cell in cells[:start]], [int(cell) for cell in cells[end:]]
    return _Row(before, ", ".join(cells[start:end]), after)


def _spaced(line: str, *, numbered: bool = True) -> _Row:
    """As `_row`, of words: only a colour behind the name and an id before it, since 'layer 2' may be a name."""
    words = line.split()
    row = _row(words)
    after = row.after[-3:] if len(row.after) >= 3 else []
    before = row.before if len(row.before) == 1 and numbered else []
    return _Row(before, " ".join(words[len(before) : len(words) - len(after)]), after)
