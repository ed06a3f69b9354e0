"""The evaluate mode on images of several sizes, with a network that reads its answer off the pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.evaluation import make_evaluator
from deeplab_jax.apps.modes import evaluate as app
from deeplab_jax.apps.pages.score_table import class_rows
from deeplab_jax.canvas import make_canvas
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.loading.loader import eval_batches
from deeplab_jax.inference.predictor import PredictorOptions, canvas_size
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo, Example, UserError

NAMES = ("ground", "red", "green", "never")
SIZES = [(20, 30), (33, 17), (9, 9), (20, 30), (31, 33)]


class FromRedChannel(nn.Module):
    """Predicts the class whose number the red channel holds, times a parameter of 1."""

    @nn.compact
    def __call__(self, images, *, train):
        one = self.param("one", nn.initializers.ones, ())
        ids = jnp.asarray(images)[..., 0].astype(jnp.float32)
        return -10 * one * (ids[..., None] - jnp.arange(4.0)[None, None, None]) ** 2


@pytest.fixture
def examples(rng):
    found = []
    for k, size in enumerate(SIZES):
        image = rng.integers(0, 3, (*size, 3), dtype=np.uint8)
        label = np.where(rng.random(size) < 0.8, image[..., 0], 255).astype(np.uint8)
        label[: size[0] // 4] = 2
        found.append(Example(f"image{k}", image, label))
    return found


@pytest.fixture
def dataset(examples):
    info = DatasetInfo("toy", 4, 255, NAMES, ((0, 0, 0),) * 4, {"val": len(examples)})
    return Dataset(info, {"val": examples}.__getitem__)


@pytest.fixture
def config():
    config = Config()
    config.inference.bucket = 16
    config.inference.batch_size = 3  # neither a divisor of the images nor a multiple of the devices
    config.data.num_workers = 1
    return config


def count_slowly(examples):
    confusion = np.zeros((4, 4), np.int64)
    for example in examples:
        for truth, predicted in zip(example.label.ravel(), example.image[..., 0].ravel(), strict=True):
            if truth != 255:
                confusion[truth, predicted] += 1
    return confusion


def test_every_labelled_pixel_at_the_original_size_counts_once(config, dataset, examples):
    mesh = make_mesh()
    evaluation = make_evaluator(config, FromRedChannel(), dataset, mesh)({"params": {"one": jnp.ones(())}})
    np.testing.assert_array_equal(evaluation.confusion, count_slowly(examples))
    assert evaluation.num_images == len(SIZES)
    assert {row["name"] for row in evaluation.per_image} == {example.name for example in examples}


def test_a_second_evaluation_compiles_nothing(config, dataset):
    traced = []

    class Counting(FromRedChannel):
        def apply(self, variables, images, *, train):
            traced.append(images.shape)
            return super().apply(variables, images, train=train)

    run = make_evaluator(config, Counting(), dataset, make_mesh())
    first = run({"params": {"one": jnp.ones(())}})
    num_traced = len(traced)
    assert num_traced == len({make_canvas((0, 0), 16).around(size) for size in SIZES})
    second = run({"params": {"one": -jnp.ones(())}})
    assert len(traced) == num_traced
    assert second.scores["mean_iou"] != first.scores["mean_iou"]


@pytest.mark.parametrize("pad_to", [(0, 0), (40, 50)])
def test_prediction_and_evaluation_pad_alike(examples, dataset, pad_to):
    options = PredictorOptions(InferenceConfig(pad_to=pad_to, bucket=16))
    batches = eval_batches(
        examples, dataset.info, batch_size=1, canvas=options.settings.canvas, pad_pixel=(7, 7, 7), num_workers=1
    )
    sizes = {names[0]: batch.image.shape[1:3] for batch, names in batches}
    for example in examples:
        assert sizes[example.name] == canvas_size(example.label.shape, options)


@pytest.fixture
def evaluated(config, dataset, monkeypatch, tmp_path, capsys):
    """A workdir after the evaluate mode, with the variables given instead of read."""
    monkeypatch.setattr(open_data, "open_dataset", lambda config: dataset)
    monkeypatch.setattr(network, "build", lambda config, info: FromRedChannel())
    monkeypatch.setattr(network, "load_variables", lambda *args: {"params": {"one": jnp.ones(())}})
    monkeypatch.setattr(app, "find_checkpoint", lambda path: path / "checkpoints" / "7")
    app.evaluate(config, tmp_path)
    return tmp_path, capsys.readouterr().out


def test_scores_json_keeps_the_contract(evaluated, examples):
    workdir, _ = evaluated
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["num_images"] == len(SIZES)
    assert (scores["step"], scores["checkpoint"]) == (7, "checkpoints/7")
    assert scores["confusion"] == count_slowly(examples).tolist()
    assert list(scores["iou_per_class"]) == list(NAMES)
    assert scores["iou_per_class"]["never"] is None
    assert {"mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"} <= set(scores)
    protocol = scores["protocol"]
    assert (protocol["scales"], protocol["flip"], protocol["output_stride"]) == ([1.0], False, 16)
    assert (protocol["resize"], protocol["window"], protocol["crf"]) == ("align_corners", None, None)
    per_image = json.loads((workdir / "per_image.json").read_text())
    assert {row["name"] for row in per_image} == {example.name for example in examples}
    assert not list(workdir.glob("*.unfinished"))


def test_the_table_names_every_class(evaluated):
    _, printed = evaluated
    for name in NAMES:
        assert name in printed
    assert "absent" in printed
    assert f"{len(SIZES)} images" in printed


def test_a_failed_write_names_the_file_and_keeps_the_old_scores(evaluated, config, monkeypatch):
    workdir, _ = evaluated
    before = (workdir / "scores.json").read_text()

    def replace(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(workdir), "replace", replace)
    with pytest.raises(UserError) as error:
        app.evaluate(config, workdir)
    message = str(error.value)
    assert "\n" not in message
    assert str(workdir / "scores.json") in message
    assert "No space left on device" in message
    assert (workdir / "scores.json").read_text() == before


def test_class_rows_read_the_confusion():
    scores = {"iou_per_class": {"a": 0.5, "b": None, "c": 0.0}, "confusion": [[6, 0, 2], [0, 0, 0], [2, 0, 0]]}
    rows = class_rows(scores)
    assert [row.accuracy for row in rows] == [0.75, None, 0.0]
    assert [row.pixel_fraction for row in rows] == [0.8, 0.0, 0.2]
