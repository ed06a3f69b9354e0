"""Searches the CRF's appearance kernel on a part of the evaluation split, coarse to fine (DeepLab v2, sec. 4.1.1).

The network runs once per image; its probabilities, and the score of each setting, are stored in the workdir, so that
an interrupted search resumes where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.crf_settings import setting_to_dict
from deeplab_jax.apps.assembly.kept_probabilities import (
    KeptProbabilities,
    digest_of_network,
    keep_probabilities,
    open_folder,
)
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.request import CHECKPOINT, Needs, Request
from deeplab_jax.config import Config, CRFSearchConfig
from deeplab_jax.files import write_whole
from deeplab_jax.inference.crf import refine
from deeplab_jax.inference.predictor import make_predictor
from deeplab_jax.metrics.confusion import confusion_matrix, scores
from deeplab_jax.ops.crf.parameters import CRFParams, CRFPreset
from deeplab_jax.types import DatasetInfo, UserError

RESULT_FILE = "crf_search.json"  # inside a workdir; a value of config.inference.crf
_FOLDER = "crf_search"  # inside a workdir: stored probabilities and scores
_NUM_SHOWN = 10  # lines of the table


FLAGS = (CHECKPOINT,)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    crf_search(request.config, request.workdir, **request.flags)
    return 0


class Point(NamedTuple):
    """A point of the search: w1, sigma_alpha and sigma_beta of the papers."""

    bi_w: float
    bi_xy_std: float
    bi_rgb_std: float


def crf_search(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> None:
    """Finds the CRF that gives a checkpoint the best mean IoU, prints a table and writes crf_search.json.

    Raises:
      UserError: if there is no checkpoint, the workdir cannot be written, or there are several processes.
    """
    if jax.process_count() > 1:
        raise UserError("--mode=crf-search runs in one process: start it on one host")
    settings = config.crf_search
    dataset = open_data.open_normalized(config, workdir)
    model = network.build(config, dataset.info)
    variables = network.load_variables(config, model, workdir, checkpoint)
    options = dataclasses.replace(predictor_options(config, dataset.info), crf=None)
    source = dataset.open_split(config.data.eval_split)
    indices = evenly_spaced(len(source), settings.num_images)
    folder = open_folder(workdir / _FOLDER, digest_of_network(config, variables))
    kept = keep_probabilities(folder, make_predictor(model.apply, variables, options), source, indices)
    scorer = _Scorer(folder / "scores.json", kept, config.inference.canvas.around, dataset.info)

    plain = scorer.score(None)
    found = search(settings, lambda points: [scorer.score(point_setting(point, settings)) for point in points])
    best = max(found, key=lambda point: found[point])
    result = {
        "best": setting_to_dict(point_setting(best, settings)),
        "mean_iou": found[best],
        "mean_iou_without": plain,
        "num_images": len(kept),
        "split": f"{config.data.dataset} {config.data.eval_split}",
        "settings": [point._asdict() | {"mean_iou": value} for point, value in found.items()],
    }
    write_whole(workdir / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    print(format_table(found, plain, len(kept)))
    print(f"use the best with --config.inference.crf={workdir / RESULT_FILE}")


def evenly_spaced(num_examples: int, num_wanted: int) -> list[int]:
    """Indices of `num_wanted` evenly spaced examples; of all if it is 0 or exceeds their number."""
    num_wanted = min(num_wanted or num_examples, num_examples)
    return [int(index) for index in np.linspace(0, num_examples - 1, num_wanted).round()]


def search(settings: CRFSearchConfig, score_all: Any) -> dict[Point, float]:
    """Scores a grid, then finer grids around the best point, each with half the step on every axis.

    Args:
      settings: the first grid, and the number of refinements.
      score_all: points -> scores, higher is better.

    Returns:
      The score of each point, in the order of evaluation.
    """
    axes = [sorted(set(axis)) for axis in (settings.bi_w, settings.bi_xy_std, settings.bi_rgb_std)]
    found: dict[Point, float] = {}
    for _ in range(1 + settings.num_refinements):
        points = [point for point in map(Point._make, itertools.product(*axes)) if point not in found]
        found |= zip(points, score_all(points), strict=True)
        best = max(found, key=lambda point: found[point])
        axes = [_finer(axis, value) for axis, value in zip(axes, best, strict=True)]
    return found


def _finer(axis: Sequence[float], center: float) -> list[float]:
    """The value and its two neighbours at half the axis's step; only the value if the axis has no others."""
    step = min((abs(value - center) for value in axis if value != center), default=0.0) / 2
    return sorted({value for value in (center - step, center, center + step) if value > 0})


