"""Compiles the main configs for TPU slices and GPUs that are not present; writes JSON and the table in docs/scaling.md.

    python benchmarks/compile_topologies.py [--only=TEXT] [--again] [--table]

Needs the compilers, not the chips: pip install "jax[tpu]" and the CUDA plugin (--mode=compile says which). A case takes
one to a few minutes of a CPU core; cases already in the JSON are skipped without --again. --only selects the cases
whose name contains the text; --table only writes the table.

For TPU, XLA is asked for its least effort: a tenth of the time. Compared with full effort (v3plus_voc on v5e:4x4) the
program has the same collectives and 3 % less temporary memory.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.tables import REPOSITORY, read_results, write_between, write_results

NAME = "compiled_steps"  # in benchmarks/results/
PAGE = REPOSITORY / "docs" / "scaling.md"

_LEAST_EFFORT = {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0", "JAX_MEMORY_FITTING_EFFORT": "-1.0"}
_FULL_IMAGE = ("--config.data.crop_size=(1025,2049)",)
# (config, topology, overrides): from one chip to 256, with 1 to 16 images per chip, and images shared by chips.
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("v3plus_voc", "h100", ()),
    ("v3plus_voc", "h100", ("--config.model.output_stride=8",)),
    ("v3plus_voc_xception65", "h100", ()),
    ("quickstart", "v5e:2x2", ("--config.mesh.space=2", "--config.data.batch_size=4")),
    ("quickstart", "v5e:16x16", ("--config.data.batch_size=256",)),
    ("v3plus_voc", "v5e:4x4", ()),
    ("v3plus_voc", "v5e", ()),
    ("v3plus_voc_large_batch:1024", "v5e:16x16", ()),
    ("v3plus_voc_xception65", "v5e:4x4", ()),
    ("v3_voc_resnet101", "v5e:4x4", ()),
    ("v3plus_voc", "v4:2x2x1", ()),
    ("v3plus_voc", "v5e:4x4", ("--config.mesh.space=4", "--config.data.batch_size=4", *_FULL_IMAGE)),
    ("v3plus_voc_xception65", "v5e:16x16", ("--config.data.batch_size=256",)),
    ("v3plus_voc_large_batch:128", "h100:8", ()),
    ("v3plus_voc_large_batch:256", "v5p:2x2x4", ()),
    ("v3_voc_resnet101", "v5e:16x16", ("--config.data.batch_size=256",)),
    ("v3plus_voc_large_batch:256", "v5e:8x8", ()),
    ("v3plus_voc", "v5e", ('--config.model.remat=("backbone/.*","head/.*")',)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = read_results(NAME)
    for config, topology, overrides in () if options.table else CASES:
        name = " ".join([config, topology, *(each.removeprefix("--config.") for each in overrides)])
        if options.only not in name or (name in results and not options.again):
            continue
        print(name, flush=True)
        results[name] = compiled(config, topology, overrides)
        write_results(NAME, results)
    write_between(PAGE, "compiled", table(results))


def compiled(config: str, topology: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The report of --mode=compile, its convolutions counted by call and window."""
    file, _, argument = config.partition(":")
    path = REPOSITORY / "configs" / f"{file}.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / "main.py"), "--mode=compile", f"--topology={topology}"]
        command += [f"--config={path}{':' + argument if argument else ''}", f"--workdir={folder}", *overrides]
        environment = os.environ | ({} if topology.startswith("h100") else _LEAST_EFFORT)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        (written,) = pathlib.Path(folder).glob("compile_*.json")
        report = json.loads(written.read_text())
    return summarized(report)


def summarized(report: dict[str, Any]) -> dict[str, Any]:
    """The report with one entry per kind of convolution instead of one per shape."""
    counts: dict[str, int] = {}
    for each in report.get("convolutions", ()):
        words = [each["call"], "x".join(map(str, each["window"]))]
        words += [f"{key} {'x'.join(map(str, each[key]))}" for key in ("stride", "dilation") if max(each[key]) > 1]
        words += [f"{each['groups']} groups"] if each["groups"] > 1 else []
        counts[", ".join(words)] = counts.get(", ".join(words), 0) + each["count"]
    return report | {"convolutions": counts}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| config | chips | images per chip | fits | memory per chip, GB | temporaries | moved, GB | TFLOP "
        "| all-reduce | other collectives |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, each in results.items():
        words = name.split(" ")
        config = " ".join([words[0], *words[2:]])
        start = f"| {config} | {each['topology']} | {each['batch_size'] / each['num_chips']:g} "
        if each["memory"] is None:
            used = re.search(r"Used ([\d.]+G) of ([\d.]+G)", each["error"])
            lines.append(f"{start}| no{f': {used[1]} of {used[2]}' if used else ''} | | | | | | |")
            continue
        memory, traffic, moved = each["memory"], each["collectives"], each["bytes_moved"]
        others = ", ".join(f"{value['count']} {kind}" for kind, value in traffic.items() if kind != "all-reduce")
        reduced = traffic.get("all-reduce", {"count": 0, "bytes": 0})
        lines.append(
            f"{start}| {'yes' if each['fits'] else 'no'} "
            f"| {memory['total'] / 1e9:.2f} of {each['chip_memory'] / 1e9:.1f} "
            f"| {memory['temporaries'] / 1e9:.2f} | {f'{moved / 1e9:.1f}' if moved else '-'} "
            f"| {each['convolution_flops'] / 1e12:.2f} | {reduced['count']}: {reduced['bytes'] / 1e6:.0f} MB "
            f"| {others or '-'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
