"""Files and folders written whole or not at all, so that a crash or a full disk keeps the old ones."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from deeplab_jax.types import UserError


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields where to write a file, or a folder, that is moved to `path` at the end of the block.

    What is at `path` stays until then, and where the block fails. Several processes may write the same at once: of
    files the last one stays, of folders the first.

    Raises:
      OSError: where it cannot be written.
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
    """Raises UserError where the block cannot write `path`; `option` names the folder that the user may change."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another {option}"
        ) from None


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file of a workdir, whole or not at all; makes its folder where it is missing.

    Raises:
      UserError: where the folder cannot be written, or the disk is full.
    """
    with write_errors(path), whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
