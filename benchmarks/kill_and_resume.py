"""Kills a training run with SIGKILL at random moments, resumes it, and compares it with an uninterrupted one.

    python benchmarks/kill_and_resume.py [--num_kills=5] [--seed=0] [--config=configs/quickstart.py --steps=200]

Both runs use one device. Every array of the last checkpoint, the loader's position, the curve and the scores must be
equal bit for bit; otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import orbax.checkpoint as ocp

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--num_kills", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--config", default="configs/quickstart.py")
    arguments.add_argument("--steps", type=int, default=200)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = pathlib.Path(folder, "whole"), pathlib.Path(folder, "killed")
        start = time.monotonic()
        subprocess.run(_command(options, whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        duration = time.monotonic() - start
        _run_with_kills(options, killed, duration)
        faults = _differences(whole, killed, options.steps)
    print("\n".join(faults) if faults else f"equal after {options.num_kills} kills")
    return 1 if faults else 0


def _command(options: argparse.Namespace, workdir: pathlib.Path) -> list[str]:
    return [
        sys.executable,
        str(REPOSITORY / "main.py"),
        f"--config={REPOSITORY / options.config}",
        f"--workdir={workdir}",
        "--config.mesh.data=1",
        f"--config.train.num_steps={options.steps}",
        "--config.train.log_every=5",
        "--config.train.checkpoint_every=5",
        f"--config.train.eval_every={options.steps // 2}",
    ]


def _run_with_kills(options: argparse.Namespace, workdir: pathlib.Path, duration: float) -> None:
    """Each start is killed after a random part of a whole run's time; the last one runs to its end."""
    rng = random.Random(options.seed)
    num_done = 0
    while num_done < options.num_kills:
        process = subprocess.Popen(_command(options, workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        moment = rng.uniform(0.05, 0.3) * duration
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_done += 1
            print(f"killed {moment:.1f} s after its start; newest checkpoint: {_newest(workdir)}", flush=True)
            continue
        raise SystemExit(f"the run ended before kill {num_done + 1}: give more --steps")
    subprocess.run(_command(options, workdir), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _newest(workdir: pathlib.Path) -> int | None:
    return max(
        (int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit()), default=None
    )


def _differences(whole: pathlib.Path, killed: pathlib.Path, step: int) -> list[str]:
    faults = []
    trees = [_arrays(workdir / "checkpoints" / str(step) / "state") for workdir in (whole, killed)]
    for path in sorted({*trees[0], *trees[1]}):
        if not np.array_equal(trees[0].get(path), trees[1].get(path)):
            faults.append(f"state differs: {path}")
    print(f"{len(trees[0])} arrays compared")
    for name in ("metrics.jsonl", "scores.json", "per_image.json"):
        if _without_times(whole / name) != _without_times(killed / name):
            faults.append(f"{name} differs")
    return faults


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    import jax

    tree = ocp.StandardCheckpointer().restore(path)
    return {jax.tree_util.keystr(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _without_times(path: pathlib.Path) -> list:
    """The JSON of each line (or of the whole file), without times."""
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    clocked = ("images_per_second", "step_seconds", "fetch_seconds", "data_wait", "host_wait", "seconds", "timestamp")
    return [{k: v for k, v in r.items() if k not in clocked} if isinstance(r, dict) else r for r in records]


if __name__ == "__main__":
    sys.exit(main())
