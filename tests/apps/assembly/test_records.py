"""Files of a workdir after anyone edited them: one line that names the file, the field and the remedy."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from deeplab_jax.apps import import_weights
from deeplab_jax.apps.assembly import records, trained, workdir
from deeplab_jax.config import Config
from deeplab_jax.types import DatasetInfo, UserError

SCORES = {"mean_iou": 0.5, "iou_per_class": {"a": 0.5, "b": None}, "protocol": {}, "confusion": [[1, 0], [2, 0]]}
INFO = DatasetInfo("pets", 2, 255, ("a", "b"), ((0, 0, 0), (1, 2, 3)), {"train": 3})
ODD = (None, [], {}, "x", -1, 2.5, True, [[]], {"x": 5}, ["x"], [1, 2], [[1, "x"], [2]], 10**30)


def _edited(content):
    """The content with each value, and the whole, replaced by odd ones; without each field."""
    for odd in ODD:
        yield odd
        for name in content:
            yield {**copy.deepcopy(content), name: odd}
    for name in content:
        yield {key: value for key, value in content.items() if key != name}


def _reads_or_says(read, path, content):
    for text in ("", "{", "[" * 100_000, *map(json.dumps, _edited(content))):
        path.write_text(text)
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("name", "read", "content"),
    [
        ("scores.json", records.read_scores, SCORES),
        ("per_image.json", records.read_images, {"name": "cat", "mean_iou": 0.5}),
        ("metrics.jsonl", records.read_metrics, {"step": 1, "evaluation": {"mean_iou": 0.5}}),
        ("dataset.json", workdir.read_info, json.loads(json.dumps(dataclasses.asdict(INFO)))),
        ("config.json", lambda path: trained.read_config(path.parent), {"model": {}, "data": {}, "loss": {}}),
        (
            "imported.json",
            lambda path: import_weights.adopt_model(Config(), path.parent, {}),
            {"model": {"backbone": {"name": "resnet.resnet50"}}},
        ),
    ],
)
def test_an_edited_file(name, read, content, tmp_path):
    _reads_or_says(read, tmp_path / name, content)


def test_what_is_whole_comes_back(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    (tmp_path / "per_image.json").write_text(json.dumps([{"name": "cat", "mean_iou": None}]))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[]\n{"step": "x"}\n{"st')
    workdir.keep_info(INFO, tmp_path)
    assert records.read_scores(tmp_path / "scores.json") == SCORES
    assert records.read_images(tmp_path / "per_image.json") == [{"name": "cat", "mean_iou": None}]
    assert records.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]
    assert workdir.read_info(tmp_path / workdir.DATASET_FILE) == INFO
    assert records.read_scores(tmp_path / "none.json") is None
