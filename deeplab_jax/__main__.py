"""The command as a module and as `deeplab-jax`: the same as main.py of a clone."""

from __future__ import annotations

import os
import sys

from deeplab_jax.hardware.allocator import restart_with_allocator


def start() -> None:
    """Runs the command line of this process and ends it with the exit status."""
    restart_with_allocator()
    from deeplab_jax.apps.command import main

    status = main(sys.argv)
    sys.stdout.flush()
    if status:
        os._exit(status)  # a save that failed leaves threads behind that would hold the process for five minutes


if __name__ == "__main__":
    start()
