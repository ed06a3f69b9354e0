"""The report of a run: report.html, a self-contained page, and the same data in report.json."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jinja2
import numpy as np

from deeplab_jax import visualize
from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.devices import make_mesh
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.assembly.records import read_images, read_metrics, read_object, read_scores
from deeplab_jax.apps.pages.charts import data_uri, line_chart, reliability_chart
from deeplab_jax.apps.pages.score_table import ClassRow, class_rows
from deeplab_jax.config import Config, to_dict
from deeplab_jax.data.dataset import example_name
from deeplab_jax.files import write_whole
from deeplab_jax.inference.predictor import Segmenter, make_segmenter
from deeplab_jax.metrics.confusion import outcomes
from deeplab_jax.types import DatasetInfo, Example, ExampleSource

NUM_EXAMPLES = 4  # number of best images, and of worst ones
NUM_CONFUSIONS = 6
PANELS = ("image", "truth", "prediction", "errors")


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """A metric over training steps."""

    name: str
    steps: list[int]
    values: list[float]


@dataclasses.dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels of one class predicted as another."""

    truth: str
    prediction: str
    fraction: float  # of the true class's pixels, in [0, 1]


@dataclasses.dataclass(frozen=True, slots=True)
class ShownImage:
    """One image of the evaluation split; panels are data URIs in the order of PANELS."""

    name: str
    mean_iou: float
    panels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """Everything that the page shows; None or empty if the workdir does not hold it."""

    config: Config
    info: DatasetInfo
    curves: list[Curve]
    num_steps: int | None  # trained so far
    seconds: float | None  # of training
    scores: Mapping[str, Any] | None
    best: list[ShownImage]
    worst: list[ShownImage]
    protocols: Mapping[str, Any] | None = None  # protocols.json


def report(config: Config, workdir: pathlib.Path) -> None:
    """Writes report.html and report.json from the workdir; the page says what is missing.

    With several processes, all must restore the checkpoint together; the first does the rest, on one device.

    Raises:
      UserError: if the workdir holds no checkpoint or cannot be written.
    """
    dataset = open_data.open_normalized(config, workdir)
    model = network.build(network.for_inference(config), dataset.info)
    mesh = make_mesh(config) if jax.process_count() > 1 else None
    variables = network.load_variables(config, model, workdir, "", mesh)
    if jax.process_index() != 0:
        return
    if mesh is not None:
        variables = jax.tree.map(lambda copies: copies.addressable_data(0), variables)
    segment = make_segmenter(model.apply, variables, predictor_options(config, dataset.info))

    lines = read_metrics(workdir / "metrics.jsonl")
    best, worst = best_and_worst(read_images(workdir / "per_image.json"), NUM_EXAMPLES)
    source = dataset.open_split(config.data.eval_split)
    content = Content(
        config=config,
        info=dataset.info,
        curves=curves_of(lines),
        num_steps=max((line["step"] for line in lines), default=None),
        seconds=training_seconds(lines, config.data.batch_size),
        scores=read_scores(workdir / "scores.json"),
        best=draw_samples(segment, source, best, dataset.info),
        worst=draw_samples(segment, source, worst, dataset.info),
        protocols=read_object(workdir / "protocols.json"),
    )
    write_report(content, workdir)
    print(f"wrote {workdir / 'report.html'}")


def curves_of(lines: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """Loss, mean IoU, learning rate and images/s over the steps, as far as recorded."""
    curves = {name: Curve(name, [], []) for name in ("loss", "mean_iou", "learning_rate", "images_per_second")}
    for line in lines:
        for name, value in {**line, **line.get("evaluation", {})}.items():
            if name in curves and value is not None:
                curves[name].steps.append(line["step"])
                curves[name].values.append(float(value))
    return [curve for curve in curves.values() if curve.steps]


def training_seconds(lines: Iterable[Mapping[str, Any]], batch_size: int) -> float | None:
    """Time spent in steps, from the recorded throughput: the sum of images / (images/s). None if there is none."""
    seconds, last_step = 0.0, 0
    for line in lines:
        if line.get("images_per_second"):
            seconds += (line["step"] - last_step) * batch_size / line["images_per_second"]
            last_step = line["step"]
    return seconds if last_step else None


def best_and_worst(
    per_image: Iterable[Mapping[str, Any]], count: int
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The `count` images with the highest and the lowest mean IoU, the most extreme first; none is in both."""
    ranked = sorted((row for row in per_image if row["mean_iou"] is not None), key=lambda row: -row["mean_iou"])
    num_best = min(count, -(-len(ranked) // 2))
    num_worst = min(count, len(ranked) - num_best)
    return ranked[:num_best], ranked[len(ranked) - num_worst :][::-1]


def draw_samples(
    segment: Segmenter, source: ExampleSource, rows: Sequence[Mapping[str, Any]], info: DatasetInfo
) -> list[ShownImage]:
    """Predicts and draws the images that `rows` ({'name', 'mean_iou'}) name, in their order.

    Images that the split no longer holds are left out.
    """
    index_of = {example_name(source, index): index for index in range(len(source))} if rows else {}
    return [
        ShownImage(row["name"], row["mean_iou"], draw_panels(source[index_of[row["name"]]], segment, info))
        for row in rows
        if row["name"] in index_of
    ]


def draw_panels(example: Example, segment: Segmenter, info: DatasetInfo) -> tuple[str, ...]:
    """Image, truth, prediction and errors of one example as data URIs."""
    image, prediction = visualize.as_rgb(example.image), segment(example.image)()
    panels = (
        image,
        visualize.overlay(image, example.label, info.palette, ignore_label=info.ignore_label),
        visualize.overlay(image, prediction, info.palette, ignore_label=info.ignore_label),
        visualize.error_map(example.label, prediction, ignore_label=info.ignore_label),
    )
    return tuple(data_uri(panel) for panel in panels)


def largest_confusions(scores: Mapping[str, Any], count: int) -> list[Confusion]:
    """The `count` (truth, prediction) pairs with the largest fraction of the true class's pixels confused."""
    fractions = normalized_confusion(scores)
    if not fractions.size:
        return []
    np.fill_diagonal(fractions, 0)
    names = list(scores["iou_per_class"])
    order = np.argsort(-fractions, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, fractions.shape), strict=True)
    return [Confusion(names[i], names[k], float(fractions[i, k])) for i, k in pairs if fractions[i, k] > 0]


def normalized_confusion(scores: Mapping[str, Any]) -> np.ndarray:
    """The confusion matrix with rows that sum to one, or to zero for classes absent from the truth.

    Classes that overlap are not taken for each other: empty.
    """
    confusion = np.asarray(scores["confusion"], np.float64)
    if confusion.ndim == 3:
        return np.zeros((0, 0))
    return confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)


