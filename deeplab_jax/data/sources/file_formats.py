"""The formats of image and mask files: what they are called, and how their first bytes tell them.

Only these are ever opened, whatever a file is called: Pillow alone would try every format it knows on any file. Some of
those start other programs (PostScript), and many are hardly ever tested.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

Path = TypeVar("Path", bound=pathlib.PurePath)


class FileFormat(NamedTuple):
    """One format of files."""

    name: str  # as Pillow names it, where Pillow reads it
    suffixes: tuple[str, ...]  # the usual one first
    starts: tuple[bytes, ...] = ()  # possible first bytes


PNG = FileFormat("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",))
JPEG = FileFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8\xff",))
TIFF = FileFormat("TIFF", (".tif", ".tiff"), (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"))
BMP = FileFormat("BMP", (".bmp", ".dib"), (b"BM",))
GIF = FileFormat("GIF", (".gif",), (b"GIF87a", b"GIF89a"))
WEBP = FileFormat("WEBP", (".webp",))
PNM = FileFormat("PPM", (".pgm", ".ppm", ".pbm", ".pnm"), tuple(f"P{n}".encode() for n in range(1, 7)))
JPEG2000 = FileFormat(
    "JPEG2000", (".jp2", ".j2k", ".jpx", ".j2c"), (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
)
AVIF = FileFormat("AVIF", (".avif",))
HEIF = FileFormat("HEIF", (".heic", ".heif"))  # if pillow-heif is installed
NPY = FileFormat("NPY", (".npy",), (b"\x93NUMPY",))

PICTURES = (PNG, JPEG, TIFF, BMP, GIF, WEBP, PNM, JPEG2000, AVIF, HEIF)
IMAGE_SUFFIXES = (*sorted(suffix for each in PICTURES for suffix in each.suffixes), *NPY.suffixes)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those that are images or masks by their suffix; of an array and a picture of one name, the picture."""
    found = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    pictures = {path.with_suffix("") for path in found if path.suffix.lower() not in NPY.suffixes}
    return [path for path in found if path.suffix.lower() not in NPY.suffixes or path.with_suffix("") not in pictures]


def find_format(data: bytes) -> FileFormat | None:
    """The format of a file's content; None: none of these."""
    for each in (*PICTURES, NPY):
        if data.startswith(each.starts):
            return each
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[start : start + 4] for start in (8, *range(16, length, 4))}
        return AVIF if brands & _AVIF_BRANDS else HEIF if brands & _HEIF_BRANDS else None
    return None