def point_setting(point: Point, settings: CRFSearchConfig) -> CRFPreset:
    """The CRF of a point; its smoothness kernel is fixed."""
    params = CRFParams(settings.pos_w, settings.pos_xy_std, *point, normalization="after")
    return CRFPreset(params, settings.num_iterations)


class _Scorer:
    """Mean IoU of settings on the stored probabilities; each score is written to disk as soon as it is known."""

    def __init__(self, path: pathlib.Path, kept: KeptProbabilities, size_of: Any, info: DatasetInfo) -> None:
        self._path, self._kept, self._size_of, self._info = path, kept, size_of, info
        self._known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self._images = hashlib.blake2b("".join(path.stem for path in kept.paths).encode(), digest_size=8).hexdigest()

    def score(self, setting: CRFPreset | None) -> float:
        """Mean IoU with this CRF, or without one."""
        values: Mapping[str, Any] = setting_to_dict(setting) if setting else {}
        key = json.dumps([values, self._images])
        if key not in self._known:
            description = ", ".join(f"{name} {values[name]:g}" for name in Point._fields) if values else "without"
            confusion = np.sum(list(self._confusions(setting, description)), axis=0)
            self._known[key] = float(scores(confusion, self._info.class_names)["mean_iou"])
            write_whole(self._path, json.dumps(self._known, indent=1) + "\n")
        return self._known[key]

    def _confusions(self, setting: CRFPreset | None, description: str) -> Iterable[np.ndarray]:
        # On CPU, threads overlap building one lattice with filtering by another; one suffices for an accelerator.
        num_threads = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
        with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
            counts = pool.map(functools.partial(self._confusion, setting), range(len(self._kept)))
            yield from tqdm.tqdm(counts, desc=description, total=len(self._kept), unit="image", disable=None)

    def _confusion(self, setting: CRFPreset | None, position: int) -> np.ndarray:
        example, probabilities = self._kept[position]
        if setting:
            wanted = self._size_of(example.label.shape)
            padding = [(0, size - own) for size, own in zip(wanted, example.label.shape, strict=True)]
            probabilities = refine(np.pad(probabilities, [*padding, (0, 0)]), example.image, setting)
        counts = confusion_matrix(
            jnp.asarray(example.label),
            jnp.asarray(probabilities.argmax(-1)),
            num_classes=self._info.num_classes,
            ignore_label=self._info.ignore_label,
        )
        return np.asarray(counts, np.int64)


def format_table(found: Mapping[Point, float], plain: float, num_images: int) -> str:
    """The best settings, best first, and the score without a CRF."""
    ranked = sorted(found.items(), key=lambda item: -item[1])[:_NUM_SHOWN]
    lines = [f"{'bi_w':>6}  {'bi_xy_std':>9}  {'bi_rgb_std':>10}  mean IoU on {num_images} images"]
    lines += [f"{p.bi_w:6g}  {p.bi_xy_std:9g}  {p.bi_rgb_std:10g}  {value:.4f}" for p, value in ranked]
    lines.append(f"{'without':>29}  {plain:.4f}   ({len(found)} settings tried)")
    return "\n".join(lines)
