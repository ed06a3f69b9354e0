"""Compares two runs: comparison.html, a self-contained page, and the same data in comparison.json."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax import visualize
from deeplab_jax.apps import import_weights
from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.assembly.records import read_images, read_object, read_scores
from deeplab_jax.apps.assembly.workdir import CONFIG_FILE, DATASET_FILE
from deeplab_jax.apps.pages.charts import data_uri
from deeplab_jax.apps.pages.run_report import render_page
from deeplab_jax.apps.pages.score_table import class_rows
from deeplab_jax.config import Config, DataConfig, differences, from_dict
from deeplab_jax.data.dataset import example_name
from deeplab_jax.files import write_whole
from deeplab_jax.inference.predictor import Segmenter, make_segmenter
from deeplab_jax.inference.protocols import as_described
from deeplab_jax.palettes import voc_palette
from deeplab_jax.types import DatasetInfo, Example, UserError

NUM_CHANGED = 4  # number of images that gained most, and of those that lost most
PANELS = ("image", "prediction 1", "errors 1", "truth", "prediction 2", "errors 2")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run as recorded in its workdir."""

    name: str
    workdir: pathlib.Path
    settings: Mapping[str, Any]  # config.json
    scores: Mapping[str, Any]
    per_image: Mapping[str, float]  # mean IoU by name, of images that have one


@dataclasses.dataclass(frozen=True, slots=True)
class ClassChange:
    """IoU of one class in both runs; None if it is absent."""

    name: str
    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclasses.dataclass(frozen=True, slots=True)
class ImageChange:
    """Mean IoU of one image in both runs; panels are data URIs in the order of PANELS, empty if it cannot be drawn."""

    name: str
    first: float
    second: float
    panels: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Second minus first."""
        return self.second - self.first


def compare(workdirs: Sequence[pathlib.Path], output: pathlib.Path, data: DataConfig | None = None) -> None:
    """Writes comparison.html and comparison.json to the folder `output`.

    Args:
      workdirs: of two evaluated runs.
      data: where the images are; None: as in the second run.

    Raises:
      UserError: if there are not two workdirs, one has no scores, or their classes differ.
    """
    if len(workdirs) != 2:
        raise UserError(f"--compare: takes two workdirs, got {len(workdirs)}: --compare DIR1 DIR2")
    first, second = (read_run(workdir) for workdir in workdirs)
    if first.name == second.name:
        first, second = (dataclasses.replace(run, name=str(run.workdir)) for run in (first, second))
    if list(first.scores["iou_per_class"]) != list(second.scores["iou_per_class"]):
        raise UserError(f"--compare: {first.workdir} and {second.workdir} were scored on other classes")
    gained, lost = changed_most(image_changes(first, second), NUM_CHANGED)
    why_no_pictures = ""
    try:
        gained, lost = draw(first, second, gained, data), draw(first, second, lost, data)
    except UserError as error:
        why_no_pictures = f"{error}. A --config with its data set says where the images are."
    classes = class_changes(first, second)
    write_whole(
        output / "comparison.html",
        render_page(
            "compare_template.html.jinja",
            first=first,
            second=second,
            classes=classes,
            colors=_colors(second),
            fractions=[row.pixel_fraction for row in class_rows(second.scores)],
            widest=max((abs(row.change) for row in classes if row.change), default=1.0),
            gained=gained,
            lost=lost,
            num_images=len(image_changes(first, second)),
            settings=_settings_that_differ(first, second),
            protocols=differences(first.scores["protocol"], second.scores["protocol"]),
            panel_names=PANELS,
            why_no_pictures=why_no_pictures,
        ),
    )
    write_whole(output / "comparison.json", json.dumps(to_json(first, second), indent=1) + "\n")
    print(f"wrote {output / 'comparison.html'}")


def read_run(workdir: pathlib.Path) -> Run:
    """Reads a run from its workdir.

    Raises:
      UserError: if it was not evaluated.
    """
    scores = read_scores(workdir / "scores.json")
    if scores is None:
        raise UserError(f"--compare: {workdir} holds no scores.json; write it with --mode=evaluate --workdir={workdir}")
    rows = read_images(workdir / "per_image.json")
    return Run(
        name=workdir.name,
        workdir=workdir,
        settings=read_object(workdir / CONFIG_FILE, "restore it") or {},
        scores=scores,
        per_image={row["name"]: row["mean_iou"] for row in rows if row["mean_iou"] is not None},
    )


def class_changes(first: Run, second: Run) -> list[ClassChange]:
    """IoU per class in both, in the order of the class ids."""
    return [
        ClassChange(name, iou, second.scores["iou_per_class"][name])
        for name, iou in first.scores["iou_per_class"].items()
    ]


def image_changes(first: Run, second: Run) -> list[ImageChange]:
    """The images that both runs were scored on."""
    return [
        ImageChange(name, value, second.per_image[name])
        for name, value in first.per_image.items()
        if name in second.per_image
    ]


def changed_most(changes: Sequence[ImageChange], count: int) -> tuple[list[ImageChange], list[ImageChange]]:
    """(the `count` images that gained most, those that lost most), without unchanged ones."""
    ranked = sorted(changes, key=lambda row: row.change)
    lost = [row for row in ranked[:count] if row.change < 0]
    gained = [row for row in ranked[::-1][:count] if row.change > 0]
    return gained, lost


def to_json(first: Run, second: Run) -> dict[str, Any]:
    """The page's numbers, without its images."""
    keys = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "confidence_interval")
    return {
        "runs": [
            {"workdir": str(run.workdir), **{key: run.scores.get(key) for key in keys}} for run in (first, second)
        ],
        "iou_per_class": {row.name: [row.first, row.second] for row in class_changes(first, second)},
        "per_image": {row.name: [row.first, row.second] for row in image_changes(first, second)},
        "settings": _settings_that_differ(first, second),
        "protocol": differences(first.scores["protocol"], second.scores["protocol"]),
    }


