"""Who belongs to a run: flags, the cluster's variables, and mistakes in one line."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest

from deeplab_jax.apps.assembly import processes
from deeplab_jax.apps.assembly.processes import explain_lost_process, in_cluster, join_processes, own_gpus
from deeplab_jax.types import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        # A shell of an allocation, not started by srun.
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, False),
        ({"OMPI_MCA_orte_hnp_uri": "x", "OMPI_COMM_WORLD_SIZE": "4"}, True),
    ],
)
def test_a_launcher_is_known_by_its_variables(environment, expected):
    assert in_cluster({"JAX_PLATFORMS": "cpu", **environment}) is expected


def test_a_tpu_host_may_be_one_of_several(monkeypatch):
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: object() if name == "libtpu" else None)
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    assert in_cluster({})
    assert not in_cluster({"JAX_PLATFORMS": "cpu"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, -1), "belong together: give all three"),
        (("", 2, 0), "belong together: give all three"),
        (("host:1", 2, 2), r"--process_id=2: .* the last in 0 \.\.\. num_processes - 1"),
        (("host", 2, 0), "the first must be HOST:PORT"),
    ],
)
def test_flags_that_cannot_work(arguments, message):
    with pytest.raises(UserError, match=message):
        join_processes(*arguments)


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", pytest.fail)
    monkeypatch.setattr(processes, "in_cluster", lambda environment: False)
    join_processes()
    join_processes("host:1", 1, 0)


def test_flags_and_clusters_are_handed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    monkeypatch.setattr(processes, "in_cluster", lambda environment: True)
    join_processes()
    join_processes("host:1", 4, 3)
    times = {"heartbeat_timeout_seconds": 60, "shutdown_timeout_seconds": 3600}
    assert calls == [times, times | {"coordinator_address": "host:1", "num_processes": 4, "process_id": 3}]


def test_processes_that_do_not_meet_are_told(monkeypatch):
    def time_out(**options):
        raise RuntimeError("DEADLINE_EXCEEDED:\nbarrier")

    monkeypatch.setattr(jax.distributed, "initialize", time_out)
    with pytest.raises(UserError, match=r"did not find each other \(DEADLINE_EXCEEDED: barrier\): check the launcher"):
        join_processes("host:1", 2, 1)


def test_a_loss_is_told_only_among_several(monkeypatch):
    error = jax.errors.JaxRuntimeError("Gloo AllReduce failed: Connection closed by peer")
    with pytest.raises(jax.errors.JaxRuntimeError), explain_lost_process():
        raise error
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(UserError, match="process 0 of 2: another process of this"),
        explain_lost_process(),
    ):
        raise error
    with pytest.raises(ValueError, match="other"), explain_lost_process():
        raise ValueError("other")


NODE = {"SLURM_LOCALID": "1", "SLURM_NODEID": "3", "SLURM_STEP_TASKS_PER_NODE": "8,2(x3)"}
ALONE = {"SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}
MPI = {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}


def seen(count: int) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (seen(8), None),  # no launcher: JAX takes all
        (ALONE | seen(8), ()),
        (ALONE, ()),
        (ALONE | {"JAX_LOCAL_DEVICE_IDS": "0,1"}, None),  # told otherwise
        (NODE, None),  # unknown how many there are: one, as JAX does
        (NODE | seen(2), (1,)),
        (NODE | seen(8), (4, 5, 6, 7)),
        (NODE | seen(1), ()),  # bound by Slurm
        (NODE | seen(4) | {"SLURM_GPUS_PER_TASK": "4"}, ()),
        (MPI | seen(8), (4, 5)),
    ],
)
def test_the_gpus_of_a_node_are_shared_out(environment, expected):
    assert own_gpus(environment) == expected


def test_gpus_that_cannot_be_shared_out_are_told():
    with pytest.raises(UserError, match=r"3 GPUs do not divide over the 2 processes of this node: .*ntasks-per-node=1"):
        own_gpus(NODE | seen(3))


JOIN = """
import jax
from deeplab_jax.apps.assembly.processes import join_processes
join_processes()
print(jax.process_count(), jax.process_index(), jax.config.values['jax_cuda_visible_devices'], flush=True)
"""


def test_slurms_variables_are_enough():
    """Three tasks as srun starts them on two nodes, all here; what JAX then lets each take of its node's GPUs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, **SLURM, **seen(4), "JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": port}
    shared |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "1,2"}
    places = [("0", "0"), ("1", "0"), ("1", "1")]
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN],
            env=shared | {"SLURM_PROCID": str(k), "SLURM_NODEID": node, "SLURM_LOCALID": local},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for k, (node, local) in enumerate(places)
    ]
    try:
        said = [task.communicate(timeout=240)[0].split() for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert said == [["3", "0", "all"], ["3", "1", "0,1"], ["3", "2", "2,3"]]
