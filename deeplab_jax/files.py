"""Atomic writing of files and folders: a crash or a full disk leaves the old ones intact."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from deeplab_jax.types import UserError


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path for a file or folder, which is moved to `path` at the end of the block.

    Until then, or if the block fails, `path` is left as it was. If several processes write the same path at once, the
    last file wins, or the first folder.

    Raises:
      OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}-", suffix=".unfinished") as folder:
        unfinished = pathlib.Path(folder) / path.name
        yield unfinished
        try:
            unfinished.replace(path)
        except OSError:
            if not (unfinished.is_dir() and path.is_dir()):
                raise


@contextlib.contextmanager
def write_errors(path: pathlib.Path, option: str = "--workdir") -> Iterator[None]:
    """Raises UserError if the block cannot write `path`; `option` is the flag that sets its folder."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another {option}"
        ) from None


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file of a workdir atomically; creates its folder if necessary.

    Raises:
      UserError: if the folder is not writable or the disk is full.
    """
    with write_errors(path), whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
