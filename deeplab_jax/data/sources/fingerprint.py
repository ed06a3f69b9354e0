"""Whether a prepared copy still belongs to its files: a hash of their names and content, and of the classes.

Times do not count, nor where the files are: files are copied, unpacked and touched without a change, and edited under
the time they had. What the system says of them (size, times, place on the disk) is asked each time; as long as it
stays, so does the hash, which is kept beside the copies, and not a byte of them is read. Otherwise masks are read
whole, and of large images four parts: an edit between these that keeps the image's size, byte by byte, is not seen.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence

from deeplab_jax.data.sources.legend import Legend
from deeplab_jax.data.sources.prepare import prepared_folder, write_errors_for_users
from deeplab_jax.data.sources.reading import Reading
from deeplab_jax.data.sources.samples import Sample, require_file
from deeplab_jax.data.sources.walk_folder import near_files
from deeplab_jax.data.workers import each
from deeplab_jax.files import whole
from deeplab_jax.types import DatasetInfo, UserError

_FORM = 5  # of prepared copies; goes up when the same files are prepared differently
_SMALL = 1 << 16  # bytes: images up to here are read whole
_PART = 1 << 14  # of a larger one, at the start, the end, and two places between
_BLOCK = 1 << 22
_KEPT = "fingerprints"


def fingerprint_of(
    samples: Sequence[Sample],
    info: DatasetInfo,
    legend: Legend,
    split: str,
    *,
    prepared_dir: str,
    declared: Reading | None = None,
) -> str:
    """A short hash of everything that a split's prepared copy depends on.

    Args:
      declared: how files are read where more than one way is right; None: as `Reading()`.

    Raises:
      UserError: when a file does not exist or cannot be read.
    """
    files = {path: sample for sample in samples for path in sample.files}
    meaning = _meaning(info, legend, samples, declared or Reading()).encode()
    seen = hashlib.sha256(meaning)
    for path, sample in files.items():
        status = _status(sample, path, info, split)
        # The time of the last change, to the inode too, cannot be set back; it is not that of the last edit.
        told = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        seen.update(repr((path.name, *told)).encode())
    kept = prepared_folder(prepared_dir) / _KEPT / seen.hexdigest()[:32]
    if kept.is_file():
        return kept.read_text()
    title = f"{info.name}/{split}"
    digest = hashlib.sha256(meaning)
    images = {sample.image for sample in samples}
    for found in each(lambda path: _hash(path, whole=path not in images), list(files), title=f"comparing {title}"):
        digest.update(found)
    fingerprint = digest.hexdigest()[:16]
    with write_errors_for_users(kept.parent), whole(kept) as unfinished:
        unfinished.write_text(fingerprint)
    return fingerprint


def _meaning(info: DatasetInfo, legend: Legend, samples: Sequence[Sample], declared: Reading) -> str:
    """What the files are and mean."""
    names = [(sample.name, *(path.name for path in sample.files)) for sample in samples]
    classes = (info.task, info.num_classes, info.ignore_label, info.class_names)
    pixels = () if info.is_rgb else (info.channels, info.dtype)
    return repr((_FORM, classes, legend.fingerprint, pixels, names, declared))


def _status(sample: Sample, path: pathlib.Path, info: DatasetInfo, split: str) -> os.stat_result:
    try:
        return require_file(path).stat()
    except OSError:
        raise UserError(
            f"{path}: does not exist, though split '{split}' of {info.name} lists '{sample.name}'; "
            f"add the file or take the name off the list{near_files(path)}"
        ) from None


def _hash(path: pathlib.Path, *, whole: bool) -> bytes:
    """A hash of a file's size and content; if not `whole`, of four parts where it is large."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            if whole or size <= _SMALL:
                while block := file.read(_BLOCK):
                    digest.update(block)
            else:
                for start in (0, (size - _PART) // 3, 2 * (size - _PART) // 3, size - _PART):
                    file.seek(start)
                    digest.update(file.read(_PART))
            return digest.digest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions") from None
