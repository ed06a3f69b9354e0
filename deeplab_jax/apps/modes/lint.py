"""Checks a data set before training: names every fault by file and value; lint.html shows it, lint.json has it all."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.class_weights import WEIGHTINGS
from deeplab_jax.apps.pages.data_page import PAGE_FILE, write_page
from deeplab_jax.apps.request import Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.data.inspection.dataset_copy import DatasetCopy
from deeplab_jax.data.inspection.lint_findings import KINDS, SEVERITIES, Finding, num_of
from deeplab_jax.data.inspection.linter import LintReport, lint_dataset
from deeplab_jax.files import write_whole
from deeplab_jax.types import DatasetInfo

LINT_FILE = "lint.json"  # inside a workdir
_NUM_PRINTED = 10  # findings per kind; lint.json has all


FLAGS = (Flag("output", "", "a new folder for a copy of the data set in which masks hold class ids"),)
NEEDS = Needs.CONFIG


def run(request: Request) -> int:
    return lint(request.config, request.workdir, **request.flags)


def lint(config: Config, workdir: pathlib.Path, output: str = "") -> int:
    """Reads every sample of every split of the config's data set, from the original files if there are any.

    Args:
      workdir: lint.json and lint.html are written there.
      output: a new folder for a copy of the data set in which masks hold class ids; '': none.

    Returns:
      The exit status: 0, or 1 if there are errors; with `output`, 1 if the copy lacks a sample or has errors.

    Raises:
      UserError: if there is no data set, or a folder cannot be written.
    """
    dataset = open_data.open_dataset(config)
    start = time.perf_counter()
    report = lint_dataset(
        dataset,
        train_split=config.data.train_split,
        eval_split=config.data.eval_split,
        num_workers=config.data.num_workers,
        convert_to=pathlib.Path(output).expanduser().absolute() if output else None,
    )
    seconds = time.perf_counter() - start
    content = to_dict(report, dataset.info, config)
    write_whole(workdir / LINT_FILE, json.dumps(content, indent=1) + "\n")
    write_page(report, dataset, config, workdir)
    print(format_findings(report.findings))
    print(format_classes(report, dataset.info, config))
    if report.channels:
        print(format_channels(report, config))
    found = ", ".join(_number_of(severity, num) for severity, num in content["num_findings"].items())
    print(f"{dataset.info.name}: {found} in {report.num_samples} images, {seconds:.1f} s")
    print(f"wrote {workdir / LINT_FILE} and, to look at, {workdir / PAGE_FILE}")
    if report.copy is not None:
        return _check_copy(report.copy, report.num_samples, config)
    return 1 if content["num_findings"]["error"] else 0


def _check_copy(copy: DatasetCopy, num_samples: int, config: Config) -> int:
    """Checks a copy as any data set, says what is in it and how to use it; returns the exit status."""
    for path in copy.refused[:_NUM_PRINTED]:
        print(f"refused: {path}: its fault is told above; it is not in the copy")
    if len(copy.refused) > _NUM_PRINTED:
        print(f"refused: {len(copy.refused) - _NUM_PRINTED} more samples, for what {LINT_FILE} tells")
    if not copy.num_samples:
        print(f"{copy.folder}: no sample could be copied")
        return 1
    written = folder.open_dataset(str(copy.folder), config.data.prepared_dir)
    report = lint_dataset(
        written,
        train_split=config.data.train_split,
        eval_split=config.data.eval_split,
        num_workers=config.data.num_workers,
    )
    errors = [finding.message for finding in report.findings if finding.severity == "error"]
    for message in errors[:_NUM_PRINTED]:
        print(f"error in the copy: {message}")
    print(
        f"{copy.folder}: {copy.num_samples} of {_number_of('sample', num_samples)} copied, masks as class ids; "
        f"{_number_of('error', len(errors))} in the copy"
    )
    if not errors:
        print(f"next: the same --config with --config.data.dataset=folder --config.data.root={copy.folder}")
    return 1 if errors or copy.refused else 0


def to_dict(report: LintReport, info: DatasetInfo, config: Config) -> dict[str, Any]:
    """The content of lint.json."""
    return {
        "dataset": info.name,
        "root": config.data.root,
        "num_samples": report.num_samples,
        "num_findings": {severity: num_of(severity, report.findings) for severity in SEVERITIES},
        "findings": [{"severity": each.severity, **dataclasses.asdict(each)} for each in report.findings],
        "splits": {
            split: {"num_listed": info.splits[split], **_split_dict(counts, info)}
            for split, counts in report.counts.items()
        },
        "channels": {split: _channel_dicts(found) for split, found in report.channels.items()},
        "class_weights": _suggested(report, info, config),
    }


def format_findings(findings: list[Finding]) -> str:
    """The first findings of each kind, the most severe kinds first."""
    lines = []
    for kind, group in itertools.groupby(findings, key=lambda finding: finding.kind):
        members = list(group)
        severity, title = KINDS[kind]
        lines.append(f"{severity}: {title} ({len(members)})")
        lines += [f"  {finding.message}" for finding in members[:_NUM_PRINTED]]
        if len(members) > _NUM_PRINTED:
            lines.append(f"  and {len(members) - _NUM_PRINTED} more, in {LINT_FILE}")
    return "\n".join(lines) or "no findings"


def format_classes(report: LintReport, info: DatasetInfo, config: Config) -> str:
    """The classes of the config's splits, with class weights that training could use."""
    names = dict.fromkeys((config.data.train_split, config.data.eval_split))
    splits = {split: report.counts[split] for split in names if split in report.counts}
    weights = _suggested(report, info, config)["weights"]
    width = max(len("class"), *(len(name) for name in info.class_names))
    head = [f"{split + ' pixels':>14}  {'images':>7}" for split in splits]
    lines = ["  ".join([f"{'class':{width}}", *head, *(f"{name:>16}" for name in weights)])]
    for k, name in enumerate(info.class_names):
        cells = [_seen(counts, k) for counts in splits.values()]
        is_trained = weights and report.counts[config.data.train_split].pixels[k] > 0
        cells += [f"{each[name]:16.4f}" if is_trained else f"{'-':>16}" for each in weights.values()]
        lines.append("  ".join([f"{name:{width}}", *cells]))
    return "\n".join(lines)


