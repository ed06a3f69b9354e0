"""Files of a workdir, written whole or not at all, so that a crash or a full disk keeps the old ones."""

from __future__ import annotations

import os
import pathlib

from deeplab_jax.types import UserError


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes `text` beside `path` and then moves it there; makes the folder where it is missing.

    Several processes may write the same file at once; one of them is the last.

    Raises:
      UserError: where the folder cannot be written, or the disk is full.
    """
    unfinished = path.with_suffix(f"{path.suffix}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or choose another --workdir") from None
