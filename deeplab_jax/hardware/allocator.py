"""Configures this process's allocator: otherwise page faults take much of a train step on a CPU.

XLA on CPU allocates and frees each step's activations, gigabytes at a time, and Linux zeroes them again in pages of 4
KB, each with a fault. Therefore glibc's allocator is set to use pages of 2 MB, and to keep the memory of arrays instead
of returning it to the system (measured in docs/performance.md). A thread's heap holds 64 MB, and XLA allocates in its
own threads: larger arrays are still returned.

Keeping everything (mmap_max=0, arena_max=1) avoids the last faults too, but small arrays then fragment the memory of
large ones, so that it grows with each step; and compilation takes 1.5 times as long.
"""

from __future__ import annotations

import os
import sys

_SETTINGS = {
    "hugetlb": 1,  # glibc 2.35 and later; others ignore it
    "mmap_threshold": 256 << 20,  # from this size on, an array is mapped separately, and unmapped when it is freed
    "trim_threshold": 1 << 30,  # free memory kept at the end of the heap
}
TUNABLES = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _SETTINGS.items())}
SWITCH = "DEEPLAB_JAX_ALLOCATOR"  # 0: leave the allocator as it is


def restart_with_allocator() -> None:
    """Re-executes the same command with the allocator configured; returns if there is nothing to configure.

    glibc reads its settings before a program's first line, so the program has to start again: call this first. Settings
    made by the user are respected.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or not TUNABLES.keys().isdisjoint(os.environ):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | TUNABLES)
