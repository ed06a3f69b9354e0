"""Several processes as one run: how they find each other, and what is said when one of them is lost.

Who belongs together comes from the flags `--coordinator`, `--num_processes` and `--process_id`, or from the variables
of the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU), as `jax.distributed` reads them. A process that is alone needs
neither.
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

HEARTBEAT_SECONDS = 60  # after which a process that says nothing counts as lost

_COUNTS = {  # what a launcher sets for each process that it starts -> how many there are
    ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"): "SLURM_NTASKS",
    ("OMPI_MCA_orte_hnp_uri",): "OMPI_COMM_WORLD_SIZE",
}


def join_processes(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, preemptible: bool = True
) -> None:
    """Makes this process one of several, before anything touches a device; a process that is alone stays so.

    Args:
      coordinator: HOST:PORT of process 0; '': the cluster's variables tell.
      num_processes: how many there are; 0: likewise.
      process_id: which one this is; -1: likewise.
      preemptible: SIGTERM is left to JAX's preemption service, whom `train.signals.StopSignal` asks; False: it ends
        the process, as it does one that is alone.

    Raises:
      UserError: where the flags are incomplete, or the processes do not find each other.
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
    options: dict[str, Any] = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
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
    """Whether a launcher has started this process as one of several, or may have on a TPU host."""
    for names, count in _COUNTS.items():
        if all(name in environment for name in names) and int(environment.get(count, "1")) > 1:
            return True
    if "JOB_COMPLETION_INDEX" in environment and importlib.util.find_spec("kubernetes"):  # an indexed job
        return True
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or importlib.util.find_spec("libtpu") is None:
        return False
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"))


@contextlib.contextmanager
def told_when_one_is_lost() -> Iterator[None]:
    """Turns what the runtime says when another process is gone into one line."""
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
