"""Writes the rows of a table, each an image file and a mask file, as a folder of files that `folder` opens."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tqdm import tqdm

from deeplab_jax.data.sources.file_formats import find_format
from deeplab_jax.data.sources.prepare import prepared_folder, write_errors_for_users
from deeplab_jax.files import whole
from deeplab_jax.types import UserError


class PixelRow(NamedTuple):
    """One image and its mask, as the files that the table holds."""

    split: str  # '' if the table has none
    name: str
    image: bytes
    mask: bytes


def unpack_rows(
    rows: Iterable[PixelRow], *, source: str, version: object, prepared_dir: str, settings: Mapping[str, Any] | None
) -> pathlib.Path:
    """The folder of the rows' files, written if there is none.

    Args:
      rows: only read if they have to be written.
      source: what they are from, for the folder's name and messages.
      version: anything whose `repr` changes when the rows do.
      prepared_dir: see `prepared_folder`.
      settings: content of the folder's classes.json; None: it has none.

    Raises:
      UserError: if a row holds no image, or the folder cannot be written.
    """
    digest = hashlib.sha256(repr((version, settings)).encode()).hexdigest()[:16]
    prepared = prepared_folder(prepared_dir)
    target = prepared / f"unpacked-{pathlib.PurePath(source).name}-{digest}"
    if target.is_dir():
        return target
    with write_errors_for_users(prepared), whole(target) as unfinished:
        unfinished.mkdir()
        taken: set[tuple[str, str]] = set()
        for index, row in enumerate(tqdm(rows, desc=f"unpacking {source}", unit="image", disable=None)):
            name = row.name if row.name and (row.split, row.name) not in taken else f"{index:06d}"
            taken.add((row.split, name))
            for kind, data in (("images", row.image), ("masks", row.mask)):
                _write(unfinished / kind / row.split, name, data, f"{source}: the {kind[:-1]} of row {index}")
        if settings is not None:
            (unfinished / "classes.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return target


def _write(folder: pathlib.Path, name: str, data: bytes, where: str) -> None:
    file_format = find_format(data)
    if file_format is None:
        raise UserError(f"{where} is of no format that is read; store PNG or JPEG files")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{file_format.suffixes[0]}").write_bytes(data)
