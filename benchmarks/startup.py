"""Seconds from the command to the first train step, with an empty and a filled compilation cache.

    python benchmarks/startup.py [--config=configs/quickstart.py] [--rounds=3] [--config.field=value ...]

Each run is a process of its own, started as a user would start it, in a new workdir, and ended after its first step.
The times of its output are recorded: 'described' (imports, validation, data set, network from shapes), 'compiled'
(weights initialised, train step compiled), 'first step' (its metrics have arrived). Each 'cold' run has an empty cache,
a 'warm' one the cache of the preceding cold run. 'validated' is a separate command, which ends after the config has
been checked. Run the config once beforehand if its data has to be prepared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.pairs import machine, settings
from benchmarks.tables import PERFORMANCE, REPOSITORY, markdown_table, read_results, write_between, write_results

NAME = "startup"  # of the results, and of the markers in docs/performance.md
TARGETS = {"validated": 3.0, "first step, cold": 20.0}  # seconds, for the quickstart on two cores
_MARKS = {"described": "devices ", "compiled": "memory ", "first step": "step 1/"}  # prefixes of the lines
_DEVICE = re.compile(r"devices +\d+ x ([^,]+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=3)
    options, overrides = parser.parse_known_args()

    arguments = [f"--config={options.config}", "--config.train.log_every=1", *overrides]
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    device = ""
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind, times in runs.items():
                marks, device = time_marks(arguments, cache)
                times.append(marks)
                print(f"{kind}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times[-1].items()))
    with tempfile.TemporaryDirectory() as cache:
        validated = [time_validation(arguments, cache) for _ in range(options.rounds)]
    result = {
        "validated": statistics.median(validated),
        **{kind: medians(times) for kind, times in runs.items()},
        "rounds": options.rounds,
        "overrides": overrides,
        "device": device,
        **machine(("jax", "jaxlib", "flax")),
    }
    results = {**read_results(NAME), options.config: result}
    write_results(NAME, results)
    with contextlib.suppress(FileNotFoundError):
        write_between(PERFORMANCE, NAME, table(results))
    print(table({options.config: result}))
    print("targets for the quickstart on two cores: " + ", ".join(f"{k} {v:.0f} s" for k, v in TARGETS.items()))


def time_marks(arguments: Sequence[str], cache: str) -> tuple[dict[str, float], str]:
    """(seconds from the start of the command to each of the marked lines of a run's output, kind of device)."""
    times: dict[str, float] = {}
    device = ""
    with tempfile.TemporaryDirectory() as workdir:
        started = time.perf_counter()
        with _started([*arguments, f"--workdir={workdir}"], cache) as process:
            for line in process.stdout or ():
                for name, beginning in _MARKS.items():
                    if line.startswith(beginning):
                        times.setdefault(name, time.perf_counter() - started)
                device = found[1] if (found := _DEVICE.match(line)) else device
                if len(times) == len(_MARKS):
                    return times, device
            raise SystemExit(f"error: the run ended before its first step: {process.stderr and process.stderr.read()}")


def time_validation(arguments: Sequence[str], cache: str) -> float:
    """Seconds until the config has been checked: an invalid value in the last check ends the command there."""
    started = time.perf_counter()
    with _started([*arguments, "--workdir=never_made", "--config.mesh.space=0"], cache) as process:
        status, message = process.wait(), process.stderr.read() if process.stderr else ""
    if status != 2 or not message.startswith("error: config.mesh.space"):
        raise SystemExit(f"error: the command did not end as expected: {message}")
    return time.perf_counter() - started


def medians(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median time of each mark over the runs."""
    return {name: round(statistics.median(each[name] for each in times), 2) for name in times[0]}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per config, in seconds."""
    header = ["config", "validated:", *(f"{mark}, {kind}:" for kind in ("cold", "warm") for mark in _MARKS)]
    rows = [
        [
            f"`{config}`",
            f"{row['validated']:.1f}",
            *(f"{row[kind][mark]:.1f}" for kind in ("cold", "warm") for mark in _MARKS),
        ]
        for config, row in results.items()
    ]
    return "\n\n".join([markdown_table(header, rows), "Seconds.", *settings(results.values())])


@contextlib.contextmanager
def _started(arguments: Sequence[str], cache: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the command in a process that is terminated at the end of the context."""
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "main.py"), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
