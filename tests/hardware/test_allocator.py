"""Starting again with another allocator: once, with the same command, and not against the user's will."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deeplab_jax.hardware.allocator import SWITCH, TUNABLES

CODE = """
import os, sys
from deeplab_jax.hardware.allocator import restart_with_allocator
print("started", flush=True)
restart_with_allocator()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.dont_write_bytecode)
"""


def _run(**variables):
    environment = {name: value for name, value in os.environ.items() if name not in TUNABLES} | variables
    command = [sys.executable, "-B", "-c", CODE, "--name=a b"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_same_command_starts_once_more():
    if sys.platform != "linux":
        pytest.skip("the allocator is set on Linux alone")
    assert _run() == ["started", "started", f"{TUNABLES['GLIBC_TUNABLES']} ['--name=a b'] 1"]


@pytest.mark.parametrize("variables", [{SWITCH: "0"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}])
def test_it_can_be_switched_off(variables):
    assert _run(**variables) == ["started", f"{variables.get('GLIBC_TUNABLES')} ['--name=a b'] 1"]
