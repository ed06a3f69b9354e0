"""A lock on a workdir: two runs in one would delete each other's checkpoints."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import jax

from deeplab_jax.files import write_errors
from deeplab_jax.types import UserError

fcntl: Any = None
with contextlib.suppress(ImportError):  # on Windows
    import fcntl

LOCK_FILE = "run.lock"  # inside a workdir; says who holds it, and is empty if nobody does


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir's lock, as process 0 of the run; creates the folder if necessary.

    The lock belongs to the open file, so that it ends with the process, however that ends: there are no stale ones.

    Raises:
      UserError: if another run holds it, naming that, or the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    path = workdir / LOCK_FILE
    with contextlib.ExitStack() as stack:
        with write_errors(path):
            workdir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{workdir}: another run is at work in it ({file.read().strip() or 'just started'}); wait for its end "
                "or choose another --workdir"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            print(f"warning: {path}: no locks on this file system, so a second run is not noticed", file=sys.stderr)
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
            file.flush()
        yield
        with contextlib.suppress(OSError):
            file.truncate(0)


def _lock(file: TextIO) -> None:
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
