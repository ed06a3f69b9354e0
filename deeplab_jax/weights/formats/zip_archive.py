"""Members of a zip archive, read whole: the container of .npz and of PyTorch files."""

from __future__ import annotations

import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from deeplab_jax.weights.formats.budget import spend

# Deflate's maximum ratio: an archive that claims more is meant to exhaust memory.
_MAX_COMPRESSION = 1032
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OverflowError)


@contextmanager
def open_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive, after checking that the sizes it states are possible.

    Raises:
      ValueError: if it is not a zip archive, or claims impossible sizes.
    """
    num_bytes = pathlib.Path(path).stat().st_size
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (*_FAULTS, OSError) as error:
            raise ValueError(str(error)) from None
        with archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_COMPRESSION * num_bytes:
                raise ValueError("members that claim to be larger than they can be")
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise ValueError("two members of one name")
            yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """All bytes of a member, after verifying its checksum.

    Raises:
      ValueError: if there is no such member, or it is damaged.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"no member '{name}'") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"member '{name}' is compressed by other than deflate")
    if member.compress_size > archive.start_dir:  # memory is allocated before it is read
        raise ValueError(f"member '{name}' claims to be larger than the file")
    spend(member.file_size)
    try:
        return archive.read(member)
    except (*_FAULTS, OSError) as error:
        raise ValueError(str(error) or f"member '{name}' is damaged") from None
