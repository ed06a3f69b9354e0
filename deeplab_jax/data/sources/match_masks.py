"""Pairs each image of a folder with its mask, by the words of their paths or by patterns of the folder's owner."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Sequence

from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.path_words import Place, Role, folder_words, without_affix
from deeplab_jax.data.sources.samples import Sample
from deeplab_jax.data.sources.text_files import printable
from deeplab_jax.types import UserError

PATTERN_REMEDY = (
    'tell them apart with patterns in classes.json: {"images": "photos/{name}.jpg", "masks": "labels/{name}_mask.png"}'
)
_JPEG = (".jpg", ".jpeg", ".jfif", ".jpe")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The images of a folder with their masks."""

    folder: pathlib.Path
    masks: dict[Place, Place | None]  # of each image; None: it has none
    problem: UserError | None = None  # why nothing could be paired

    def sample(self, image: Place) -> Sample:
        """Image and mask; where there is no mask, the path that it should have."""
        mask = self.masks[image]
        inside = mask.path if mask else self._homes[Role.MASK].joinpath(*image.key[:-1], f"{image.name}.png")
        return Sample(printable("/".join(image.key)), self.folder / image.path, self.folder / inside)

    def absent(self, name: str) -> Sample:
        """The sample that a list names and the folder lacks: the paths that it should have.

        Raises:
          UserError: if nothing could be paired.
        """
        if self.problem:
            raise self.problem
        image, mask = (self.folder / self._homes[role] / name for role in (Role.IMAGE, Role.MASK))
        there = (image.with_name(f"{image.name}{suffix}") for suffix in IMAGE_SUFFIXES)
        expected = next((path for path in there if path.exists()), image.with_name(f"{image.name}.jpg"))
        return Sample(printable(name), expected, mask.with_name(f"{mask.name}.png"))

    @functools.cached_property
    def _homes(self) -> dict[Role, pathlib.PurePath]:
        """The folders that hold all images and all masks."""
        places = {Role.IMAGE: list(self.masks), Role.MASK: [mask for mask in self.masks.values() if mask]}
        return {role: _common_folder(role, found) for role, found in places.items()}


def _common_folder(role: Role, places: Sequence[Place]) -> pathlib.PurePath:
    folders = {str(place.path.parent) for place in places if place.role is role}
    return pathlib.PurePath(os.path.commonpath(folders) if folders else f"{role.value}s")


def pair_places(folder: pathlib.Path, places: Sequence[Place]) -> Pairs:
    """The images among `places`, which are in `folder`, with their masks.

    Raises:
      UserError: if there is no image, no mask, or more than one reading.
    """
    images, masks = _by_role(_with_all_splits(places))
    if not images:
        raise UserError(
            f"{folder / 'images'}: holds no image; put images there and their masks, under the same names, in "
            f"{folder / 'masks'}"
        )
    if not masks:
        raise UserError(
            f"{folder}: holds {len(images)} images ({images[0].path}, ...) and nothing that can be told to be their "
            f"masks; put these into {folder / 'masks'} under the same names, or {PATTERN_REMEDY}"
        )
    images, masks = _nearest_to_root(without_common(images), without_common(masks))
    pairs = Pairs(folder, _match(folder, images, masks))
    if not any(pairs.masks.values()):
        raise UserError(
            f"{folder}: no name of its {len(images)} images ({images[0].path}, ...) is that of one of its {len(masks)} "
            f"masks ({masks[0].path}, ...); name masks like their images, or {PATTERN_REMEDY}"
        )
    return pairs


def _with_all_splits(places: Sequence[Place]) -> list[Place]:
    """The same, with folders beside those called 'train' and so on as splits too, whatever they are called."""
    depths = {
        depth
        for place in places
        for depth, name in enumerate(place.path.parts[:-1][:2])
        if place.split and folder_words(name).split
    }
    named = []
    for place in places:
        parts = place.path.parts
        if not place.split and 0 in depths and place.above and parts[0] == place.above[0]:
            place = place._replace(split=place.above[0], above=place.above[1:])
        elif not place.split and 1 in depths and place.below and not place.above and parts[1] == place.below[0]:
            place = place._replace(split=place.below[0], below=place.below[1:])
        named.append(place)
    return named


