"""The command line as a subprocess: each mistake is one line on stderr and status 2."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

CONFIG = """
from deeplab_jax.config import Config

def get_config():
    config = Config()
    config.data.crop_size = config.inference.pad_to = (65, 65)
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG)
    return path


def run_main(*arguments):
    return subprocess.run(
        [sys.executable, "main.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.output_strid=8", "config.model has no field 'output_strid'; did you mean 'output_stride'?"),
        ("--config.modle.output_stride=8", "config has no field 'modle'; did you mean 'model'"),
        ("--config.model.output_stride=eight", "--config.model.output_stride=eight: invalid literal"),
        ("--config.model.output_stride=12", "config.model.output_stride=12: must be 8, 16 or 32"),
        ("--config.model.backbone.args.widht=1", "takes no argument"),
        ("--config.model.backbone.name=resnt.resnet50", "config.model.backbone: no module 'resnt'"),
        ("--wrkdir=x", "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
        ("--mode=trian", "--mode=trian: no such mode; did you mean 'train'?"),
        ("evaluate", "unexpected argument 'evaluate'"),
        ("--compare=a", "--compare: goes with --mode=report, not with --mode=train"),
        ("--images=a.png", "--images: goes with --mode=export or predict, not with --mode=train"),
        ("--num_processes=many", "--num_processes=many: invalid literal"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(config, tmp_path, argument, message):
    done = run_main(f"--config={config}", f"--workdir={tmp_path / 'run'}", argument)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_missing_config_file_is_one_line_with_the_near_names(config):
    done = run_main(f"--config={config.with_name('experimnt.py')}", "--workdir=never_made")
    assert done.returncode == 2
    assert "experimnt.py: no such file; did you mean" in done.stderr
    assert done.stderr.rstrip().endswith("experiment.py'?")


@pytest.mark.parametrize("missing", ["config", "workdir"])
def test_both_flags_are_needed(config, missing):
    flags = {"config": f"--config={config}", "workdir": "--workdir=never_made"}
    done = run_main(*(flag for name, flag in flags.items() if name != missing))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: give --config and --workdir")


def test_a_file_that_returns_something_else_is_refused(tmp_path):
    path = tmp_path / "old.py"
    path.write_text("import ml_collections\n\ndef get_config():\n    return ml_collections.ConfigDict()\n")
    done = run_main(f"--config={path}", "--workdir=never_made")
    assert done.returncode == 2
    assert "must return a deeplab_jax.config.Config" in done.stderr


def test_a_workdir_that_cannot_be_made_is_one_line(config, tmp_path):
    """It lies below a file: not even root can write there."""
    done = run_main(f"--config={config}", f"--workdir={config / 'run'}", "--config.mesh.data=1")
    assert done.returncode == 2
    path = config / "run" / "run.lock"
    assert done.stderr == f"error: cannot write {path}: Not a directory; make room or choose another --workdir\n"


def test_help_lists_the_flags():
    done = run_main("--help")
    assert all(f"--{flag}" in done.stdout for flag in ("config", "workdir", "mode", "checkpoint", "images", "output"))


def test_a_doubtful_setting_is_told_before_the_work_begins(config, tmp_path):
    pad_to = "--config.inference.pad_to=(40, 48)"
    done = run_main(f"--config={config}", f"--workdir={tmp_path}", "--mode=predict", "--images=none.png", pad_to)
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: config.inference.pad_to=(40, 48): aligned corners")
    assert error.startswith("error: ")
