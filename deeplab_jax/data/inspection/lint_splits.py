"""Faults that only show across samples: duplicate images, overlapping splits, missing classes."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_jax.data.inspection.channel_statistics import ChannelStatistics
from deeplab_jax.data.inspection.class_counts import ClassCounts
from deeplab_jax.data.inspection.lint_findings import Finding
from deeplab_jax.data.inspection.lint_samples import CheckedSample
from deeplab_jax.data.inspection.vanished_class import describe_vanished
from deeplab_jax.data.sources.legend import Legend
from deeplab_jax.data.sources.samples import Sample
from deeplab_jax.data.sources.stored_labels import LabelPixels
from deeplab_jax.types import DatasetInfo

Splits = tuple[str, ...]  # those that list a sample
_MAX_LISTED = 3  # files in a message


def find_duplicates(
    checked: Sequence[tuple[Splits, CheckedSample]], train_split: str, eval_split: str
) -> list[Finding]:
    """Images with the same pixels, whatever their names and formats; an error if training and evaluation share them."""
    groups: dict[bytes, list[tuple[Splits, CheckedSample]]] = {}
    for splits, sample in checked:
        if sample.image_hash is not None:
            groups.setdefault(sample.image_hash, []).append((splits, sample))
    return [_duplicates(group, train_split, eval_split) for group in groups.values() if len(group) > 1]


def find_repeats(samples: Mapping[str, Sequence[Sample]]) -> list[Finding]:
    """Splits that list a sample more than once."""
    findings = []
    for split, listed in samples.items():
        for sample, count in collections.Counter(listed).items():
            if count > 1:
                message = f"{sample.image}: is listed {count} times in split '{split}'; take it off all but once"
                findings.append(Finding("duplicate_image", str(sample.image), message, splits=(split,)))
    return findings


def find_overlaps(listed: Sequence[Splits], train_split: str, eval_split: str) -> list[Finding]:
    """Pairs of splits that list the same files, as 'trainval' does; an error for training and evaluation."""
    shared: dict[tuple[str, str], int] = {}
    for splits in listed:
        for pair in itertools.combinations(splits, 2):
            shared[pair] = shared.get(pair, 0) + 1
    findings = []
    for (one, other), count in shared.items():
        name = f"{one}, {other}"
        if {one, other} == {train_split, eval_split}:
            message = f"{name}: {count} images are in both splits, so scores would flatter; take them off one list"
            findings.append(Finding("shared_image", name, message, splits=(one, other)))
        else:
            message = f"{name}: {count} images are in both splits"
            findings.append(Finding("overlap", name, message, splits=(one, other)))
    return findings


def check_classes(
    counts: Mapping[str, ClassCounts], info: DatasetInfo, train_split: str, eval_split: str, legend: Legend | None
) -> list[Finding]:
    """Classes that training would never see, that are evaluated but never trained, or absent from a split."""
    absent = {
        split: {name for name, pixels in zip(info.class_names, counts[split].pixels, strict=True) if not pixels}
        for split in dict.fromkeys((train_split, eval_split))
        if split in counts and counts[split].num_images
    }
    findings = []
    if train_split in absent:
        found = counts[train_split]
        pixels = LabelPixels(found.pixels, found.num_ignored, found.num_labelled)
        if message := describe_vanished(pixels, info, train_split, legend):
            findings.append(Finding("vanished_class", train_split, message, splits=(train_split,)))
    unseen = absent.get(train_split, set()) - absent.get(eval_split, set(info.class_names))
    if unseen:
        message = (
            f"{train_split}: never shows {_in_order(unseen, info)}, which '{eval_split}' does: no network can learn it"
        )
        findings.append(Finding("unseen_class", train_split, message, splits=(train_split, eval_split)))
    for split, names in absent.items():
        if names:
            message = f"{split}: never shows {_in_order(names, info)}"
            findings.append(Finding("absent_class", split, message, splits=(split,)))
    return findings


def check_channels(statistics: Mapping[str, ChannelStatistics]) -> list[Finding]:
    """Channels that are constant over a whole split."""
    return [
        Finding(
            "constant_channel",
            split,
            f"{split}: channel {channel} (counted from 0) is {found.low[channel]:g} in all images; leave it out",
            splits=(split,),
        )
        for split, found in statistics.items()
        for channel in np.flatnonzero((found.count > 0) & (found.low == found.high)).tolist()
    ]


def _duplicates(group: Sequence[tuple[Splits, CheckedSample]], train_split: str, eval_split: str) -> Finding:
    every = tuple(dict.fromkeys(split for splits, _ in group for split in splits))
    (splits, first), *others = group
    listed = ", ".join(f"{other.file} ({'/'.join(where)})" for where, other in others[:_MAX_LISTED])
    more = f" and {len(others) - _MAX_LISTED} more" if len(others) > _MAX_LISTED else ""
    masks = {sample.mask_hash for _, sample in group if sample.mask_hash is not None}
    differing = ", but their masks differ" if len(masks) > 1 else ""
    message = f"{first.file} ({'/'.join(splits)}): is the same picture as {listed}{more}{differing}"
    if train_split != eval_split and {train_split, eval_split} <= set(every):
        message = f"{message}; take it off one list: scores on pictures that were trained on flatter"
        return Finding("shared_image", first.file, message, splits=every)
    return Finding("duplicate_image", first.file, message, splits=every)


def _in_order(names: set[str], info: DatasetInfo) -> str:
    return ", ".join(name for name in info.class_names if name in names)
