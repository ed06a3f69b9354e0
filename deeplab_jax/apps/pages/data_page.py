"""The linter's page: lint.html shows samples with their masks, the classes, and what training will see."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_jax import visualize
from deeplab_jax.apps.assembly.image_kind import pad_pixel
from deeplab_jax.apps.pages.charts import data_uri
from deeplab_jax.apps.pages.run_report import render_page
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset, Originals
from deeplab_jax.data.inspection.lint_findings import KINDS
from deeplab_jax.data.inspection.linter import LintReport
from deeplab_jax.data.loading.loader import make_loader
from deeplab_jax.data.sources.bands import decode_pixels
from deeplab_jax.data.sources.samples import Sample, read_sample
from deeplab_jax.data.sources.stored_labels import decode_label
from deeplab_jax.files import write_whole
from deeplab_jax.types import Batch, DatasetInfo, Example, UserError

PAGE_FILE = "lint.html"  # inside a workdir
_NUM_SAMPLES, _NUM_CROPS = 8, 8  # of each split, and of training
_NUM_FINDINGS = 10  # of a kind
_LONGEST = 360  # pixels of a picture's longer side


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An image beside itself with its mask, as data URIs."""

    title: str
    image: str
    masked: str


def write_page(report: LintReport, dataset: Dataset, config: Config, workdir: pathlib.Path) -> None:
    """Writes lint.html; what cannot be read is among the findings, and left out of the pictures.

    Raises:
      UserError: if the workdir cannot be written.
    """
    names = dict.fromkeys((config.data.train_split, config.data.eval_split))
    findings = [
        (*KINDS[kind], list(group)) for kind, group in itertools.groupby(report.findings, key=lambda found: found.kind)
    ]
    samples = {split: list(_read_some(dataset, split)) for split in names if split in dataset.info.splits}
    crops, no_crops = list[Picture](), ""
    try:
        crops = _crops(samples.get(config.data.train_split, []), dataset, config)
    except UserError as error:
        no_crops = str(error)
    page = render_page(
        "data_template.html.jinja",
        info=dataset.info,
        root=config.data.root,
        num_samples=report.num_samples,
        findings=findings,
        num_findings=_NUM_FINDINGS,
        counts={split: report.counts[split] for split in names if split in report.counts},
        samples={split: [_picture(each, dataset.info) for each in found] for split, found in samples.items()},
        crops=crops,
        no_crops=no_crops,
        crop_size=config.data.crop_size,
        ignore_color=visualize.IGNORE_COLOR,
    )
    write_whole(workdir / PAGE_FILE, page)


def _read_some(dataset: Dataset, split: str) -> Iterator[Example]:
    """Samples from all over the split, from the original files if there are any: the others may have faults."""
    originals = dataset.originals
    files = originals.samples[split] if originals else ()
    source = None if originals else dataset.open_split(split)
    count = len(files if source is None else source)
    for index in np.linspace(0, count - 1, min(_NUM_SAMPLES, count)).astype(int).tolist():
        with contextlib.suppress(UserError):
            if originals is None:
                assert source is not None
                yield source[index]
            else:
                yield _read_example(files[index], originals, dataset.info)


def _read_example(sample: Sample, originals: Originals, info: DatasetInfo) -> Example:
    record = read_sample(sample, info, originals.legend, originals.read_codes, originals.reading)
    image = decode_pixels(record.image, record.name, info)
    return Example(record.name, image, decode_label(record.label, record.name, info, record.size))


def _crops(samples: Sequence[Example], dataset: Dataset, config: Config) -> list[Picture]:
    """Crops of these samples as training would make them; raises UserError if it cannot."""
    if not samples:
        raise UserError("none of the samples could be read")
    data = dataclasses.replace(config.data, batch_size=_NUM_CROPS, device_augmentation=False)
    pad = pad_pixel(config, dataset.info)
    with make_loader(data, samples, dataset.info, seed=config.seed, pad_pixel=pad) as loader:
        batch, names = next(iter(loader)), loader.names_at(0)
    assert isinstance(batch, Batch)
    crops = zip(names, batch.image, batch.label, strict=True)
    return [_picture(Example(name, image, label), dataset.info) for name, image, label in crops]


def _picture(example: Example, info: DatasetInfo) -> Picture:
    image, (height, width) = visualize.as_rgb(example.image), example.label.shape[:2]
    masked = visualize.overlay(image, example.label, info.palette, ignore_label=info.ignore_label)
    if example.label.ndim == 2:  # an overlay shows ignored pixels as the image has them
        masked = np.where(
            (example.label == info.ignore_label)[..., None], np.asarray(visualize.IGNORE_COLOR, np.uint8), masked
        )
    title = f"{example.name}, {height}x{width}"
    return Picture(title, data_uri(image, max_side=_LONGEST), data_uri(masked, max_side=_LONGEST))