def never_predicted(scores: Mapping[str, Any]) -> list[str]:
    """Classes that occur in the truth and are never predicted."""
    confusion = np.asarray(scores["confusion"], np.int64)
    _, truth, predicted, _ = outcomes(confusion, maps=confusion.ndim == 3)
    missed = (truth > 0) & (predicted == 0)
    return [name for name, is_missed in zip(scores["iou_per_class"], missed, strict=True) if is_missed]


def write_report(content: Content, workdir: pathlib.Path) -> None:
    """Writes the page and its data, each atomically.

    Raises:
      UserError: if the workdir cannot be written.
    """
    write_whole(workdir / "report.html", render(content))
    write_whole(workdir / "report.json", json.dumps(to_json(content), indent=1) + "\n")


def to_json(content: Content) -> dict[str, Any]:
    """The page's numbers, without its images."""
    scores = content.scores
    return {
        "num_steps": content.num_steps,
        "training_seconds": content.seconds,
        "scores": scores,
        "protocols": content.protocols,
        "largest_confusions": [dataclasses.asdict(pair) for pair in largest_confusions(scores, NUM_CONFUSIONS)]
        if scores
        else [],
        "curves": {curve.name: {"steps": curve.steps, "values": curve.values} for curve in content.curves},
        "best": [{"name": sample.name, "mean_iou": sample.mean_iou} for sample in content.best],
        "worst": [{"name": sample.name, "mean_iou": sample.mean_iou} for sample in content.worst],
        "config": to_dict(content.config),
    }


def render(content: Content) -> str:
    """The page as HTML."""
    scores = content.scores
    rows: list[ClassRow] = class_rows(scores) if scores else []
    return render_page(
        "report_template.html.jinja",
        content=content,
        scores=scores,
        boundary=(scores or {}).get("boundary_iou"),
        overlap=(scores or {}).get("overlap"),
        surface=(scores or {}).get("surface"),
        speed=(scores or {}).get("speed"),
        interval=(scores or {}).get("confidence_interval", {}).get("mean_iou"),
        class_rows=rows,
        present=[k for k, row in enumerate(rows) if row.iou is not None],
        confusion=normalized_confusion(scores).tolist() if scores else [],
        largest_confusions=largest_confusions(scores, NUM_CONFUSIONS) if scores else [],
        never_predicted=never_predicted(scores) if scores else [],
        charts=[(curve, _chart(curve)) for curve in content.curves],
        trimap_chart=_trimap_chart(scores or {}),
        reliability_chart=_reliability_chart(scores or {}),
        protocols=content.protocols,
        panel_names=PANELS,
        ignore_color=visualize.IGNORE_COLOR,
        settings=_flat(to_dict(content.config)),
    )


def render_page(template: str, **values: Any) -> str:
    """A Jinja template of this folder with these values; what is no text in a file's name is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values).encode("utf-8", "backslashreplace").decode()


def _trimap_chart(scores: Mapping[str, Any]) -> str | None:
    curve = scores.get("trimap")
    if not curve or all(value is None for value in curve["mean_iou"]):
        return None
    values = [math.nan if value is None else value for value in curve["mean_iou"]]
    return line_chart(curve["widths"], values, label="distance from a boundary, pixels")


def _reliability_chart(scores: Mapping[str, Any]) -> str | None:
    found = scores.get("calibration")
    return reliability_chart(found["bins"]) if found and found["ece"] is not None else None


def _chart(curve: Curve) -> str:
    is_rare = curve.name == "mean_iou"
    return line_chart(curve.steps, curve.values, marker=is_rare, from_zero=curve.name != "learning_rate")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of each setting."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat
