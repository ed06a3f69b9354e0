"""How this process keeps its memory: on a CPU much of a train step is otherwise spent on page faults.

XLA on CPU takes the memory of each step's activations anew and gives it back, gigabytes at a time, and Linux hands it
out again zeroed, in pages of 4 KB, each with a fault. So glibc's allocator is asked for pages of 2 MB, and to keep
the memory of arrays instead of giving it back one by one (docs/performance.md has what that is worth). A thread's heap
holds 64 MB, and XLA allocates in threads of its own: larger arrays are still given back.

Keeping everything (mmap_max=0, arena_max=1) spares the last faults too, but small arrays then settle in the memory of
large ones, which grows with each step; and compilation takes half as long again.
"""

from __future__ import annotations

import os
import sys

_SETTINGS = {
    "hugetlb": 1,  # glibc 2.35 and later; others ignore it
    "mmap_threshold": 256 << 20,  # from there on an array is mapped alone, and unmapped when it is freed
    "trim_threshold": 1 << 30,  # free memory at the end of the heap that is kept
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
