"""Two processes of two devices each are one process of four; whatever ends one of them, the run can go on."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy_run

from deeplab_jax.train.checkpoint import FOLDER, restore_variables

SCRIPT = pathlib.Path(__file__).with_name("toy_run.py")
REPOSITORY = SCRIPT.parent.parent.parent
# The same float32 sums in another order, over twelve steps.
TOLERANCE = 1e-5


def run_two(workdir, *mischief):
    """Two processes on one workdir, the second with the mischief; [(status, stdout, stderr)]."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(REPOSITORY),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(workdir), address, "2", str(k), *(mischief if k == 1 else ())],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def confusion(workdir):
    return json.loads((workdir / "scores.json").read_text())["confusion"]


def variables(workdir):
    return jax.device_get(restore_variables(workdir, prefer="latest"))


def assert_same_run(got, want, tolerance):
    np.testing.assert_allclose(losses(got), losses(want), atol=tolerance, rtol=0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=0), variables(got), variables(want))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A whole run in two processes."""
    workdir = tmp_path_factory.mktemp("two")
    done = run_two(workdir)
    assert [status for status, _, _ in done] == [0, 0], done
    return workdir, done


def test_two_processes_equal_one(two, tmp_path):
    workdir, ((_, said, _), (_, other, _)) = two
    assert toy_run.run(tmp_path, toy_run.make_config(data=4)) == 0
    assert_same_run(workdir, tmp_path, TOLERANCE)
    got, want = (json.loads((folder / "scores.json").read_text()) for folder in (workdir, tmp_path))
    assert got["num_images"] == want["num_images"] == toy_run.SPLITS["val"]
    assert confusion(workdir) == confusion(tmp_path)
    assert got["boundary_iou"] == want["boundary_iou"]
    got, want = (json.loads((folder / "per_image.json").read_text()) for folder in (workdir, tmp_path))
    assert sorted(got, key=lambda row: row["name"]) == sorted(want, key=lambda row: row["name"])
    got, want = (json.loads((folder / "report.json").read_text()) for folder in (workdir, tmp_path))
    assert [sample["name"] for sample in got["best"]] == [sample["name"] for sample in want["best"]]
    # One of them speaks.
    assert "4 x cpu, 2 images of a batch on each; 2 processes" in said
    assert said.endswith(f"wrote {workdir / 'report.html'}\n")
    assert "step" not in other

    # What one process has written two restore: its last steps are run again.
    shutil.rmtree(tmp_path / FOLDER / str(toy_run.NUM_STEPS))
    continued = run_two(tmp_path)
    assert [status for status, _, _ in continued] == [0, 0], continued
    assert f"resuming at step {toy_run.NUM_STEPS - 4}" in continued[0][1]
    assert_same_run(tmp_path, workdir, TOLERANCE)
    assert confusion(tmp_path) == confusion(workdir)


def test_a_run_that_was_stopped_and_killed_goes_on(two, tmp_path):
    """First SIGTERM to one process, then SIGKILL: the result is that of the whole run, bit for bit."""
    stopped = run_two(tmp_path, "terminate", "1")
    assert [status for status, _, _ in stopped] == [0, 0], stopped
    (step,) = (int(path.name) for path in (tmp_path / FOLDER).iterdir() if path.name.isdecimal())
    assert 1 < step < 9
    assert f"SIGTERM: saved step {step}; the same command continues from there" in stopped[0][1]

    killed = run_two(tmp_path, "kill", "10")
    assert killed[1][0] == -9
    assert f"resuming at step {step}" in killed[0][1]
    if killed[0][0] == -signal.SIGABRT:  # JAX's runtime has noticed before a collective failed
        assert "another task died" in killed[0][2]
    else:
        assert killed[0][0] == 2, killed
        assert "error: process 0 of 2: another process of this run has ended or cannot be reached" in killed[0][2]

    alone = tmp_path.with_name("alone")
    shutil.copytree(tmp_path, alone)
    finished = run_two(tmp_path)
    assert [status for status, _, _ in finished] == [0, 0], finished
    assert_same_run(tmp_path, two[0], 0)
    # Two processes have written what one restores.
    assert toy_run.run(alone, toy_run.make_config(data=2, space=2)) == 0
    assert_same_run(alone, two[0], TOLERANCE)
    assert confusion(alone) == confusion(two[0])
