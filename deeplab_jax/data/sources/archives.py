"""Finds a data set's original files; unpacks their archives, and downloads them if necessary."""

from __future__ import annotations

import calendar
import dataclasses
import hashlib
import io
import os
import pathlib
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TypeVar

from tqdm import tqdm

from deeplab_jax.data.sources.prepare import prepared_folder
from deeplab_jax.data.sources.samples import require_folder
from deeplab_jax.files import whole
from deeplab_jax.types import UserError

Found = TypeVar("Found")

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 20  # seconds without an answer
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError)


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """One of the archives that a data set is published as.

    Attributes:
      url: where to download it; empty: registration is required, or the file is no longer offered.
      checksum: 'ALGORITHM:HEX' with hashlib's name of the algorithm and at least the first digits, or ''.
      wanted: regular expression, searched for in the paths of the members; matching members are unpacked, nested
        archives too.
    """

    name: str
    url: str = ""
    checksum: str = ""
    wanted: str = ""


def locate(
    root: str,
    prepared_dir: str,
    *,
    archives: Sequence[Archive],
    find: Callable[[Sequence[pathlib.Path]], Found | None],
    title: str,
    remedy: str,
) -> Found:
    """Finds a data set's original files.

    Args:
      root: the folder that holds the files or their archives, or one of the archives, with the others beside it; '':
        download.
      prepared_dir: archives are unpacked into subfolders of it; see `prepared_folder`.
      find: folders -> the files, wherever they are in these folders; None if they are missing.
      title: the data set's name, for messages.
      remedy: which files to put where, for messages.

    Raises:
      UserError: when the files are not there, an archive is damaged, or the download fails.
    """
    if not root:
        return _download_all(prepared_dir, archives, find, title, remedy)
    path = pathlib.Path(root).expanduser()
    folder = path.parent if path.is_file() else require_folder(path, "data.root")
    found = None if path.is_file() else find([folder])
    if found is not None:
        return found
    if path.is_file() and path.name not in [archive.name for archive in archives]:
        archives = [*archives, dataclasses.replace(archives[0], name=path.name)]  # it has been renamed
    present = [archive for archive in archives if (folder / archive.name).is_file()]
    unpacked = [_unpacked(folder / archive.name, archive, prepared_folder(prepared_dir), remedy) for archive in present]
    found = find([folder, *unpacked]) if present else None
    if found is None:
        raise UserError(f"config.data.root={root!r}: holds no {title} data; {remedy}")
    return found


def first_folder(folders: Sequence[pathlib.Path], inner: Sequence[str]) -> pathlib.Path | None:
    """The first existing folder called one of `inner` in the first of `folders`, then in the next."""
    return next((folder / name for folder in folders for name in inner if (folder / name).is_dir()), None)


def _download_all(
    prepared_dir: str,
    archives: Sequence[Archive],
    find: Callable[[Sequence[pathlib.Path]], Found | None],
    title: str,
    remedy: str,
) -> Found:
    if not all(archive.url for archive in archives):
        raise UserError(f"config.data.root is empty, and {title} cannot be downloaded without its owners; {remedy}")
    prepared = prepared_folder(prepared_dir)
    found = find([_downloaded(archive, prepared, remedy) for archive in archives])
    if found is None:
        raise UserError(f"{archives[0].url}: holds no {title} data any more; {remedy}")
    return found


def _downloaded(archive: Archive, prepared: pathlib.Path, remedy: str) -> pathlib.Path:
    """The folder with the archive's files; the archive itself is not kept."""
    target = prepared / f"downloaded-{archive.name.split('.')[0]}"
    if not target.is_dir():
        file = prepared / "downloads" / archive.name
        try:
            file.parent.mkdir(exist_ok=True)
            download(archive, file)
        except OSError as error:  # the network, the server, the checksum, the disk: the remedy is the same
            raise UserError(f"config.data.root is empty and the download failed ({_reason(error)}); {remedy}") from None
        unpack(file, archive.wanted, target, remedy)
        file.unlink(missing_ok=True)
    return target


def download(archive: Archive, file: pathlib.Path) -> None:
    """Downloads an archive, resuming an interrupted attempt.

    Raises:
      OSError: if the network, the server or the disk fails, or the checksum is another.
    """
    part = file.with_name(f"{file.name}.part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if response.status != 206:  # the server sends the whole file
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            bar = tqdm(
                desc=f"downloading {archive.name}", initial=have, total=total, unit="B", unit_scale=True, disable=None
            )
            with part.open("ab" if have else "wb") as content, bar:
                while chunk := response.read(_CHUNK):
                    content.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise
    else:
        if total is not None and part.stat().st_size != total:
            raise OSError(f"{part.stat().st_size} of {total} bytes arrived; the next attempt resumes from there")
    if archive.checksum:
        algorithm, _, expected = archive.checksum.partition(":")
        with part.open("rb") as content:
            actual = hashlib.file_digest(content, algorithm).hexdigest()
        if not actual.startswith(expected):
            part.unlink()
            raise OSError(f"{archive.name} has the {algorithm} {actual} instead of {expected}")
    part.rename(file)


def _unpacked(file: pathlib.Path, archive: Archive, prepared: pathlib.Path, remedy: str) -> pathlib.Path:
    status = file.stat()
    target = prepared / f"unpacked-{file.name.split('.')[0]}-{status.st_size}-{status.st_mtime_ns}"
    if not target.is_dir():
        unpack(file, archive.wanted, target, remedy)
    return target


def unpack(file: pathlib.Path, wanted: str, target: pathlib.Path, remedy: str) -> None:
    """Unpacks an archive into the folder `target`, which appears when it is complete."""
    with whole(target) as unfinished:
        unfinished.mkdir()
        try:
            _unpack_members(file, wanted, unfinished)
            for inner in sorted(unfinished.rglob("*.zip")):
                _unpack_members(inner, "", inner.parent)
                inner.unlink()
        except _DAMAGED as error:
            raise UserError(f"{file}: cannot be unpacked ({_reason(error)}); {remedy}") from None


def _unpack_members(file: pathlib.Path, wanted: str, folder: pathlib.Path) -> None:
    pattern = re.compile(wanted)
    members = _zip_members(file) if zipfile.is_zipfile(file) else _tar_members(file)
    for name, time, open_member in tqdm(members, desc=f"unpacking {file.name}", unit="file", disable=None):
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not pattern.search(f"/{path}"):
            continue
        unpacked = folder / path
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with open_member() as content, unpacked.open("wb") as copy:
            shutil.copyfileobj(content, copy, _CHUNK)
        os.utime(unpacked, (time, time))  # so that unpacking again keeps the prepared copy's fingerprint


# Path, modification time (seconds since 1970) and content of a file in an archive.
_Member = tuple[str, float, Callable[[], IO[bytes]]]


def _zip_members(file: pathlib.Path) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, calendar.timegm((*info.date_time, 0, 0, 0)), lambda info=info: archive.open(info)


def _tar_members(file: pathlib.Path) -> Iterator[_Member]:
    with tarfile.open(file) as archive:
        for info in archive:
            if info.isfile():
                yield info.name, info.mtime, lambda info=info: _content(archive, info)


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> io.BufferedReader:
    content = archive.extractfile(info)
    assert isinstance(content, io.BufferedReader), "a regular file has content"
    return content


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
