"""Data sets of image and mask files: lists of samples per split -> a `Dataset` that prepares splits on opening."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm

from deeplab_jax.data.dataset import Dataset, Originals
from deeplab_jax.data.sources.fingerprint import fingerprint_of
from deeplab_jax.data.sources.legend import Legend, legend_of_ids
from deeplab_jax.data.sources.orientation_survey import OrientationSurvey, survey_orientation
from deeplab_jax.data.sources.prepare import PreparedSource, prepare
from deeplab_jax.data.sources.reading import FileReading, Reading
from deeplab_jax.data.sources.samples import ReadCodes, Sample, pair_of, read_mask, read_sample
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
    declared: Reading | None = None,
    root: pathlib.Path | None = None,
    settings: Iterable[pathlib.Path] = (),
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
      declared: how files are read where more than one way is right; None: as `Reading()`.
      root: the folder that holds nothing but this data set; None: there is none.
      settings: further files in `root` that were read, or may be.
    """
    info = dataclasses.replace(info, splits={split: len(samples) for split, samples in splits.items()})
    meaning = legend or legend_of_ids(info, id_map)
    declared = declared or Reading()

    def survey() -> OrientationSurvey:
        every = dict.fromkeys(sample for samples in splits.values() for sample in samples)
        read_codes = read_ids or functools.partial(read_mask, legend=meaning)
        return survey_orientation([pair_of(sample, read_codes) for sample in every])

    reading = FileReading(declared, survey, lambda line: tqdm.write(f"{info.name}: {line}", file=sys.stderr))

    def open_split(split: str) -> PreparedSource:
        samples = splits[require_split(info, split)]
        return prepare(
            info,
            split,
            num_records=len(samples),
            make_record=lambda index: read_sample(samples[index], info, meaning, read_ids, reading),
            fingerprint=fingerprint_of(samples, info, meaning, split, prepared_dir=prepared_dir, declared=declared),
            prepared_dir=prepared_dir,
        )

    originals = Originals(splits, meaning, read_ids, reading, root, frozenset(settings))
    return Dataset(info, functools.cache(open_split), originals, tuple(notes))


def require_split(info: DatasetInfo, split: str) -> str:
    """Returns `split`; raises UserError, naming the splits that exist, if it is unknown or empty."""
    existing = ", ".join(f"{name} ({count})" for name, count in info.splits.items() if count) or "none"
    if split not in info.splits:
        slices = (
            "; slices of splits are not taken: list the images in splits/NAME.txt of a data set folder, which "
            "--mode=lint --output=NEW_FOLDER writes"
        )
        raise UserError(
            f"{info.name}: has no split '{split}'; its splits and their sizes: {existing}" + slices * ("[" in split)
        )
    if not info.splits[split]:
        raise UserError(f"{info.name}: split '{split}' is empty; add images to it or take another of: {existing}")
    return split
