"""One run in a workdir at a time."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys

import pytest

from deeplab_jax.apps.assembly import run_lock
from deeplab_jax.apps.assembly.run_lock import LOCK_FILE, locked
from deeplab_jax.types import UserError

HOLD = """
import os, pathlib, sys
from deeplab_jax.apps.assembly.run_lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    workdir = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(workdir)]
    holder = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        place, holds = re.escape(str(workdir)), rf"\(process {holder.pid} on \S+ since 20.*\)"
        with pytest.raises(UserError, match=f"^{place}: another run is at work in it {holds}; wait"), locked(workdir):
            pytest.fail("two runs")
        holder.kill()
    with locked(workdir):
        assert f"process {os.getpid()} on " in (workdir / LOCK_FILE).read_text()
    assert (workdir / LOCK_FILE).read_text() == ""


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def refuse(file):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock, "_lock", refuse)
    with locked(tmp_path):
        pass
    warning = f"warning: {tmp_path / LOCK_FILE}: no locks on this file system, so a second run is not noticed\n"
    assert capsys.readouterr().err == warning
