"""Samples that lie on disk as an image file and a mask file: found, checked and read."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from deeplab_jax.data.images import decode_image, decode_mask, encode_mask
from deeplab_jax.data.prepare import Record
from deeplab_jax.types import DatasetInfo, UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".gif")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """Where one image and its mask lie."""

    name: str
    image: pathlib.Path
    mask: pathlib.Path


def require_folder(path: pathlib.Path, field: str) -> pathlib.Path:
    """Returns `path`; raises UserError, naming the config field, where it is no folder."""
    if not path.is_dir():
        problem = "is no folder" if path.exists() else "does not exist"
        raise UserError(f"config.{field}={str(path)!r}: {problem}; give the folder with the data set's original files")
    return path


def image_name(entry: str) -> str:
    """A file's name without its folder and its image suffix; other dots belong to the name."""
    name = pathlib.PurePosixPath(entry).name
    suffix = pathlib.PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def read_list(path: pathlib.Path) -> list[str]:
    """The non-empty lines of a text file.

    Raises:
      UserError: when it is no UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; write one image name per line") from None
    return [line.strip() for line in lines if line.strip()]


def find_images(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name without suffix -> path of the image files in `folder`, sorted by name.

    Raises:
      UserError: when two files differ in their suffix only.
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
    """The samples called `names`, of the files in two folders; the files need not exist yet."""
    image_files, mask_files = find_images(images), find_images(masks)
    return [
        Sample(name, image_files.get(name, images / f"{name}.jpg"), mask_files.get(name, masks / f"{name}.png"))
        for name in names
    ]


def fingerprint(samples: Sequence[Sample], info: DatasetInfo, split: str) -> str:
    """A short hash of all that the prepared copy depends on: names, sizes and times of the files, and the classes.

    Raises:
      UserError: when a file does not exist.
    """
    digest = hashlib.sha256(repr((info.num_classes, info.ignore_label, info.class_names)).encode())
    for sample in samples:
        for path in (sample.image, sample.mask):
            try:
                status = path.stat()
            except OSError:
                raise UserError(
                    f"{path}: does not exist, though split '{split}' of {info.name} lists '{sample.name}'; "
                    "add the file or take the name off the list"
                ) from None
            digest.update(repr((sample.name, path.name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def read_sample(sample: Sample, info: DatasetInfo, void_ids: Sequence[int] = ()) -> Record:
    """Reads and checks one sample.

    Args:
      sample: where it lies.
      info: the data set's classes.
      void_ids: mask values that this data set's files use for "nobody knows".

    Raises:
      UserError: when a file cannot be read or decoded, the sizes differ, or the
        mask holds a value that is no class.
    """
    image_bytes = _read_bytes(sample.image)
    ids = decode_mask(_read_bytes(sample.mask), str(sample.mask))
    height, width = ids.shape
    image = decode_image(image_bytes, str(sample.image), mask_size=(height, width))
    if image.shape[:2] != ids.shape:
        raise UserError(
            f"{sample.mask}: is {height}x{width} (height x width), but its image {sample.image.name} is "
            f"{image.shape[0]}x{image.shape[1]}; make them the same size (masks by nearest neighbour)"
        )
    for void_id in void_ids:
        ids = np.where(ids == void_id, np.uint8(info.ignore_label), ids)
    _check_ids(ids, info, sample.mask)
    return Record(sample.name, image_bytes, encode_mask(ids), (height, width))


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions") from None


def _check_ids(ids: UInt8[np.ndarray, "h w"], info: DatasetInfo, path: pathlib.Path) -> None:
    counts = np.bincount(ids.ravel(), minlength=256)
    counts[: info.num_classes] = 0
    counts[info.ignore_label] = 0
    if counts.any():
        value = int(counts.argmax())
        row, column = np.argwhere(ids == value)[0].tolist()
        raise UserError(
            f"{path}: holds the value {value} ({counts[value]} pixels, the first at row {row}, column {column}); valid "
            f"are 0 to {info.num_classes - 1} and {info.ignore_label} (ignored); correct the mask or the classes"
        )
