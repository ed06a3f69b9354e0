"""What a command loads before it does anything: seconds depend on the machine, modules do not."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from benchmarks.startup import medians, table

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# For what comes later, if at all: charts, TensorBoard (which brings torch), other formats of weights, the report.
LATER = {"matplotlib", "tensorboardX", "tensorflow", "torch", "onnx", "jinja2"}


def modules_after(code, *arguments):
    """(what was printed on stderr, modules imported) of Python code in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stderr, set(done.stdout.split())


def packages(modules):
    return {name.partition(".")[0] for name in modules}


def test_checking_a_config_loads_nothing_that_is_for_later():
    said, modules = modules_after(
        "from deeplab_jax.apps.command import main; main(sys.argv)",
        *(
            "--config=configs/v3plus_voc.py",
            "--workdir=never_made",
            "--mode=predict",
            "--config.inference.resize_longer=9",
        ),
    )
    assert said.startswith("error: config.inference.resize_longer=9")  # the last that is checked of a config
    assert "deeplab_jax.heads.v3plus" in modules
    assert not packages(modules) & LATER
    assert not [name for name in modules if name.startswith("deeplab_jax.apps.modes.")]


def test_training_loads_what_its_first_step_needs():
    said, modules = modules_after("import deeplab_jax.apps.command, deeplab_jax.apps.modes.train")
    assert said == ""
    assert "optax" in modules
    assert not packages(modules) & {"matplotlib", "tensorboardX", "tensorflow", "torch"}


def test_a_table_has_the_medians_of_each_kind_of_run():
    times = [{"described": 1.0, "compiled": 8.0, "first step": second} for second in (11.0, 9.0, 10.0)]
    row = {"validated": 1.25, "cold": medians(times), "warm": medians(times[:1]), "device": "cpu", "cores": 2}
    text = table({"configs/any.py": {**row, "processor": "fast", "versions": {"jax": "0"}}})
    assert "| `configs/any.py` | 1.2 | 1.0 | 8.0 | 10.0 | 1.0 | 8.0 | 11.0 |" in text
    assert text.endswith("Seconds.\n\nEnvironment: fast, 2 cores; jax 0.")