def format_channels(report: LintReport, config: Config) -> str:
    """Range, mean and standard deviation of each channel in the config's splits."""
    lines = [f"{'channel':>7}  {'split':12}  {'lowest':>10}  {'highest':>10}  {'mean':>10}  {'deviation':>10}"]
    for split in dict.fromkeys((config.data.train_split, config.data.eval_split)):
        if split in report.channels:
            found = report.channels[split]
            lines += [
                f"{k:7}  {split:12}  {found.low[k]:10.5g}  {found.high[k]:10.5g}  {found.mean[k]:10.5g}  "
                f"{found.std[k]:10.5g}"
                for k in np.flatnonzero(found.count).tolist()
            ]
    return "\n".join(lines)


def _seen(counts: ClassCounts, class_id: int) -> str:
    if not counts.pixels[class_id]:
        return f"{'-':>14}  {'-':>7}"
    return f"{counts.pixels[class_id] / counts.num_labelled:14.2%}  {counts.images[class_id]:7}"


def _number_of(thing: str, number: int) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _split_dict(counts: ClassCounts, info: DatasetInfo) -> dict[str, Any]:
    total, num_ignored = counts.num_labelled, counts.num_ignored
    return {
        "num_readable_masks": counts.num_images,
        "ignored_fraction": num_ignored / max(total + num_ignored, 1),
        "classes": {
            name: {"pixels": int(pixels), "pixel_fraction": int(pixels) / max(total, 1), "images": int(images)}
            for name, pixels, images in zip(info.class_names, counts.pixels, counts.images, strict=True)
        },
    }


def _channel_dicts(found: ChannelStatistics) -> list[dict[str, Any]]:
    """One dict per channel; a channel without any value has only its number of missing ones."""
    return [
        {"missing": int(found.num_missing[k])}
        | (
            {"lowest": float(found.low[k]), "highest": float(found.high[k])}
            | {"mean": float(found.mean[k]), "std": float(found.std[k])}
            if found.count[k]
            else {}
        )
        for k in range(len(found.count))
    ]


def _suggested(report: LintReport, info: DatasetInfo, config: Config) -> dict[str, Any]:
    """Class weights, by their name in config.loss.class_weights."""
    counts = report.counts.get(config.data.train_split)
    weights: Mapping[str, Any] = {}
    if counts is not None and counts.num_images:
        weights = {
            name: dict(zip(info.class_names, weights_of(counts), strict=True))
            for name, weights_of in WEIGHTINGS.items()
        }
    return {"split": config.data.train_split, "weights": weights}