def draw(first: Run, second: Run, changes: Sequence[ImageChange], data: DataConfig | None = None) -> list[ImageChange]:
    """`changes` with their panels.

    Raises:
      UserError: if the images are not available, or a network cannot be loaded.
    """
    if not changes:
        return []
    config = run_config(second)
    config.data = data or config.data
    dataset = open_data.open_normalized(config, second.workdir)
    source = dataset.open_split(config.data.eval_split)
    index_of = {example_name(source, index): index for index in range(len(source))}
    segmenters = [_segmenter(run) for run in (first, second)]
    return [
        dataclasses.replace(row, panels=draw_panels(source[index_of[row.name]], segmenters, dataset.info))
        if row.name in index_of
        else row
        for row in changes
    ]


def run_config(run: Run) -> Config:
    """The config of the run's network, with the evaluation protocol of its scores.

    Raises:
      UserError: if the workdir does not hold it.
    """
    if not run.settings:
        raise UserError(f"{run.workdir} holds no {CONFIG_FILE}")
    config = import_weights.adopt_model(from_dict(run.settings), run.workdir, {})
    protocol = run.scores["protocol"]
    config.model.output_stride = protocol.get("output_stride", config.model.output_stride)
    config.inference = as_described(config.inference, protocol)
    return config


def draw_panels(example: Example, segmenters: Sequence[Segmenter], info: DatasetInfo) -> tuple[str, ...]:
    """PANELS of one example as data URIs."""
    image = visualize.as_rgb(example.image)

    def tinted(ids: np.ndarray) -> np.ndarray:
        return visualize.overlay(image, ids, info.palette, ignore_label=info.ignore_label)

    first, second = (segment(example.image)() for segment in segmenters)
    wrong = [visualize.error_map(example.label, ids, ignore_label=info.ignore_label) for ids in (first, second)]
    panels = (image, tinted(first), wrong[0], tinted(example.label), tinted(second), wrong[1])
    return tuple(data_uri(panel) for panel in panels)


def _segmenter(run: Run) -> Segmenter:
    config = network.for_inference(run_config(run))
    info = open_data.find_info(config, run.workdir)
    model = network.build(config, info)
    variables = network.load_variables(config, model, run.workdir)
    return make_segmenter(model.apply, variables, predictor_options(config, info))


def _settings_that_differ(first: Run, second: Run) -> list[str]:
    return differences(first.settings, second.settings) if first.settings and second.settings else []


def _colors(run: Run) -> list[list[int]]:
    """RGB of each class, from the workdir, else VOC's."""
    known = (read_object(run.workdir / DATASET_FILE, "remove it") or {}).get("palette")
    num_classes = len(run.scores["iou_per_class"])
    return known if known and len(known) == num_classes else [list(color) for color in voc_palette(num_classes)]
