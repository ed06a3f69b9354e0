"""How this process keeps its memory: on a CPU much of a train step is otherwise spent on page faults.

XLA on CPU takes the memory of each step's activations anew and gives it back, gigabytes at a time; Linux hands it out
again zeroed, in pages of 4 KB, each with a fault. With glibc's allocator keeping what it has had, in pages of 2 MB, no
step after the first has a fault (docs/performance.md has what that is worth).
"""

from __future__ import annotations

import os
import sys

_SETTINGS = {
    "hugetlb": 1,  # glibc 2.35 and later; others ignore it
    "mmap_max": 0,  # no mapping of their own for large pieces, which would be unmapped when freed
    "trim_threshold": 1 << 40,  # nothing is given back
    "arena_max": 1,  # one heap for all threads: XLA's are not always the main one, and other heaps hold 64 MB at most
}
TUNABLES = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _SETTINGS.items())}
SWITCH = "DEEPLAB_JAX_ALLOCATOR"  # 0: leave the allocator as it is


def restart_with_allocator() -> None:
    """Puts the same command in place of this process, with the allocator set; returns where there is nothing to set.

    glibc reads its settings before a program's first line, so the program has to begin again: call it first of all.
    Settings of the user's own are left alone.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or not TUNABLES.keys().isdisjoint(os.environ):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | TUNABLES)
