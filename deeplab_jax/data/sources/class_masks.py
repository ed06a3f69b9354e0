"""Masks of classes that may overlap: a file for each class, or a channel for each in one file."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from deeplab_jax.data.sources.legend import Codes, Legend, require_known
from deeplab_jax.data.sources.mask_codes import channel_codes, mask_codes, read_mask_file
from deeplab_jax.data.sources.path_words import Place, Role
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.registry import near
from deeplab_jax.types import UserError

_BETWEEN = r"[ _.-]+"
ABSENT = "absent"  # as "missing_masks" in classes.json: a class without a file is nowhere in the image


@dataclasses.dataclass
class ClassMasks:
    """The files of an image's classes: NAME_CLASS.png, CLASS/NAME.png or NAME/CLASS.png, in the folder of masks."""

    names: Sequence[str]  # of the classes, in the order of their ids
    files: dict[pathlib.PurePath, dict[int, pathlib.PurePath]] = dataclasses.field(default_factory=dict)

    def gather(self, places: Iterable[Place]) -> list[Place]:
        """The same places, with one for all files of an image's classes; `files` then has them by its path."""
        gathered: dict[tuple[str, ...], Place] = {}
        others = []
        for place in places:
            found = self._class_of(place) if place.role is not Role.IMAGE else None
            if found is None:
                others.append(place)
                continue
            class_id, bare = found
            first = gathered.setdefault((bare.split, *bare.key), bare)
            other = self.files.setdefault(first.path, {}).setdefault(class_id, place.path)
            if other != place.path:
                raise UserError(f"{place.path}: and {other} are both the mask of '{self.names[class_id]}'; keep one")
        return [*others, *gathered.values()]

    def sample(self, sample: Sample, folder: pathlib.Path, *, may_lack: bool) -> Sample:
        """The sample with the files of its classes; as it is where one file holds them all.

        Raises:
          UserError: when a class has no file, unless `may_lack`.
        """
        inside = sample.mask.relative_to(folder) if sample.mask.is_relative_to(folder) else sample.mask
        if inside not in self.files:
            return sample
        files = self.files[inside]
        missing = [name for class_id, name in enumerate(self.names) if class_id not in files]
        if missing and not may_lack:
            raise UserError(
                f"{sample.mask}: beside it there is no mask of '{missing[0]}' for the image {sample.name}; add one (an "
                'empty file will do), or write "missing_masks": "absent" into classes.json: such a class is nowhere in '
                "the image then"
            )
        parts = tuple(folder / files[k] if k in files else None for k in range(len(self.names)))
        return dataclasses.replace(sample, parts=parts)

    @property
    def members(self) -> set[pathlib.PurePath]:
        """All files that were gathered."""
        return {path for files in self.files.values() for path in files.values()}

    def _class_of(self, place: Place) -> tuple[int, Place] | None:
        """(class id, the place without its class's name); None: nothing names a class."""
        for depth, name in enumerate(place.below):
            if (class_id := self._ids.get(_plain(name))) is not None:
                return class_id, place._replace(below=place.below[:depth] + place.below[depth + 1 :])
        if place.below and (class_id := self._ids.get(_plain(place.name))) is not None:
            return class_id, place._replace(below=place.below[:-1], name=place.below[-1])
        for plain, class_id in self._ids.items():
            words = _BETWEEN.join(map(re.escape, plain.split()))
            if match := re.fullmatch(rf"(?i)(.+?){_BETWEEN}{words}|{words}{_BETWEEN}(.+)", place.name):
                return class_id, place._replace(name=match[1] or match[2])
        return None

    @property
    def _ids(self) -> Mapping[str, int]:
        """The longest names first, so that 'red car' is not taken for 'car'."""
        ids = {_plain(name): class_id for class_id, name in enumerate(self.names)}
        return dict(sorted(ids.items(), key=lambda item: -len(item[0])))


def read_class_masks(sample: Sample, legend: Legend, names: Sequence[str]) -> Codes:
    """The codes of each class, [h, w, classes]; [0, 0, classes] where all are nowhere.

    Raises:
      UserError: when a file cannot be read, the files differ in size, or do not fit the classes.
    """
    if not sample.parts:
        return _read_channels(sample.mask, legend, names)
    planes = [_read_part(path, legend) if path else None for path in sample.parts]
    sizes = {plane.shape: path for plane, path in zip(planes, sample.parts, strict=True) if plane is not None}
    if not sizes:
        return np.zeros((0, 0, len(names)), np.uint8)
    if len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise UserError(f"{first}: is {one[0]}x{one[1]} (height x width), but {second} is {other[0]}x{other[1]}")
    nothing = np.zeros(next(iter(sizes)), np.uint8)
    return np.stack([nothing if plane is None else plane for plane in planes], axis=-1)


def _read_part(path: pathlib.Path, legend: Legend) -> Codes | None:
    """The codes of one class; None: an empty file, so the class is nowhere."""
    data = read_bytes(path)
    if not data:
        return None
    codes = mask_codes(read_mask_file(data, str(path)), legend, str(path))
    require_known(codes, legend.labels(codes), legend, str(path))
    return codes


def _read_channels(path: pathlib.Path, legend: Legend, names: Sequence[str]) -> Codes:
    codes = channel_codes(read_bytes(path), legend, str(path))
    if codes.shape[2] != len(names):
        raise UserError(
            f"{path}: holds {codes.shape[2]} channel{'s' * (codes.shape[2] != 1)}, and there are {len(names)} classes "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}), which may overlap; save a channel for each, "
            f"or a file for each: {path.stem}_{names[0]}.png"
        )
    return codes


def check_missing_masks(setting: object, path: pathlib.Path) -> bool:
    """Whether classes may lack their file; raises UserError for a setting that makes no sense."""
    if setting not in (None, ABSENT):
        raise UserError(f"{path}: has missing_masks={setting!r}{near(str(setting), (ABSENT,))}")
    return setting == ABSENT


def _plain(name: str) -> str:
    return re.sub(_BETWEEN, " ", name).strip().lower()
