"""Opens image files with Pillow: only formats that are named, and never more pixels than allowed."""

from __future__ import annotations

import importlib.util
import io

from PIL import Image

from deeplab_jax.data.sources.decoder_warnings import say_once
from deeplab_jax.data.sources.file_formats import HEIF, JPEG, NPY, PNG, TIFF, FileFormat, find_format
from deeplab_jax.data.sources.image_sizes import SizeLimit, TooLargeError, announced_size, check_size
from deeplab_jax.data.sources.tiff_files import num_pages
from deeplab_jax.types import UserError

say_once()

_TILE_TAGS = (323, 322)  # length and width
_END_OF_PNG = b"IEND\xaeB`\x82"
_START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"  # neither occurs within a scan


def open_picture(data: bytes, name: str, limit: SizeLimit | None = None) -> Image.Image:
    """Reads the header only.

    Args:
      limit: the largest image allowed; None: `SizeLimit()`.

    Raises:
      TooLargeError: when the image is above the limit.
      UserError: when it is not an image's header.
    """
    limit = limit or SizeLimit()
    file_format = require_format(data, name)
    if file_format is NPY:
        raise UserError(f"{name}: is a NumPy file, not a picture; save it as PNG")
    if file_format is HEIF:
        _require_heif(name)
    size = announced_size(data, file_format, name)
    if size is not None:
        check_size(size, name, limit)
    try:
        picture = Image.open(io.BytesIO(data), formats=(file_format.name,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(name, size or (0, 0), limit) from None
    except Exception as error:  # Pillow's readers may raise anything on damaged headers
        raise UserError(f"{name}: is no readable image ({reason(error)}); copy it anew or save it as PNG") from None
    opened = (picture.height, picture.width)
    check_size(opened, name, limit)
    if file_format is TIFF:  # a tile may be larger than the image, and is decoded whole
        tags = getattr(picture, "tag_v2", {})
        length, width = (tags.get(tag, 1) for tag in _TILE_TAGS)
        check_size((length, width), name, SizeLimit(max(limit.num_pixels, 1 << 20)))
    if size not in (None, opened):
        raise UserError(f"{name}: is damaged (its header tells two sizes, {size} and {opened}); save it anew")
    return picture


def load(picture: Image.Image, name: str) -> None:
    """Decodes the pixels; raises UserError if they are not all there."""
    try:
        picture.load()
    except Exception as error:  # as in open_picture
        raise UserError(f"{name}: is truncated or damaged ({reason(error)}); copy the file anew") from None


def require_format(data: bytes, name: str) -> FileFormat:
    """The format of a file's content; raises UserError if it is none that is read."""
    if not data:
        raise UserError(f"{name}: is empty; copy the file again")
    file_format = find_format(data)
    if file_format is None:
        raise UserError(f"{name}: is no readable image (unknown format); copy it anew or save it as PNG")
    return file_format


def require_one_frame(picture: Image.Image, data: bytes, name: str, what: str) -> None:
    """Raises UserError if a file holds several pictures, since nothing says which is meant.

    The smaller copies of one picture in a TIFF do not count, nor what cameras put behind a JPEG (MPO).
    """
    try:
        count = num_pages(data) if find_format(data) is TIFF else getattr(picture, "n_frames", 1)
    except Exception as error:  # as in open_picture: what follows the first frame is read here
        raise UserError(f"{name}: is truncated or damaged ({reason(error)}); copy the file anew") from None
    if count > 1 and find_format(data) is not JPEG:
        raise UserError(f"{name}: has {count} frames, of which one is the {what}; save that alone as PNG")


def ends_whole(data: bytes, file_format: FileFormat) -> bool:
    """False for a truncated JPEG or PNG, which OpenCV fills up with grey and Pillow refuses.

    What follows the end (some phones and editors write a trailer) is no part of the picture.
    """
    if file_format is JPEG:
        return data.endswith(END_OF_JPEG) or data.rfind(END_OF_JPEG) > data.rfind(_START_OF_SCAN) >= 0
    return file_format is not PNG or data.rfind(_END_OF_PNG) >= 0


def reason(error: Exception) -> str:
    """What a library says about a file, in one line."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "damaged header"
    return " ".join(str(error).split()) or type(error).__name__


def _require_heif(name: str) -> None:
    if importlib.util.find_spec("pillow_heif") is None:
        raise UserError(f"{name}: is a HEIC file, which needs a package: pip install pillow-heif (or save it as JPEG)")
    import pillow_heif

    pillow_heif.register_heif_opener()
