"""Tells which image an annotation file is about, and which split."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence

from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.path_words import folder_words, place_of
from deeplab_jax.data.sources.text_files import normal_name
from deeplab_jax.types import UserError


def documents_of(
    images: Sequence[pathlib.PurePath], documents: Sequence[pathlib.PurePath]
) -> dict[pathlib.PurePath, pathlib.PurePath]:
    """Document -> the image of the same name: in its folder, in the corresponding one, or the only one there is."""
    by_path = {path.with_suffix(""): path for path in images}
    by_key, by_name = collections.defaultdict(list), collections.defaultdict(list)
    for path in images:
        place = place_of(path)
        by_key[place.split, place.key].append(path)
        by_name[place.name].append(path)
    found = {}
    for document in documents:
        place = place_of(document.with_suffix(""))  # of NAME.json or NAME.jpg.json
        name = place.name if document.with_suffix("").suffix.lower() in IMAGE_SUFFIXES else document.stem
        key = (*place.key[:-1], name)
        same = by_path.get(document.with_name(name))
        candidates = [same] if same else by_key.get((place.split, key)) or by_name.get(name, [])
        if len(candidates) == 1:
            found[document] = candidates[0]
    return found


class ImageFinder:
    """Finds images by what annotation files call them."""

    def __init__(self, images: Sequence[pathlib.PurePath]):
        self._by_last_part = collections.defaultdict(list)
        for path in images:
            self._by_last_part[normal_name(path.name)].append(path)

    def find(self, name: str, document: pathlib.PurePath) -> pathlib.PurePath:
        """The image that `document` calls `name`: beside it, in the folder, or the only one whose path ends so.

        Where there is none, the path that it should have beside the document.

        Raises:
          UserError: if it may be two.
        """
        wanted = pathlib.PurePosixPath(normal_name(name.replace("\\", "/")))
        known = self._by_last_part.get(wanted.name, [])
        parts = {path: pathlib.PurePosixPath(normal_name(path.as_posix())).parts for path in known}
        beside = pathlib.PurePosixPath(normal_name(document.parent.as_posix())) / wanted
        exact = [path for path in known if parts[path] in (beside.parts, wanted.parts)]
        ends = [path for path in known if parts[path][-len(wanted.parts) :] == wanted.parts]
        candidates = exact or ends or known
        if len(candidates) > 1 and (split := split_of(document)):
            candidates = [path for path in candidates if place_of(path).split == split] or candidates
        if len(candidates) > 1:
            raise UserError(f"{document}: '{name}' may be {candidates[0]} or {candidates[1]}; write the path")
        return candidates[0] if candidates else document.parent / wanted


def split_of(document: pathlib.PurePath) -> str:
    """'train' for instances_train2017.json, train.json and train/_annotations.coco.json."""
    words = [split for word in document.stem.replace("-", "_").split("_") if (split := folder_words(word).split)]
    return words[0] if words else place_of(document).split
