"""Trains one config at several batch sizes for the same number of epochs; tabulates losses and scores.

    python benchmarks/batch_size_study.py --config=configs/pets_cpu.py --workdir=runs/batch_sizes \\
        [--runs=8,16,32,64,128,128:lars:2.0,128:lamb:0.01] [--warmup_share=0.1] [--output=FILE.json] \\
        [main.py's flags, as --config.data.root=PETS ...]

A run is SIZE, or SIZE:OPTIMIZER:RATE. Without a rate, the learning rate is the config's times SIZE / its batch size
(linear scaling); larger sizes than the config's warm up over the given share of the steps. A large batch is processed
in micro-batches of the config's own size: it needs no more memory, and batch norm sees the same number of images at
every size, so that only the optimisation differs. An interrupted run resumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from deeplab_jax.config import Config  # noqa: E402


class Run(NamedTuple):
    """One training run of the study."""

    batch_size: int
    optimizer: str
    learning_rate: float
    num_steps: int
    warmup_steps: int
    slices: int

    @property
    def name(self) -> str:
        return f"{self.optimizer}_{self.batch_size}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--runs", default="8,16,32,64,128")
    parser.add_argument("--warmup_share", type=float, default=0.1)
    parser.add_argument("--output", type=pathlib.Path)
    options, flags = parser.parse_known_args()
    base = _load(options.config, flags)
    results = []
    for text in options.runs.split(","):
        run = plan(base, text, options.warmup_share)
        results.append(_train(run, options.config, options.workdir / run.name, flags))
        print(json.dumps(results[-1]), flush=True)
    if options.output:
        study = {"config": options.config, "flags": flags, "runs": results}
        options.output.write_text(json.dumps(study, indent=1) + "\n")
    print(table(results))


def plan(base: Config, text: str, warmup_share: float) -> Run:
    """The settings of the run 'SIZE' or 'SIZE:OPTIMIZER:RATE', for as many images as the config's own run."""
    size, _, rest = text.partition(":")
    optimizer, _, rate = rest.partition(":")
    factor = int(size) / base.data.batch_size
    if factor < 1 or factor != int(factor):
        raise SystemExit(f"error: {text}: must be a multiple of the config's own batch of {base.data.batch_size}")
    num_steps = math.ceil(base.train.num_steps / factor)
    return Run(
        batch_size=int(size),
        optimizer=optimizer or base.optimizer.name,
        learning_rate=float(rate) if rate else base.optimizer.learning_rate * factor,
        num_steps=num_steps,
        warmup_steps=base.optimizer.warmup_steps if factor == 1 else math.ceil(warmup_share * num_steps),
        slices=int(factor),
    )


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| batch | optimizer | steps | learning rate | warm-up | loss, last tenth | mIoU | minutes |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in results:
        loss, score = (_number(each[key]) for key in ("loss", "mean_iou"))
        lines.append(
            f"| {each['batch_size']} | {each['optimizer']} | {each['num_steps']} | {each['learning_rate']:g} "
            f"| {each['warmup_steps']} | {loss} | {score} | {each['minutes']:.1f} |"
        )
    return "\n".join(lines)


def _load(path: str, flags: list[str]) -> Config:
    """The config, with overrides applied to the fields that the plan depends on."""
    file, _, argument = path.partition(":")
    spec = importlib.util.spec_from_file_location("studied", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"error: --config={path}: no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([argument] if argument else []))
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--config.train.num_steps":
            config.train.num_steps = int(value)
        elif name == "--config.data.batch_size":
            config.data.batch_size = int(value)
    return config


def _train(run: Run, config: str, workdir: pathlib.Path, flags: list[str]) -> dict[str, Any]:
    """Trains and reads the curve; a run that diverges or fails has no score but its last line on stderr."""
    command = [
        sys.executable,
        str(REPOSITORY / "main.py"),
        f"--config={config}",
        f"--workdir={workdir}",
        *flags,
        f"--config.data.batch_size={run.batch_size}",
        f"--config.optimizer.name={run.optimizer}",
        f"--config.optimizer.learning_rate={run.learning_rate}",
        f"--config.optimizer.warmup_steps={run.warmup_steps}",
        f"--config.train.num_steps={run.num_steps}",
        f"--config.train.accumulation_steps={run.slices}",
        f"--config.train.eval_every={run.num_steps}",
        f"--config.train.checkpoint_every={max(run.num_steps // 4, 1)}",
        "--config.train.log_every=1",
    ]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result: dict[str, Any] = {**run._asdict(), "minutes": (time.monotonic() - started) / 60}
    result |= {"loss": _last_loss(workdir / "metrics.jsonl", run.num_steps), "mean_iou": None}
    if done.returncode:
        return result | {"error": done.stderr.strip().splitlines()[-1:]}
    return result | {"mean_iou": json.loads((workdir / "scores.json").read_text())["mean_iou"]}


def _last_loss(path: pathlib.Path, num_steps: int) -> float | None:
    """The mean over the last tenth of the steps; None if the run did not get that far."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    losses = [line["loss"] for line in lines if line.get("loss") is not None and line["step"] > 0.9 * num_steps]
    return statistics.fmean(losses) if losses else None


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
