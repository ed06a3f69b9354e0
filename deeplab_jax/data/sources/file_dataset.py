"""Data sets of image and mask files: lists of samples per split -> a `Dataset` that prepares splits on opening."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from deeplab_jax.data.dataset import Dataset, Originals
from deeplab_jax.data.sources.fingerprint import fingerprint_of
from deeplab_jax.data.sources.legend import Legend, legend_of_ids
from deeplab_jax.data.sources.prepare import PreparedSource, prepare
from deeplab_jax.data.sources.samples import ReadCodes, Sample, read_sample
from deeplab_jax.types import DatasetInfo, UserError


def file_dataset(
    info: DatasetInfo,
    splits: Mapping[str, Sequence[Sample]],
    *,
    prepared_dir: str,
    id_map: Mapping[int, int] | None = None,
    legend: Legend | None = None,
    read_ids: ReadCodes | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """A data set whose splits are prepared, and so checked, when they are opened.

    Args:
      info: the data set's metadata; its splits are replaced by `splits`.
      splits: split name -> its samples, in order.
      prepared_dir: see `prepare`.
      id_map: value in an original mask -> class id or ignore label; None: the values are class ids.
      legend: what the masks hold, if more than such values: then there is no `id_map`.
      read_ids: sample -> the codes in its mask, if they are not simply a file's pixels; called in threads.
      notes: what was found, assumed and left out, a line each.
    """
    info = dataclasses.replace(info, splits={split: len(samples) for split, samples in splits.items()})
    meaning = legend or legend_of_ids(info, id_map)

    def open_split(split: str) -> PreparedSource:
        samples = splits[require_split(info, split)]
        return prepare(
            info,
            split,
            num_records=len(samples),
            make_record=lambda index: read_sample(samples[index], info, meaning, read_ids),
            fingerprint=fingerprint_of(samples, info, meaning, split, prepared_dir=prepared_dir),
            prepared_dir=prepared_dir,
        )

    return Dataset(info, functools.cache(open_split), Originals(splits, meaning, read_ids), tuple(notes))


def require_split(info: DatasetInfo, split: str) -> str:
    """Returns `split`; raises UserError, naming the splits that exist, if it is unknown or empty."""
    existing = ", ".join(f"{name} ({count})" for name, count in info.splits.items() if count) or "none"
    if split not in info.splits:
        raise UserError(f"{info.name}: has no split '{split}'; its splits and their sizes: {existing}")
    if not info.splits[split]:
        raise UserError(f"{info.name}: split '{split}' is empty; add images to it or take another of: {existing}")
    return split
