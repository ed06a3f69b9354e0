"""Multi-process runs: how the processes find each other, and the error when one of them is lost.

The processes are configured by the flags `--coordinator`, `--num_processes` and `--process_id`, or by the environment
variables of the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU), as `jax.distributed` reads them. A single process
needs neither.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from deeplab_jax.types import UserError

HEARTBEAT_SECONDS = 60  # a process silent for this long counts as lost
LAST_SECONDS = 3600  # how long finished processes wait for the first one, which writes the report

_COUNTS = {  # variables that a launcher sets for each process -> variable with the number of processes
    ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"): "SLURM_NTASKS",
    ("OMPI_MCA_orte_hnp_uri",): "OMPI_COMM_WORLD_SIZE",
}


def join_processes(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, preemptible: bool = True
) -> None:
    """Joins the other processes of this run, before anything touches a device; does nothing for a single process.

    Args:
      coordinator: HOST:PORT of process 0; '' for it, 0 and -1 for the others: from the cluster's variables.
      preemptible: leave SIGTERM to JAX's preemption service, which `train.signals.StopSignal` queries; if False, it
        ends the process, as usual.

    Raises:
      UserError: if the flags are incomplete, the processes do not find each other, or cannot share their GPUs.
    """
    given = (bool(coordinator), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise UserError("--coordinator=HOST:PORT, --num_processes=N and --process_id=K belong together: give all three")
    if all(given) and (process_id >= num_processes or not coordinator.rpartition(":")[2].isdecimal()):
        raise UserError(
            f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}: the first must "
            "be HOST:PORT, the last in 0 ... num_processes - 1"
        )
    if num_processes == 1 or not (all(given) or in_cluster(os.environ)):
        return
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": LAST_SECONDS,
    }
    if (gpus := own_gpus(os.environ)) is not None:
        options["local_device_ids"] = gpus
    if all(given):
        options |= {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the processes of this run did not find each other ({reason}): check the launcher") from error
    if not preemptible:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process as one of several, or may have, on a TPU host."""
    for names, count in _COUNTS.items():
        if all(name in environment for name in names) and int(environment.get(count, "1")) > 1:
            return True
    if "JOB_COMPLETION_INDEX" in environment and importlib.util.find_spec("kubernetes"):  # an indexed job
        return True
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or importlib.util.find_spec("libtpu") is None:
        return False
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"))


def own_gpus(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The visible GPUs that belong to this process, if Slurm or Open MPI started it.

    By default JAX gives each process the GPU of its local rank: a single process per node would leave all other GPUs
    idle, and a process whose GPUs the launcher has already chosen would request some that it cannot see.

    Returns:
      Positions among the visible GPUs; (): all of them; None: JAX's default.

    Raises:
      UserError: if the processes of a node cannot share its GPUs evenly.
    """
    place = _place_on_node(environment)
    if place is None or environment.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    process, num_processes = place
    if num_processes == 1 or "SLURM_GPUS_PER_TASK" in environment:
        return ()
    num_seen = len([each for each in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if each])
    if num_seen == 0:  # their number is unknown
        return None
    if num_seen == 1:  # bound to it
        return ()
    if num_seen % num_processes:
        raise UserError(
            f"{num_seen} GPUs do not divide over the {num_processes} processes of this node: start one process for "
            "each node (Slurm: --ntasks-per-node=1) or one for each GPU"
        )
    share = num_seen // num_processes
    return tuple(range(process * share, (process + 1) * share))


def _place_on_node(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """(local rank of this process, number of processes on its node); None: unknown."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return int(environment["OMPI_COMM_WORLD_LOCAL_RANK"]), int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
    if not {"SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE"} <= set(environment):
        return None
    counts: list[int] = []
    for group in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):  # as '2(x3),1'
        count, _, repeated = group.partition("(x")
        counts += [int(count)] * int(repeated.rstrip(")") or 1)
    return int(environment["SLURM_LOCALID"]), counts[int(environment["SLURM_NODEID"])]


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turns the runtime's error about a lost process into a one-line UserError."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        if jax.process_count() == 1 or not _is_loss(str(error)):
            raise
        raise UserError(
            f"process {jax.process_index()} of {jax.process_count()}: another process of this run has ended or cannot "
            "be reached; see what it said, and start all of them again: they continue at the last checkpoint"
        ) from error


def _is_loss(text: str) -> bool:
    signs = ("Connection closed", "Connection reset", "Broken pipe", "Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return any(sign in text for sign in (*signs, "barrier", "heartbeat"))
