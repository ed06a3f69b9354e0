"""Checks a whole data set before training on it: every sample of every split, in parallel."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping

from deeplab_jax.data.dataset import Dataset, Originals
from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.data.inspection.lint_findings import KINDS, Finding
from deeplab_jax.data.inspection.lint_samples import CheckedSample, check_example, check_sample
from deeplab_jax.data.inspection.lint_splits import (
    check_channels,
    check_classes,
    find_duplicates,
    find_overlaps,
    find_repeats,
)
from deeplab_jax.data.sources.file_dataset import require_split
from deeplab_jax.data.sources.legend import legend_of_ids
from deeplab_jax.data.sources.samples import Sample
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, ExampleSource, UserError


@dataclasses.dataclass(frozen=True)
class LintReport:
    """The findings and statistics of a data set."""

    findings: list[Finding]  # the worst kinds first
    counts: Mapping[str, ClassCounts]  # of each split, from the readable masks
    num_samples: int  # distinct samples: each counts once, however many splits list it
    channels: Mapping[str, ChannelStatistics]  # of each split, from its readable images; empty for RGB bytes


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    splits: tuple[str, ...]  # splits that list the sample
    check: Callable[[], CheckedSample]
    mask: pathlib.Path | None = None


def lint_dataset(
    dataset: Dataset,
    *,
    train_split: str,
    eval_split: str,
    num_workers: int = 0,
    convert_to: pathlib.Path | None = None,
) -> LintReport:
    """Reads and checks every sample of every split, once each; faults do not stop it.

    Args:
      train_split: the split to train on.
      eval_split: the split to evaluate on; must not share images with `train_split`.
      num_workers: threads; 0: one for each core.
      convert_to: a new folder for converted copies of the masks whose intended ids can be recovered; None: no copies.

    Raises:
      UserError: when the copies cannot be written.
    """
    info = dataset.info
    findings = [found for split in dict.fromkeys((train_split, eval_split)) for found in _check_split(split, info)]
    tasks = _file_tasks(dataset.originals, info) if dataset.originals else _example_tasks(dataset, findings)
    write = _make_writer(convert_to, tasks) if convert_to else None
    counts = {split: ClassCounts.zeros(info.num_classes) for split in info.splits}
    channels = {} if info.is_rgb else {split: ChannelStatistics.zeros(info.channels) for split in info.splits}
    checked: list[tuple[tuple[str, ...], CheckedSample]] = []
    samples = each(lambda task: task.check(), tasks, title=f"reading {info.name}", num_workers=num_workers)
    for task, sample in zip(tasks, samples, strict=True):
        findings += [dataclasses.replace(finding, splits=task.splits) for finding in sample.findings]
        for split in task.splits:
            if sample.pixels is not None:
                counts[split].add(sample.pixels)
            if sample.channels is not None:
                channels[split].add(sample.channels)
        if write and sample.converted and task.mask:
            write(task.mask, sample.converted)
        checked.append((task.splits, dataclasses.replace(sample, findings=[], converted=None)))
    findings += find_repeats(dataset.originals.samples) if dataset.originals else []
    findings += find_duplicates(checked, train_split, eval_split)
    findings += find_overlaps([task.splits for task in tasks], train_split, eval_split)
    legend = dataset.originals.legend if dataset.originals else None
    findings += check_classes(counts, info, train_split, eval_split, legend)
    findings += check_channels(channels)
    order = list(KINDS)
    return LintReport(sorted(findings, key=lambda finding: order.index(finding.kind)), counts, len(tasks), channels)


def _check_split(split: str, info: DatasetInfo) -> list[Finding]:
    try:
        require_split(info, split)
    except UserError as error:
        return [Finding("missing_split", info.name, str(error), splits=(split,))]
    return []


def _file_tasks(originals: Originals, info: DatasetInfo) -> list[_Task]:
    """One task for each pair of files, which several splits may list."""
    splits: dict[tuple[str, str, str], list[str]] = {}
    samples: dict[tuple[str, str, str], Sample] = {}
    for split, listed in originals.samples.items():
        for sample in listed:
            key = (sample.name, str(sample.image), str(sample.mask))
            samples[key] = sample
            splits.setdefault(key, []).append(split)
    return [
        _Task(tuple(dict.fromkeys(splits[key])), functools.partial(check_sample, sample, originals, info), sample.mask)
        for key, sample in samples.items()
    ]


def _example_tasks(dataset: Dataset, findings: list[Finding]) -> list[_Task]:
    """One task for each example; a split that cannot be opened is a finding."""
    tasks = []
    legend = legend_of_ids(dataset.info)

    def check(source: ExampleSource, index: int) -> CheckedSample:
        return check_example(source[index], dataset.info, legend)

    for split in dataset.info.splits:
        try:
            source = dataset.open_split(split)
        except UserError as error:
            findings.append(Finding("unreadable", split, f"{split}: cannot be opened: {error}", splits=(split,)))
            continue
        tasks += [_Task((split,), functools.partial(check, source, index)) for index in range(len(source))]
    return tasks


def _make_writer(folder: pathlib.Path, tasks: list[_Task]) -> Callable[[pathlib.Path, bytes], None]:
    """Returns (mask, content) -> None, which writes to `folder`, mirroring the masks' tree below their common folder.

    Raises:
      UserError: when the folder exists already, so that nothing is ever overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output={folder}: is there already; name a new folder for the converted masks")
    parents = [str(task.mask.parent) for task in tasks if task.mask]
    common = pathlib.Path(os.path.commonpath(parents)) if parents else pathlib.Path()
    written = set()

    def write(mask: pathlib.Path, content: bytes) -> None:
        if mask in written:  # another sample has the same mask
            return
        written.add(mask)
        path = (folder / mask.relative_to(common)).with_suffix(".png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; name another --output") from None

    return write
