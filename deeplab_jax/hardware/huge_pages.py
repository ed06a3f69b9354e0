"""Huge pages for the memory of this process: on a CPU much of a train step is otherwise spent on page faults.

XLA on CPU takes the memory of each step's activations anew and gives it back, gigabytes at a time, and Linux hands it
out in pages of 4 KB, each with a fault. With glibc's allocator asking for pages of 2 MB the train step of a v3+
MobileNetV2 takes five sixths of the time (docs/performance.md).
"""

from __future__ import annotations

import os
import sys

TUNABLES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # glibc 2.35 and later; others ignore it
SWITCH = "DEEPLAB_JAX_HUGE_PAGES"  # 0: leave the allocator as it is


def restart_with_huge_pages() -> None:
    """Puts the same command in place of this process, with the allocator set; returns where there is nothing to set.

    glibc reads its settings before a program's first line, so the program has to begin again: call it first of all.
    Settings of the user's own are left alone.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or not TUNABLES.keys().isdisjoint(os.environ):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | TUNABLES)
