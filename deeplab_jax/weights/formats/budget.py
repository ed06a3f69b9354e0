"""What reading one weights file may cost: bytes and seconds, counted where arrays and parts of them are made.

A small file can describe much: deflated zeros, many views of the same bytes, lists that name one another. Honest files
stay far below the budget, which grows with their size.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import pathlib
import time
from collections.abc import Iterator

from deeplab_jax.types import UserError

VARIABLE = "DEEPLAB_JAX_WEIGHTS_BUDGET"  # environment variable: a factor on both limits
_FREE_BYTES, _BYTES_PER_BYTE = 512 << 20, 8  # bytes of memory: of any file, and for each of its bytes
_SECONDS, _BYTES_PER_SECOND = 60.0, 10 << 20  # of this thread's CPU: of any file, and one for so many of its bytes
_REMEDY = f"if you trust it, set the environment variable {VARIABLE}=10 for ten times as much"


class _Budget:
    """What is left for the file that is being read, and those that it names."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.factor = _factor()
        self.num_bytes = self.factor * _FREE_BYTES
        self.deadline = time.thread_time() + self.factor * _SECONDS

    def grow(self, num_bytes: int) -> None:
        self.num_bytes += self.factor * _BYTES_PER_BYTE * num_bytes
        self.deadline += self.factor * num_bytes / _BYTES_PER_SECOND


_current: _Budget | None = None


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Opens the budget of a file; within another's, adds the file's size to that one.

    Raises:
      UserError: from `spend`, when the block exceeds it; if memory is exhausted; if the factor is no positive number.
    """
    global _current
    outer, _current = _current, _current or _Budget(path)
    try:
        _current.grow(_size(path))
        yield
    except MemoryError:
        raise UserError(f"{path}: needs more memory than there is; free some, or save fewer arrays") from None
    finally:
        _current = outer


def spend(num_bytes: int = 0) -> None:
    """Counts bytes that are about to be made, and looks at the clock; nothing is limited without an open budget.

    Raises:
      UserError: if the budget is exceeded.
    """
    if _current is None:
        return
    _current.num_bytes -= num_bytes
    if _current.num_bytes < 0:
        raise UserError(f"{_current.path}: needs far more memory than its size suggests; {_REMEDY}")
    if time.thread_time() > _current.deadline:
        raise UserError(f"{_current.path}: takes far longer to read than its size suggests; {_REMEDY}")


def seconds_left() -> float | None:
    """Until the end of the budget; None without an open one."""
    return None if _current is None else max(0.0, _current.deadline - time.thread_time())


def _size(path: pathlib.Path) -> int:
    """Of the file; of all files of a TensorFlow checkpoint, which share the start of their names."""
    is_part = path.suffix in (".index", ".meta") or path.suffix.startswith(".data-")
    pattern = glob.escape(path.stem if is_part else path.name) + "*"
    folder = path if path.is_dir() else path.parent
    return sum(each.stat().st_size for each in folder.glob("*" if path.is_dir() else pattern) if each.is_file())


def _factor() -> float:
    text = os.environ.get(VARIABLE, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise UserError(f"{VARIABLE}={text}: must be a positive number, e.g. 10")
    return factor
