"""Who belongs to a run: flags, the cluster's variables, and mistakes in one line."""

from __future__ import annotations

import jax
import pytest

from deeplab_jax.apps import processes
from deeplab_jax.apps.processes import in_cluster, join_processes, told_when_one_is_lost
from deeplab_jax.types import UserError

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
    beat = {"heartbeat_timeout_seconds": processes.HEARTBEAT_SECONDS}
    assert calls == [beat, beat | {"coordinator_address": "host:1", "num_processes": 4, "process_id": 3}]


def test_processes_that_do_not_meet_are_told(monkeypatch):
    def time_out(**options):
        raise RuntimeError("DEADLINE_EXCEEDED:\nbarrier")

    monkeypatch.setattr(jax.distributed, "initialize", time_out)
    with pytest.raises(UserError, match=r"did not find each other \(DEADLINE_EXCEEDED: barrier\): check the launcher"):
        join_processes("host:1", 2, 1)


def test_a_loss_is_told_only_among_several(monkeypatch):
    error = jax.errors.JaxRuntimeError("Gloo AllReduce failed: Connection closed by peer")
    with pytest.raises(jax.errors.JaxRuntimeError), told_when_one_is_lost():
        raise error
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(UserError, match="process 0 of 2: another process of this"),
        told_when_one_is_lost(),
    ):
        raise error
    with pytest.raises(ValueError, match="other"), told_when_one_is_lost():
        raise ValueError("other")
