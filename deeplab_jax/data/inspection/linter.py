"""Checks a whole data set before training on it: every sample of every split, in parallel."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping

from deeplab_jax.data.dataset import Dataset, Originals
from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.data.inspection.dataset_copy import DatasetCopy
from deeplab_jax.data.inspection.lint_findings import KINDS, Finding
from deeplab_jax.data.inspection.lint_samples import CheckedSample, check_example, check_sample
from deeplab_jax.data.inspection.lint_splits import (
    check_channels,
    check_classes,
    find_duplicates,
    find_overlaps,
    find_repeats,
)
from deeplab_jax.data.inspection.unused_files import find_unused
from deeplab_jax.data.sources.file_dataset import require_split
from deeplab_jax.data.sources.legend import legend_of_ids
from deeplab_jax.data.sources.orientation_survey import SHOWN
from deeplab_jax.data.sources.samples import Sample
from deeplab_jax.data.sources.stored_labels import encode_label
from deeplab_jax.data.workers import each
from deeplab_jax.types import DatasetInfo, ExampleSource, UserError


@dataclasses.dataclass(frozen=True)
class LintReport:
    """The findings and statistics of a data set."""

    findings: list[Finding]  # the worst kinds first
    counts: Mapping[str, ClassCounts]  # of each split, from the readable masks
    num_samples: int  # distinct samples: each counts once, however many splits list it
    channels: Mapping[str, ChannelStatistics]  # of each split, from its readable images; empty for RGB bytes
    copy: DatasetCopy | None = None  # written on request


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    splits: tuple[str, ...]  # splits that list the sample
    check: Callable[[], CheckedSample]
    sample: Sample | None = None  # None: an example without files


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
      convert_to: a new folder for a copy of the data set, in which masks hold class ids, without the samples that have
        errors, unless the ids are recovered without loss; None: no copy.

    Raises:
      UserError: when the copy cannot be written, or the data set has no files.
    """
    info = dataset.info
    copy = _start_copy(convert_to, dataset) if convert_to else None
    findings = [found for split in dict.fromkeys((train_split, eval_split)) for found in _check_split(split, info)]
    tasks = _file_tasks(dataset.originals, info) if dataset.originals else _example_tasks(dataset, findings)
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
        if copy and task.sample:
            _copy_sample(copy, task.sample, task.splits, sample, info)
        checked.append((task.splits, dataclasses.replace(sample, findings=[], label=None)))
    if copy and dataset.originals:
        copy.finish(info, {"mask_orientation": SHOWN, "truncated": dataset.originals.reading.declared.truncated})
    findings += _check_files(dataset.originals) if dataset.originals else []
    findings += find_duplicates(checked, train_split, eval_split)
    findings += find_overlaps([task.splits for task in tasks], train_split, eval_split)
    legend = dataset.originals.legend if dataset.originals else None
    findings += check_classes(counts, info, train_split, eval_split, legend)
    findings += check_channels(channels)
    order = list(KINDS)
    findings = sorted(findings, key=lambda finding: order.index(finding.kind))
    return LintReport(findings, counts, len(tasks), channels, copy)


def _start_copy(folder: pathlib.Path, dataset: Dataset) -> DatasetCopy:
    if dataset.originals is None:
        raise UserError(
            f"--output={folder}: data set {dataset.info.name} has no files of its own to copy; leave it out"
        )
    if dataset.info.label_maps:
        raise UserError(f"--output={folder}: classes of data set {dataset.info.name} overlap, which no copy holds yet")
    return DatasetCopy(folder)


def _copy_sample(
    copy: DatasetCopy, sample: Sample, splits: tuple[str, ...], checked: CheckedSample, info: DatasetInfo
) -> None:
    errors = [finding for finding in checked.findings if finding.severity == "error" and not finding.convertible]
    if errors or checked.label is None:
        copy.refused.append(errors[0].file if errors else str(sample.mask))
    else:
        copy.add(sample.name, sample.image, encode_label(checked.label, info), splits)


def _check_files(originals: Originals) -> list[Finding]:
    """Samples that are listed repeatedly, and files that are not listed at all."""
    findings = find_repeats(originals.samples)
    if originals.root is not None:
        listed = [sample for samples in originals.samples.values() for sample in samples]
        used = {path for sample in listed for path in sample.files}
        findings += find_unused(originals.root, used | originals.settings)
    return findings


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
        _Task(tuple(dict.fromkeys(splits[key])), functools.partial(check_sample, sample, originals, info), sample)
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
