"""Lists of the samples of a split: a name or path per line, image and mask in two columns, or a table (CSV)."""

from __future__ import annotations

import csv
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.match_masks import Pairs
from deeplab_jax.data.sources.path_words import Place, is_split, says_anything, split_name
from deeplab_jax.data.sources.samples import Sample, image_name
from deeplab_jax.data.sources.text_files import normal_name, printable, read_list
from deeplab_jax.types import UserError

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
_LIST_WORDS = re.compile(r"(?i)[ _-]*(?:list|files|names|ids|images|set|split)?")
_TWO_PATHS = re.compile(rf"(?i)(.+?(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))\s+(.+)")
_MAX_ENTRY, _MAX_NAME = 2000, 250  # letters of a path, bytes of a name without suffix: systems allow 4,096 and 255
_FLAG = re.compile(r"-?[01]")  # in VOC's lists, whether the class is there
_FROM_ELSEWHERE = re.compile(r"/|[A-Za-z]:/|\.\./|~")  # a path that need not begin in the data set's folder


def find_lists(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Split -> its list: in splits/ under any name, in ImageSets/Segmentation/ or in the folder under a split's name.

    Raises:
      UserError: if there are two of one split.
    """
    found = _lists_in(folder / "splits", any_name=True)
    return found or _lists_in(folder / "ImageSets" / "Segmentation", folder / "ImageSets", folder)


def _lists_in(*folders: pathlib.Path, any_name: bool = False) -> dict[str, pathlib.Path]:
    for folder in folders:
        found: dict[str, pathlib.Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            word = path.stem if any_name else _LIST_WORDS.sub("", path.stem)
            if path.suffix.lower() in LIST_SUFFIXES and not path.name.startswith(".") and (any_name or is_split(word)):
                other = found.setdefault(split_name(word), path)
                if other is not path:
                    raise UserError(f"{path}: and {other.name} list the same split; keep one of them")
        if any(map(is_split, found)) or (found and any_name):
            return found
    return {}


class _Index:
    """Finds places by what a list may call them."""

    def __init__(self, places: Iterable[Place], folder: pathlib.Path):
        self._home = normal_name(folder.name)  # which paths may begin with
        self._by_path: dict[str, list[Place]] = {}
        self._by_key: dict[str, list[Place]] = {}
        self._by_name: dict[str, list[Place]] = {}
        for place in places:
            path = normal_name(place.path.as_posix())
            for entry in {path, normal_name((place.path.parent / place.name).as_posix())}:
                self._by_path.setdefault(entry, []).append(place)
            self._by_key.setdefault(normal_name("/".join(place.key)), []).append(place)
            self._by_name.setdefault(normal_name(place.name), []).append(place)

    def find(self, entry: str, list_path: pathlib.Path) -> Place | None:
        """The place that an entry names by its path, its path without image and mask folders, or its bare name.

        Raises:
          UserError: if it may be two.
        """
        for text in dict.fromkeys((entry, entry.replace("\\", "/"))):
            text = normal_name(text).removeprefix("./")
            folders, name = text.split("/")[:-1], image_name(text)
            named = [folder for folder in folders if folder and not says_anything(folder)]
            keys = ["/".join([*named, name])]
            if _FROM_ELSEWHERE.match(text):
                keys += ["/".join([*named[start:], name]) for start in range(1, len(named) + 1)]
            elif named and not any(key in self._by_key for key in keys):
                keys += ["/".join([*named[1:], name])] if named[0] == self._home else []
            candidates = [self._by_path.get(text), self._by_path.get("/".join([*folders, name]))]
            candidates += [self._by_key.get(key) for key in keys]
            candidates += [self._by_name.get(name)] if not folders else []
            found = next((places for places in candidates if places), [])
            if len(found) > 1:
                raise UserError(
                    f"{list_path}: '{printable(entry)}' may be {found[0].path} or {found[1].path}; write the path"
                )
            if found:
                return found[0]
        return None


class SplitReader:
    """Reads lists of samples of one folder."""

    def __init__(self, pairs: Pairs, places: Sequence[Place]):
        """
        Args:
          pairs: images with their masks.
          places: all files, among which a second column may name masks.
        """
        self._pairs, self._places = pairs, places
        self._images = _Index(pairs.masks, pairs.folder)

    def read(self, path: pathlib.Path) -> list[Sample]:
        """The samples that a list names, in its order; where the folder lacks one, the paths that it should have.

        Raises:
          UserError: if it is no text, or an entry may be two images.
        """
        if path.suffix.lower() != ".txt":
            rows = _read_table(path, self._images, lambda entry: self._find_mask(entry, path))
        else:
            rows = [_cells(line, self._images, path) for line in read_list(path)]
        return [self._sample(cells, path) for cells in rows]

    def _sample(self, cells: Sequence[str], path: pathlib.Path) -> Sample:
        """The sample of [image] or [image, mask]."""
        folder = self._pairs.folder
        image = self._images.find(cells[0], path)
        if len(cells) == 1:
            return self._pairs.sample(image) if image else self._pairs.absent(_without_known_folders(cells[0], path))
        image = image or self._everything.find(cells[0], path)
        mask = self._find_mask(cells[1], path)
        name = "/".join(image.key) if image else _without_known_folders(cells[0], path)
        given = [cell.replace("\\", "/") for cell in cells]
        return Sample(
            printable(name),
            folder / (image.path if image else _possible(given[0], path)),
            folder / (mask.path if mask else _possible(given[1], path)),
        )

    def _find_mask(self, entry: str, path: pathlib.Path) -> Place | None:
        is_path = "/" in entry.replace("\\", "/")
        return (self._everything if is_path else self._masks).find(entry, path)

    @functools.cached_property
    def _masks(self) -> _Index:
        return _Index((mask for mask in self._pairs.masks.values() if mask), self._pairs.folder)

    @functools.cached_property
    def _everything(self) -> _Index:
        return _Index(self._places, self._pairs.folder)


def _cells(line: str, images: _Index, path: pathlib.Path) -> list[str]:
    """[image] or [image, mask] of a line; a name may contain spaces and commas, so the whole line is tried first."""
    whole = _unquoted(line)
    if images.find(whole, path):
        return [whole]
    two = _TWO_PATHS.fullmatch(line)
    splits = [line.split("\t"), line.split(","), line.split(";"), list(two.groups()) if two else [], line.split()]
    for parts in splits:
        cells = [_unquoted(part) for part in parts if part.strip()]
        if len(cells) == 2:
            return cells[:1] if _FLAG.fullmatch(cells[1]) else cells
    return [whole]


def _read_table(path: pathlib.Path, images: _Index, find_mask: Callable[[str], Place | None]) -> list[list[str]]:
    """[image] or [image, mask] of each row, whatever the other columns are; a header is a row without a file."""
    lines = read_list(path)
    delimiter = max("\t;,", key=lambda mark: sum(mark in line for line in lines))
    rows = [[_unquoted(cell) for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    known = [[bool(cell and images.find(cell, path)) for cell in row] for row in rows]
    is_header = len(rows) > 1 and not any(known[0]) and any(any(row) for row in known[1:])
    body = rows[1:] if is_header else rows
    width = max((len(row) for row in body), default=0)
    shares = [sum(column < len(row) and row[column] for row in known) for column in range(width)]
    if not any(shares):
        return [row[:1] for row in body]
    first = max(range(width), key=shares.__getitem__)
    mask_columns = [
        column
        for column in range(width)
        if column != first and any(len(row) > column and find_mask(row[column]) for row in body)
    ]
    columns = [first, *mask_columns[:1]]
    return [[row[column] for column in columns if column < len(row)] for row in body]


def _unquoted(entry: str) -> str:
    entry = entry.strip()
    return entry[1:-1].strip() if len(entry) > 1 and entry[0] == entry[-1] and entry[0] in "\"'" else entry


def _possible(entry: str, path: pathlib.Path) -> str:
    """An entry of the list `path`; raises UserError if it is longer than any file's name."""
    if len(entry) > _MAX_ENTRY or max(len(os.fsencode(part)) for part in entry.split("/")) > _MAX_NAME:
        raise UserError(f"{path}: has an entry of {len(entry):,} letters ({printable(entry[:20])}...); correct it")
    return entry


def _without_known_folders(entry: str, path: pathlib.Path) -> str:
    *folders, name = _possible(entry.replace("\\", "/"), path).split("/")
    return "/".join([*(f for f in folders if f and not says_anything(f)), image_name(name)])
