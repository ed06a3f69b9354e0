"""The scripts that start runs, in dry-run mode: the exact command on each host, word for word."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

import pytest
import yaml

from deeplab_jax.apps.command import find_mode

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
# A value with a space and quotes must reach main.py as one word.
FLAGS = [
    "--config=configs/v3plus_voc_large_batch.py:64",
    "--workdir=/runs/a",
    "--config.model.backbone.args={'width': 0.5}",
]
OWN = {
    "slurm.sh": ["--nodes=2"],
    "tpu_pod.sh": ["--name=slice", "--zone=us-west4-a", "--hosts=2"],
    "gke.sh": ["--name=run", "--image=registry/image:1", "--topology=2x4"],
    "local.sh": ["--processes=2", "--gpus=4"],
}


def run(script, *arguments):
    command = ["bash", str(REPOSITORY / "launch" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def commands(script, *arguments):
    """(place, words) of each line that a dry run prints."""
    done = run(script, "--dry_run", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.split(":")[0].split(" ")[0] in PLACES]
    return [(place, shlex.split(command)) for place, _, command in (line.partition(": ") for line in lines)]


PLACES = ("here", "process", "node", "host", "pod")


@pytest.mark.parametrize("script", sorted(OWN))
def test_every_host_gets_main_with_the_flags_as_they_were_given(script):
    shown = [words for place, words in commands(script, *OWN[script], *FLAGS) if place != "here"]
    assert len(shown) == 2
    for words in shown:
        start = words.index("main.py")
        assert words[start + 1 : start + 4] == FLAGS


@pytest.mark.parametrize("script", sorted(OWN))
def test_main_knows_the_flags_that_are_added(script):
    """What a script adds to the user's own flags must be flags of main.py."""
    known = {flag.name for flag in find_mode("train").FLAGS}
    for place, words in commands(script, *OWN[script], *FLAGS):
        if place != "here":
            added = [word for word in words[words.index("main.py") + 1 :] if word not in FLAGS]
            assert {word.lstrip("-").partition("=")[0] for word in added} <= known


def test_one_local_process_is_told_nothing_of_others():
    ((place, words),) = commands("local.sh", *FLAGS)
    assert place == "process 0"
    assert words == [".venv/bin/python", "main.py", *FLAGS]


def test_local_processes_share_the_gpus():
    (first, second) = [words for _, words in commands("local.sh", "--processes=2", "--gpus=4", *FLAGS)]
    assert first[:2] == ["env", "CUDA_VISIBLE_DEVICES=0,1"]
    assert second[:2] == ["env", "CUDA_VISIBLE_DEVICES=2,3"]
    assert second[-3:] == ["--coordinator=localhost:12355", "--num_processes=2", "--process_id=1"]


def test_slurm_wraps_the_same_command_that_it_shows():
    (here, *nodes) = commands("slurm.sh", "--nodes=2", "--gpus=4", "--partition=p", *FLAGS)
    assert here[1][0] == "sbatch"
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--partition=p"} <= set(here[1])
    assert any(word.startswith("--signal=TERM@") for word in here[1])
    (wrapped,) = [word.removeprefix("--wrap=") for word in here[1] if word.startswith("--wrap=")]
    assert shlex.split(wrapped)[:2] == ["srun", "--kill-on-bad-exit=1"]
    assert shlex.split(wrapped)[2:] == nodes[0][1] == nodes[1][1]


def test_tpu_pod_sends_the_same_command_to_all_workers():
    (here, *hosts) = commands("tpu_pod.sh", *OWN["tpu_pod.sh"], "--project=mine", *FLAGS)
    assert here[1][:7] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", "--zone=us-west4-a"]
    assert {"--project=mine", "--worker=all"} <= set(here[1])
    (sent,) = [word.removeprefix("--command=") for word in here[1] if word.startswith("--command=")]
    assert [shlex.split(sent)] * 2 == [words for _, words in hosts]


def test_gke_fills_the_job_set_in():
    output = run("gke.sh", "--dry_run", *OWN["gke.sh"], *FLAGS).stdout
    manifest = yaml.safe_load(output[output.index("apiVersion") : output.index("\nEOF\n")])
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert manifest["metadata"]["name"] == "run"
    assert job["parallelism"] == job["completions"] == 2  # 2x4 chips, 4 on each host
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert container["image"] == "registry/image:1"
    assert container["command"] == ["python", "main.py", *FLAGS]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert not any(word.isupper() and len(word) > 3 for word in str(manifest).replace("'", " ").split())


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local.sh", ["--config=c"], "--workdir=DIR"),
        ("local.sh", ["--processes=none", *FLAGS], "--processes=none"),
        ("local.sh", ["--processes=3", "--gpus=4", *FLAGS], "evenly"),
        ("slurm.sh", FLAGS, "--nodes="),
        ("tpu_pod.sh", ["--name=a", *FLAGS], "--zone="),
        ("gke.sh", ["--name=a", "--image=i", "--topology=big", *FLAGS], "4x4"),
    ],
)
def test_what_is_missing_is_named(script, arguments, message):
    done = run(script, "--dry_run", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


# A pretended interpreter: process 1 ends soon, where it is told to; the others wait for SIGTERM, or for half a minute.
PYTHON = """#!/bin/bash
trap 'echo "stopped ${*: -1}"; exit 0' TERM
echo "started ${*: -1}"
case "$*" in *process_id=1*) [ -z "$RESULT" ] || { sleep 1; exit "$RESULT"; } ;; esac
for ((tenths = 0; tenths < 300; tenths++)); do sleep 0.1; done
"""


@pytest.fixture
def house(tmp_path):
    """A repository with the scripts alone, whose environment needs no making."""
    shutil.copytree(REPOSITORY / "launch", tmp_path / "launch")
    with (tmp_path / "launch" / "setup.sh").open("a") as setup:
        setup.write("find_python() { :; }; make_environment() { :; }; install_requirements() { :; }\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def start(house, **environment):
    command = ["bash", "launch/local.sh", "--processes=3", *FLAGS]
    return subprocess.Popen(command, cwd=house, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


def test_a_local_process_that_fails_ends_the_others_and_its_status_counts(house):
    process = start(house, RESULT="3")
    output, _ = process.communicate(timeout=25)
    assert process.returncode == 3
    assert {"stopped --process_id=0", "stopped --process_id=2"} <= set(output.splitlines())


def test_sigterm_reaches_all_local_processes(house):
    process = start(house, RESULT="")
    started = [process.stdout.readline() for _ in range(3)]
    assert all(line.startswith("started") for line in started)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=25)
    assert process.returncode == 0
    assert sorted(output.splitlines()) == [f"stopped --process_id={k}" for k in range(3)]
    assert time.monotonic() - begun < 20
