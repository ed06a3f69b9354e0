"""Two processes that run alternately (A B A B), and statistics of the times of their turns.

Each side of a comparison runs in its own process, with its own libraries, threads and memory; the parent calls one at a
time, so that neither computes while the other is measured. The parent imports neither JAX nor PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

REST = 0.2  # seconds between two turns, in which spinning threads go to sleep


class Side:
    """A process with one object whose methods are called from here. Close it, or use it as a context manager."""

    def __init__(self, factory: str, environment: Mapping[str, str], num_cores: int, /, **arguments: Any) -> None:
        """Starts the process.

        Args:
          factory: 'module:name' of the object's class, imported in the new process only.
          environment: variables set when it starts.
          num_cores: number of cores it is bound to; 0: all.
          **arguments: of the factory.

        Raises:
          RuntimeError: with the other side's traceback, if the object cannot be made.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, num_cores, arguments))
        with _environment(environment):
            self._process.start()
        theirs.close()
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """The method's result; RuntimeError with the other side's traceback if it fails."""
        self._connection.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(20)
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Side:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self.close()

    def _answer(self) -> Any:
        try:
            succeeded, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with status {self._process.exitcode}") from None
        if not succeeded:
            raise RuntimeError(answer)
        return answer


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets the variables inside the context, so that a new process has them when its C library reads them."""
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _serve(connection: Connection, factory: str, num_cores: int, arguments: Mapping[str, Any]) -> None:
    if num_cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:num_cores])
    module, _, name = factory.partition(":")

    def make() -> None:
        nonlocal served
        served = getattr(importlib.import_module(module), name)(**arguments)

    served: Any = None
    connection.send(_attempt(make))
    while served is not None:
        try:
            method, values = connection.recv()
        except EOFError:
            return  # the parent has closed its end
        connection.send(_attempt(functools.partial(_call, served, method, values)))


def _call(served: Any, method: str, values: Sequence[Any]) -> Any:
    return getattr(served, method)(*values)


def _attempt(function: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, function()
    except Exception:
        return False, traceback.format_exc()


def turn_seconds(run: Callable[[], object], at_least: float = 0.5) -> float:
    """Seconds of one run: the median over a turn of `at_least` seconds.

    A first run is not counted: during the other side's turn the caches were filled by it, and memory that this side had
    freed went back to the system (on a virtual machine to the host, from which it returns slowly).
    """
    run()
    seconds = [_seconds(run)]
    while sum(seconds) < at_least:
        seconds.append(_seconds(run))
    return statistics.median(seconds)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def take_turns(
    sides: Sequence[Callable[[], float]], *, min_rounds: int = 3, max_rounds: int = 15, max_seconds: float = 40.0
) -> list[list[float]]:
    """The seconds of each side's turns: as many rounds as fit into `max_seconds`, within the two bounds."""
    times: list[list[float]] = [[] for _ in sides]
    start, num_rounds = time.perf_counter(), 0
    while num_rounds < min_rounds or (num_rounds < max_rounds and time.perf_counter() - start < max_seconds):
        for own, side in zip(times, sides, strict=True):
            time.sleep(REST)
            own.append(side())
        num_rounds += 1
    return times


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def paired_ratio(own: Sequence[float], peer: Sequence[float]) -> Spread:
    """The spread of own times over the peer's, round by round: what slows a whole round cancels out."""
    return spread([a / b for a, b in zip(own, peer, strict=True)])


def comparison(own: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """The times of the two sides in the form of the results."""
    return {
        "seconds": {"ours": statistics.median(own), "peer": statistics.median(peer)},
        "ratio": paired_ratio(own, peer)._asdict(),
        "rounds": {"ours": list(own), "peer": list(peer)},
    }


def shown_ratio(ratio: Mapping[str, float]) -> str:
    """'1.07 (1.05-1.10)': ours over the peer's, and the quartiles of the rounds."""
    return f"**{ratio['median']:.2f}** ({ratio['low']:.2f}-{ratio['high']:.2f})"


def machine(packages: Sequence[str], num_cores: int = 0) -> dict[str, Any]:
    """The environment of the numbers: processor, cores, versions and the commit."""
    return {
        "processor": _processor(),
        "cores": num_cores or len(os.sched_getaffinity(0)),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
    }


def settings(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line per environment of the results; commits are only in the results."""
    lines = set()
    for each in entries:
        versions = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        processor = f"{each['processor']}, {each['cores']} cores"
        device = "" if each["device"] == "cpu" else f"{each['device']}; "
        lines.add(f"Environment: {device}{processor}; {versions}.")
    return sorted(lines)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extensions = [name for name in ("avx2", "avx512f", "amx_bf16") if f" {name} " in f"{flags} "]
    return f"{names[0] if names else platform.machine()} ({', '.join(extensions)})"


def _commit() -> str:
    """The commit, marked '-dirty' if the package differs from it."""
    git = ["git", "-C", str(pathlib.Path(__file__).resolve().parent.parent)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        return "unknown"
    is_dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "deeplab_jax"], check=False).returncode
    return done.stdout.strip() + ("-dirty" if is_dirty else "")


def reset_peak() -> None:
    """Resets this process's peak of resident memory, if the system supports it."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The peak resident memory of this process since `reset_peak`, or since its start."""
    import resource

    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
