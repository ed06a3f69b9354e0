"""Samples stored as an image file and a mask file: finds, checks and reads them."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int16, Integer, Num, UInt8

from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.images import image_orientation
from deeplab_jax.data.sources.mask_files import HOW_TO_SAVE, decode_mask, encode_mask
from deeplab_jax.data.sources.mask_orientation import mask_as_shown
from deeplab_jax.data.sources.prepare import Record
from deeplab_jax.data.sources.walk_folder import near_files
from deeplab_jax.types import DatasetInfo, UserError

IdTable = Int16[np.ndarray, "256"]  # value in a mask -> class id or ignore label; UNKNOWN_ID if invalid

UNKNOWN_ID = -1
_FORM = 2  # of prepared copies: in the first, masks were not turned with their images


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The files of one image and its mask."""

    name: str
    image: pathlib.Path
    mask: pathlib.Path  # or the annotation file that the mask is drawn from


def require_folder(path: pathlib.Path, field: str) -> pathlib.Path:
    """Returns `path`; raises UserError, naming the config field, if it is not a folder."""
    if not path.is_dir():
        problem = "is no folder" if path.exists() else "does not exist"
        raise UserError(f"config.{field}={str(path)!r}: {problem}; give the folder with the data set's original files")
    return path


def image_name(entry: str) -> str:
    """A file's name without its folder and its image suffix; other dots belong to the name."""
    name = pathlib.PurePosixPath(entry).name
    suffix = pathlib.PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def find_images(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name without suffix -> path, for the image files in `folder`, sorted by name.

    Raises:
      UserError: when two files differ only in their suffix.
    """
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            name = image_name(path.name)
            if name in found:
                raise UserError(f"{path}: and {found[name].name} have the same name; keep one of them")
            found[name] = path
    return found


def list_samples(names: Iterable[str], images: pathlib.Path, masks: pathlib.Path) -> list[Sample]:
    """The samples called `names` in two folders; the files need not exist yet."""
    image_files, mask_files = find_images(images), find_images(masks)
    return [
        Sample(name, image_files.get(name, images / f"{name}.jpg"), mask_files.get(name, masks / f"{name}.png"))
        for name in names
    ]


def id_table(info: DatasetInfo, id_map: Mapping[int, int] | None = None) -> IdTable:
    """The class id or ignore label of each value in a data set's masks.

    Args:
      id_map: value in a mask -> class id or ignore label; None: values are class ids already.
    """
    known = {class_id: class_id for class_id in range(info.num_classes)} if id_map is None else dict(id_map)
    table = np.full(256, UNKNOWN_ID, np.int16)
    table[info.ignore_label] = info.ignore_label
    table[list(known)] = list(known.values())
    return table


def digest_of_samples(samples: Sequence[Sample], info: DatasetInfo, table: IdTable, split: str) -> str:
    """A short hash of everything that the prepared copy depends on: file names, sizes and times, and the classes.

    Raises:
      UserError: when a file does not exist.
    """
    digest = hashlib.sha256(repr((_FORM, info.num_classes, info.ignore_label, info.class_names)).encode())
    digest.update(table.tobytes())
    if not info.is_rgb:
        digest.update(repr((info.channels, info.dtype)).encode())
    for sample in samples:
        for path in (sample.image, sample.mask):
            try:
                status = path.stat()
            except OSError:
                raise UserError(
                    f"{path}: does not exist, though split '{split}' of {info.name} lists '{sample.name}'; "
                    f"add the file or take the name off the list{near_files(path)}"
                ) from None
            digest.update(repr((sample.name, path.name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def read_mask(sample: Sample) -> Integer[np.ndarray, "h w"]:
    """The values in a sample's mask file.

    Raises:
      UserError: when it cannot be read or decoded.
    """
    return decode_mask(read_bytes(sample.mask), str(sample.mask))


def read_sample(
    sample: Sample,
    info: DatasetInfo,
    table: IdTable,
    read_ids: Callable[[Sample], UInt8[np.ndarray, "h w"]] = read_mask,
) -> Record:
    """Reads and checks one sample.

    Args:
      info: the data set's classes and image format.
      table: the meaning of the values in its mask.
      read_ids: reads the mask's values.

    Raises:
      UserError: when a file cannot be read or decoded, the sizes differ, or the mask holds a value that is not a class.
    """
    image_bytes = read_bytes(sample.image)
    image = decode_pixels(image_bytes, str(sample.image), info)
    ids = as_shown(read_ids(sample), image, image_bytes, str(sample.image), info)
    height, width = ids.shape
    if image.shape[:2] != ids.shape:
        raise UserError(
            f"{sample.mask}: is {height}x{width} (height x width), but its image {sample.image.name} is "
            f"{image.shape[0]}x{image.shape[1]}; make them the same size (masks by nearest neighbour)"
        )
    if ids.min() < 0 or ids.max() > 255:
        raise UserError(f"{sample.mask}: holds the value {ids.max()}, but class ids end at 255; {HOW_TO_SAVE}")
    _check_ids(ids, table, info.ignore_label, sample.mask)
    return Record(sample.name, image_bytes, encode_mask(table.astype(np.uint8)[ids]), (height, width))


def as_shown(
    ids: Integer[np.ndarray, "h w"], image: Num[np.ndarray, "h2 w2 bands"], data: bytes, path: str, info: DatasetInfo
) -> Integer[np.ndarray, "h3 w3"]:
    """A mask's values, turned as its image was, if it was drawn on the pixels as they are stored.

    Args:
      image: the decoded image.
      data: the image file.
    """
    if not info.is_rgb or ids.shape == image.shape[:2]:
        return ids
    return mask_as_shown(ids, (image.shape[0], image.shape[1]), image_orientation(data, path))


def read_bytes(path: pathlib.Path) -> bytes:
    """A file's content; raises UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions") from None


def _check_ids(ids: UInt8[np.ndarray, "h w"], table: IdTable, ignore_label: int, path: pathlib.Path) -> None:
    counts = np.bincount(ids.ravel(), minlength=256)
    counts[table != UNKNOWN_ID] = 0
    if counts.any():
        value = int(counts.argmax())
        row, column = np.argwhere(ids == value)[0].tolist()
        valid = ranges((table != UNKNOWN_ID) & (table != ignore_label))
        raise UserError(
            f"{path}: holds the value {value} ({counts[value]} pixels, the first at row {row}, column {column}); valid "
            f"are {valid} and {ranges(table == ignore_label)} (ignored); correct the mask or the classes"
        )


def ranges(members: Bool[np.ndarray, "256"]) -> str:
    """The indices that are set, as '0 to 2, 5'."""
    indices = np.flatnonzero(members)
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
