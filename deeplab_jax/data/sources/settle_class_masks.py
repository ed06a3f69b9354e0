"""Finds the masks of classes that may overlap, and decides which of their values say that a class is there."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from deeplab_jax.data.sources.class_files import Classes
from deeplab_jax.data.sources.class_masks import ClassMasks, read_class_masks
from deeplab_jax.data.sources.find_pairs import FoundSamples, find_splits
from deeplab_jax.data.sources.legend import MISSING, TRUE, Legend, count_codes, name_of
from deeplab_jax.data.sources.mask_codes import channel_codes
from deeplab_jax.data.sources.mask_declaration import MaskDeclaration, meaning_of
from deeplab_jax.data.sources.samples import Sample, read_bytes
from deeplab_jax.data.sources.settle_masks import SettledMasks
from deeplab_jax.data.workers import each
from deeplab_jax.types import UserError

_STATES = ("absent", "present")
_WHITE = 255
_NUM_SURVEYED = 50  # images whose masks are looked at, at most


def find_class_masks(
    folder: pathlib.Path, classes: Classes, told: MaskDeclaration
) -> tuple[FoundSamples, SettledMasks]:
    """The samples of a folder of masks for each class, and what their values mean.

    Raises:
      UserError: if there are none, a class lacks its mask, or the values can be understood in several ways.
    """
    if not classes.names:
        raise UserError(f'{folder}: has "task": "multilabel" and no class names; write them into classes.json')
    gathered = ClassMasks(classes.names)
    found = find_splits(folder, classes=gathered)
    splits = {
        split: [gathered.sample(sample, folder, may_lack=told.may_lack_masks) for sample in samples]
        for split, samples in found.splits.items()
    }
    samples = [sample for listed in splits.values() for sample in listed]
    legend, note = _legend(folder, classes, told, samples)
    how = "a file" if any(sample.parts for sample in samples) else "a channel"
    notes = (f"multilabel: {how} for each of {len(classes.names)} classes, which may overlap; {note}",)
    read_codes = functools.partial(read_class_masks, legend=legend, names=classes.names)
    return FoundSamples(splits, found.notes), SettledMasks(classes, "multilabel", legend, notes, read_codes)


def _legend(
    folder: pathlib.Path, classes: Classes, told: MaskDeclaration, samples: Sequence[Sample]
) -> tuple[Legend, str]:
    ignore_label = classes.ignore_label
    if told.values is not None or told.threshold is not None:
        states = {0: 0, 1: 1} if told.values is None else told.values
        meaning = {TRUE: 1, **meaning_of(states, _STATES, ignore_label), MISSING: ignore_label}
        return Legend(meaning, ignore_label, told.threshold), "as classes.json says"
    chosen = sorted({int(index) for index in np.linspace(0, len(samples) - 1, _NUM_SURVEYED)}) if samples else []
    planes = [codes for found in each(_look, [samples[index] for index in chosen]) for codes in found]
    values = frozenset[int]().union(*planes)
    remedy = (
        'write "values": {"0": "absent", "1": "present", "255": "ignore"} into classes.json, with all values that occur'
    )
    if not values <= {0, 1, _WHITE, TRUE, ignore_label}:
        strange = ", ".join(name_of(value) for value in sorted(values - {0, 1, _WHITE, TRUE})[:5])
        raise UserError(
            f"{folder}: its masks of single classes hold {strange} beside what says absent or present; {remedy}"
        )
    if 1 in values and _WHITE in values and not told.has_ignore and not any({1, _WHITE} <= codes for codes in planes):
        raise UserError(f"{folder}: some of its masks hold 1, others 255, none both; {remedy}")
    present = 1 if 1 in values or (told.has_ignore and ignore_label == _WHITE) else _WHITE
    meaning = {0: 0, present: 1, TRUE: 1, MISSING: ignore_label}
    meaning.setdefault(ignore_label, ignore_label)
    seen = present if present in values else "a set bit"
    ignored = f", {ignore_label} is ignored" if meaning[ignore_label] == ignore_label and ignore_label in values else ""
    return Legend(meaning, ignore_label, hint=remedy), f"{seen} says that it is there{ignored}"


def _look(sample: Sample) -> list[frozenset[int]]:
    """The codes of each class of a sample; none where they cannot be read, which is told when all are."""
    blank = Legend({}, 0)
    planes = []
    for path in sample.parts or (sample.mask,):
        try:
            data = read_bytes(path) if path else b""
            codes = channel_codes(data, blank, str(path)) if data else np.zeros((1, 1, 1), np.uint8)
        except UserError:
            continue
        planes += [frozenset(count_codes(codes[..., channel])[0]) for channel in range(codes.shape[2])]
    return planes
