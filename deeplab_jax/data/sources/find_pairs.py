"""Finds the samples of a folder: which image belongs to which mask, and to which split."""

from __future__ import annotations

import collections
import hashlib
import pathlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from deeplab_jax.data.sources.class_files import load_json
from deeplab_jax.data.sources.class_masks import ClassMasks
from deeplab_jax.data.sources.file_formats import image_files
from deeplab_jax.data.sources.match_masks import Pairs, pair_places
from deeplab_jax.data.sources.pairing_patterns import places_by_pattern
from deeplab_jax.data.sources.path_words import Place, place_of
from deeplab_jax.data.sources.samples import Sample
from deeplab_jax.data.sources.split_lists import SplitReader, find_lists
from deeplab_jax.data.sources.text_files import printable
from deeplab_jax.data.sources.walk_folder import walk
from deeplab_jax.types import UserError

_MAX_LISTED = 4  # folders in a note


class FoundSamples(NamedTuple):
    """The samples of each split of a folder, and what to tell its owner about them."""

    splits: dict[str, list[Sample]]
    notes: tuple[str, ...]


def find_splits(folder: pathlib.Path, pairs: Pairs | None = None, *, classes: ClassMasks | None = None) -> FoundSamples:
    """The samples of each split, as described in datasets/folder.py.

    Args:
      pairs: the images with their masks, if that is known; None: found by their paths.
      classes: gathers the files of an image's classes, where these may overlap; one of them then stands for all.

    Raises:
      UserError: if there is no image, no mask, or more than one way to read the folder.
    """
    paths = image_files(walk(folder))
    lists = find_lists(folder)
    if pairs is None:
        pairs, places = _find_pairs(folder, paths, bool(lists), classes)
    else:
        places = [mask for mask in pairs.masks.values() if mask]
    if lists:
        reader = SplitReader(pairs, places)
        splits = {split: reader.read(path) for split, path in lists.items()}
        how = f"listed in {', '.join(str(path.relative_to(folder)) for path in lists.values())}"
    else:
        splits, how = _splits_of(pairs)
    members = {folder / path for path in classes.members} if classes else set()
    used = members | {path for samples in splits.values() for sample in samples for path in (sample.image, sample.mask)}
    notes = [_describe(splits, how, folder), _unused(folder, paths, used, listed=bool(lists))]
    return FoundSamples(splits, tuple(note for note in notes if note))


def _find_pairs(
    folder: pathlib.Path, paths: Sequence[pathlib.PurePath], has_lists: bool, classes: ClassMasks | None
) -> tuple[Pairs, Sequence[Place]]:
    """(images with their masks, all places)."""
    settings = folder / "classes.json"
    content = load_json(settings) if settings.is_file() else {}
    places = places_by_pattern(content, settings, paths) or [place_of(path) for path in paths]
    places = classes.gather(places) if classes else places
    try:
        return pair_places(folder, places), places
    except UserError as error:
        if not has_lists:
            raise
        return Pairs(folder, {}, error), places  # the lists may name masks themselves


def _splits_of(pairs: Pairs) -> tuple[dict[str, list[Sample]], str]:
    """(split -> samples, how they were found): by folder, else every fifth is for 'val'."""
    by_split: dict[str, list[Place]] = collections.defaultdict(list)
    for image in pairs.masks:
        by_split[image.split].append(image)
    if set(by_split) - {""}:
        # The images of a benchmark's test split have no masks.
        labelled = {split for split, images in by_split.items() if split and any(map(pairs.masks.get, images))}
        return {split: [pairs.sample(image) for image in by_split[split]] for split in sorted(labelled)}, "by folder"
    samples = sorted(map(pairs.sample, by_split[""]), key=lambda each: hashlib.sha256(each.name.encode()).digest())
    return {"train": [each for index, each in enumerate(samples) if index % 5], "val": samples[::5]}, "drawn"


def _describe(splits: dict[str, list[Sample]], how: str, folder: pathlib.Path) -> str:
    listed = [sample for samples in splits.values() for sample in samples]
    if not listed:
        return ""
    listed.sort(key=lambda sample: sample.image)
    sample = next((sample for sample in listed if sample.mask.is_file()), listed[0])
    image, mask = (_within(path, folder) for path in (sample.image, sample.mask))
    counts = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
    return f"masks are found as {mask} for {image}; splits ({how}): {counts}"


def _unused(
    folder: pathlib.Path, paths: Sequence[pathlib.PurePath], used: Collection[pathlib.Path], *, listed: bool
) -> str:
    """What is left out; with lists, only folders from which nothing is taken."""
    busy = {path.parent for path in used}
    left = [path for path in paths if folder / path not in used]
    groups = collections.Counter(path.parent for path in left if not listed or folder / path.parent not in busy)
    if not groups:
        return ""
    named = [f"{printable(inside.as_posix())}/ ({count})" for inside, count in sorted(groups.items())]
    more = [f"{len(named) - _MAX_LISTED} more folders"] if len(named) > _MAX_LISTED else []
    return f"images that are not used: {', '.join([*named[:_MAX_LISTED], *more])}"


def _within(path: pathlib.Path, folder: pathlib.Path) -> str:
    return printable(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path))
