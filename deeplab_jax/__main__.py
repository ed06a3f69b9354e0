"""The command line as a module and as `deeplab-jax`, the same as main.py in a clone."""

from __future__ import annotations

import os
import sys

from deeplab_jax.hardware.allocator import restart_with_allocator


def start() -> None:
    """Runs the command line and ends the process with its exit status."""
    restart_with_allocator()
    from deeplab_jax.apps.command import main

    status = main(sys.argv)
    sys.stdout.flush()
    if status:
        os._exit(status)  # a failed save leaves threads behind that would keep the process alive for five minutes


if __name__ == "__main__":
    start()
