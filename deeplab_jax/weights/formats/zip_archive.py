"""Members of a zip archive, read whole: the container of .npz and of PyTorch's files."""

from __future__ import annotations

import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

# Deflate cannot do better: an archive that claims more is made to fill the memory.
_MAX_COMPRESSION = 1032
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, OverflowError)


@contextmanager
def open_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """The archive, once what it says of its sizes is known to be possible.

    Raises:
      ValueError: when it is no zip archive, or one that claims to be larger than it can be.
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
            yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """All bytes of a member, held against its checksum.

    Raises:
      ValueError: when there is no such member, or it is damaged.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"no member '{name}'") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"member '{name}' is compressed by other than deflate")
    if member.compress_size > archive.start_dir:  # its room is allocated before it is read
        raise ValueError(f"member '{name}' claims to be larger than the file")
    try:
        return archive.read(member)
    except (*_FAULTS, OSError) as error:
        raise ValueError(str(error) or f"member '{name}' is damaged") from None
