"""Samples stored as an image file and a mask file: finds, checks and reads them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.data.sources.file_formats import IMAGE_SUFFIXES
from deeplab_jax.data.sources.images import image_orientation
from deeplab_jax.data.sources.legend import Codes, Legend, require_known
from deeplab_jax.data.sources.mask_codes import mask_codes, read_mask_file
from deeplab_jax.data.sources.mask_orientation import mask_as_shown
from deeplab_jax.data.sources.orientation_survey import Pair
from deeplab_jax.data.sources.prepare import Record, make_record
from deeplab_jax.data.sources.reading import FileReading
from deeplab_jax.types import DatasetInfo, UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The files of one image and its mask."""

    name: str
    image: pathlib.Path
    mask: pathlib.Path  # or the annotation file that the mask is drawn from
    parts: tuple[pathlib.Path | None, ...] = ()  # a file for each class, where they may overlap; None: it is nowhere

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All files that it is made of."""
        return (self.image, *((path for path in self.parts if path) if self.parts else (self.mask,)))


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


ReadCodes = Callable[[Sample], Codes]


def read_mask(sample: Sample, legend: Legend) -> Codes:
    """The codes in a sample's mask file.

    Raises:
      UserError: when it cannot be read or decoded.
    """
    name = str(sample.mask)
    return mask_codes(read_mask_file(read_bytes(sample.mask), name, page=legend.page), legend, name)


def read_sample(
    sample: Sample, info: DatasetInfo, legend: Legend, read_codes: ReadCodes | None, reading: FileReading
) -> Record:
    """Reads and checks one sample.

    Args:
      info: the data set's classes and image format.
      legend: the meaning of the codes in its mask.
      read_codes: reads them; None: from the mask file.
      reading: decides where files can be read in more than one way.

    Raises:
      UserError: when a file cannot be read or decoded, the sizes differ, or the mask holds what is not in the legend.
    """
    image_bytes = reading.whole(read_bytes(sample.image), str(sample.image))
    image = decode_pixels(image_bytes, str(sample.image), info)
    codes = read_codes(sample) if read_codes else read_mask(sample, legend)
    if not codes.size:  # nothing is anywhere
        codes = np.zeros((*image.shape[:2], *codes.shape[2:]), codes.dtype)
    if info.is_rgb:
        orientation = image_orientation(image_bytes, str(sample.image))
        size = (image.shape[0], image.shape[1])
        codes = mask_as_shown(codes, size, orientation, lambda: reading.mask_orientation(str(sample.mask)))
    height, width = codes.shape[:2]
    if image.shape[:2] != (height, width):
        raise UserError(
            f"{sample.mask}: is {height}x{width} (height x width), but its image {sample.image.name} is "
            f"{image.shape[0]}x{image.shape[1]}; make them the same size (masks by nearest neighbour)"
        )
    labels = legend.labels(codes)
    require_known(codes, labels, legend, str(sample.mask))
    return make_record(sample.name, image_bytes, labels.astype(info.label_dtype), info)


def pair_of(sample: Sample, read_codes: Callable[[Sample], Codes]) -> Pair:
    """The sample's files, for `survey_orientation`."""
    return Pair(lambda count: read_bytes(sample.image, count), lambda: read_codes(sample))


def require_file(path: pathlib.Path) -> pathlib.Path:
    """Returns `path`; raises UserError if reading it would never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is no file but a device or a pipe; take it away")
    return path


def read_bytes(path: pathlib.Path, count: int = -1) -> bytes:
    """A file's content, or its first `count` bytes; raises UserError if it cannot be read."""
    try:
        with require_file(path).open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions") from None