def _by_role(places: Sequence[Place]) -> tuple[list[Place], list[Place]]:
    """(images, masks): as their folders say, else their names, else their formats."""
    by_folder = collections.defaultdict(list)
    for place in places:
        by_folder[place.role].append(place)
    if by_folder[Role.MASK]:
        images = _surest(by_folder[Role.IMAGE]) or by_folder[None]
        return images, _surest(by_folder[Role.MASK])
    names = {_identity(place, name) for place in places for name in {place.name, without_affix(place.name, Role.IMAGE)}}
    is_mask = {
        place: (bare := without_affix(place.name, Role.MASK)) != place.name and _identity(place, bare) in names
        for place in places
    }
    if not any(is_mask.values()):
        is_mask = _masks_beside_jpegs(places)
    return [place for place in places if not is_mask[place]], [place for place in places if is_mask[place]]


def _surest(places: list[Place]) -> list[Place]:
    """Those in folders whose names say the role and no more, if there are any: 'masks' goes before 'masks_old'."""
    return [place for place in places if place.is_sure] or places


def _masks_beside_jpegs(places: Sequence[Place]) -> dict[Place, bool]:
    """Whether each is the other file of the same name as a JPEG image, in the same folder."""
    formats = collections.defaultdict(set)
    for place in places:
        formats[_identity(place, place.name)].add(place.path.suffix.lower() in _JPEG)
    return {
        place: formats[_identity(place, place.name)] == {True, False} and place.path.suffix.lower() not in _JPEG
        for place in places
    }


def _identity(place: Place, name: str) -> tuple[str, ...]:
    return (place.split, *place.above, *place.below, name)


def without_common(places: Sequence[Place]) -> list[Place]:
    """The same, without the folders above, or below, that all of them share."""
    above, below = _num_shared([place.above for place in places]), _num_shared([place.below for place in places])
    return [place._replace(above=place.above[above:], below=place.below[below:]) for place in places]


def _num_shared(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders all of them begin with."""
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return sum(1 for _ in shared)


def _nearest_to_root(images: Sequence[Place], masks: Sequence[Place]) -> tuple[list[Place], list[Place]]:
    """Without images/ and masks/ in further folders, such as backups, where both are in the data set's own."""
    shallow = [[place for place in places if not place.above] for places in (images, masks)]
    return (shallow[0], shallow[1]) if all(shallow) else (list(images), list(masks))


def _match(folder: pathlib.Path, images: Sequence[Place], masks: Sequence[Place]) -> dict[Place, Place | None]:
    """The mask of each image: of the same name, or of the same name but for affixes and capitals."""
    same = _by_name(folder, masks)
    _by_name(folder, images)  # two of one name are an error
    exact = {image: _first(same, image) for image in images}
    taken = {mask for mask in exact.values() if mask}
    alike: dict[tuple[str, ...], list[Place]] = collections.defaultdict(list)
    for mask in masks:
        if mask not in taken:
            for key in _loose_keys(mask, Role.MASK, [mask.split]):
                alike[key].append(mask)
    found: dict[Place, Place | None] = {}
    for image, partner in exact.items():
        others = [other for key in _loose_keys(image, Role.IMAGE, [image.split, ""]) for other in alike.get(key, [])]
        fitting = list(dict.fromkeys([*([partner] if partner else []), *others]))
        if len(fitting) > 1:
            first, second = fitting[0].path, fitting[1].path
            other = second.name if first.parent == second.parent else second
            raise UserError(
                f"{folder / first}: and {other} both fit the image {image.path}; keep one of them, or {PATTERN_REMEDY}"
            )
        found[image] = fitting[0] if fitting else None
    return found


def _by_name(folder: pathlib.Path, places: Sequence[Place]) -> dict[tuple[str, ...], Place]:
    """The places by identity; raises UserError if two have the same."""
    index: dict[tuple[str, ...], Place] = {}
    for place in places:
        other = index.setdefault(_identity(place, place.name), place)
        if other is not place:
            name = other.path.name if other.path.parent == place.path.parent else str(other.path)
            raise UserError(f"{folder / place.path}: and {name} have the same name; keep one of them")
    return index


def _first(index: dict[tuple[str, ...], Place], image: Place) -> Place | None:
    """The mask in the image's split and folder, or else of no split."""
    keys = (_identity(image._replace(split=split), image.name) for split in (image.split, ""))
    return next((index[key] for key in keys if key in index), None)


def _loose_keys(place: Place, role: Role, splits: Sequence[str]) -> list[tuple[str, ...]]:
    """Identities in small letters, with and without the affix of the role."""
    names = dict.fromkeys((place.name, without_affix(place.name, role)))
    keys = [_identity(place._replace(split=split), name) for name in names for split in dict.fromkeys(splits)]
    return [tuple(part.lower() for part in key) for key in keys]
