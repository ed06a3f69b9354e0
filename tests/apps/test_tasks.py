"""Binary and multilabel data from training to predictions, files and pages, with a small network."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.apps.modes import evaluate, export, predict, train
from deeplab_jax.apps.modes.serve import make_service
from deeplab_jax.config import Config, DataConfig, InferenceConfig, OptimizerConfig, PartConfig, TrainConfig
from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.model import load
from deeplab_jax.types import Example, FeatureInfo, UserError

SPLITS = {"train": 6, "val": 3}


class Patches(nn.Module):
    """A backbone of one layer: bright patches, reddish patches, ..."""

    @property
    def feature_info(self):
        return (FeatureInfo("stride4", 16, 4),)

    @nn.compact
    def __call__(self, images, *, train):
        return {"stride4": nn.relu(nn.Conv(16, (4, 4), strides=4, name="patches")(images))}


class Linear(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, features, *, train):
        return nn.Conv(self.num_classes, (1, 1), name="logits")(features["stride4"])


def patches(output_stride, options):
    return Patches()


def linear(num_classes, feature_info, align_corners, options):
    return Linear(num_classes)


def draw(task, split):
    """A bright square is the (first) object; the image's reddish half is the second, and a frame is not labelled."""
    rng = np.random.default_rng(len(split))
    examples = []
    for number in range(SPLITS[split]):
        image = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
        top, left = rng.integers(4, 16, 2)
        square, half = np.zeros((2, 40, 52), bool)
        square[top : top + 16, left : left + 16] = True
        half[:, : 20 + number] = True
        image[square] += 150
        image[half, 0] += 40
        label = np.stack([square, half], axis=-1) if task == "multilabel" else square
        label = label.astype(np.uint8)
        label[:1] = 255
        examples.append(Example(f"{split}{number}", image, label))
    return examples


@pytest.fixture(scope="module", params=["binary", "multilabel"])
def run(request, tmp_path_factory):
    """(task, workdir, config) of a trained run."""
    task, workdir = request.param, tmp_path_factory.mktemp(request.param)
    names = ("background", "square") if task == "binary" else ("square", "left half")
    info = dataclasses.replace(make_info("squares", names, ((0, 0, 0), (200, 0, 0))), task=task, splits=SPLITS)
    module = types.ModuleType(f"squares_{task}")
    module.__file__ = "squares.py"
    module.INFO, module.patches, module.linear = info, patches, linear
    module.open_dataset = lambda root, prepared_dir: Dataset(info, functools.partial(draw, task))
    sys.modules[module.__name__] = module
    config = Config(
        data=DataConfig(f"{module.__name__}:open_dataset", batch_size=4, crop_size=(33, 33), num_workers=1),
        optimizer=OptimizerConfig("adamw", learning_rate=0.02),
        train=TrainConfig(num_steps=60, log_every=20, eval_every=60, checkpoint_every=60),
        inference=InferenceConfig(batch_size=2, pad_to=(49, 65)),
    )
    config.data.min_scale = config.data.max_scale = 1.0
    config.model.backbone, config.model.head = (
        PartConfig(f"{module.__name__}:{part}") for part in ("patches", "linear")
    )
    config.inference.measures = dataclasses.replace(config.inference.measures, kappa=True, surface=True)
    config.mesh.data = 1
    assert train.train(config, workdir) == 0
    yield task, workdir, config
    del sys.modules[module.__name__]


def test_scores_are_those_of_the_task(run):
    task, workdir, config = run
    scores = evaluate.evaluate(config, workdir)
    assert scores["task"] == task
    assert scores["protocol"]["threshold"] == [0.5]
    assert np.asarray(scores["confusion"]).shape == {"binary": (2, 2), "multilabel": (2, 2, 2)}[task]
    assert np.sum(scores["confusion"]) == 3 * 39 * 52 * (1 if task == "binary" else 2)
    assert scores["mean_iou_over"] == "2 classes"
    assert scores["iou_per_class"]["square"] > 0.5, "a bright square on black is learned in 60 steps"
    square = scores["overlap"]["per_class"]["square"]
    iou = scores["iou_per_class"]["square"]
    assert square["dice"] == pytest.approx(2 * iou / (1 + iou))
    assert square["num_images"] == 3
    assert scores["surface"]["per_class"]["square"]["num_images"] == 3
    assert 0 < scores["cohen_kappa"]["kappa"] <= 1
    page = (workdir / "report.html").read_text()
    assert "Dice, precision, recall" in page
    assert ("What is taken for what" in page) == (task == "binary")


@pytest.mark.usefixtures("unchecked_types")
def test_the_door_gives_masks_and_probabilities_and_the_threshold_moves_them(run):
    task, workdir, _ = run
    model, example = load(workdir), draw(task, "val")[0]
    mask, probabilities = model.segment(example.image), model.probabilities(example.image)
    assert probabilities.shape == (40, 52, 2)
    if task == "binary":
        assert (mask.shape, mask.dtype) == ((40, 52), np.uint8)
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
        np.testing.assert_array_equal(mask, probabilities[..., 1] > 0.5)
        higher = probabilities[..., 1] > 0.9
    else:
        assert (mask.shape, mask.dtype) == ((40, 52, 2), bool)
        np.testing.assert_array_equal(mask, probabilities > 0.5)
        higher = probabilities > 0.9
    assert higher.sum() < mask.sum()
    np.testing.assert_array_equal(model.segment(example.image, threshold=0.9), higher)
    tinted = model.overlay(example.image, mask)
    changed = mask.any(axis=-1) if task == "multilabel" else mask > 0
    np.testing.assert_array_equal(tinted[~changed], example.image[~changed])
    assert (tinted[changed] != example.image[changed]).any()
    with pytest.raises(ValueError, match="expected a mask of"):
        model.overlay(example.image, np.zeros((40, 52, 9), np.uint8))
    assert [len(model.segment([example.image] * 3))] == [3]


def test_predictions_are_masks_and_probabilities(run, tmp_path):
    task, workdir, config = run
    example = draw(task, "val")[1]
    Image.fromarray(example.image).save(tmp_path / "a.png")
    predict.predict(config, workdir, "", str(tmp_path / "a.png"), str(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    model = load(workdir)
    mask, probabilities = model.segment(example.image), model.probabilities(example.image)

    def read(name):
        return np.asarray(Image.open(tmp_path / "out" / name))

    if task == "binary":
        assert names == {"a.png", "a_overlay.png", "a_probability.png"}
        np.testing.assert_array_equal(read("a.png"), mask)
        np.testing.assert_allclose(read("a_probability.png") / 255, probabilities[..., 1], atol=0.51 / 255)
    else:
        classes = ("square", "left_half")
        assert names == {"a_overlay.png", *(f"a_{c}{end}.png" for c in classes for end in ("", "_probability"))}
        for k, name in enumerate(classes):
            np.testing.assert_array_equal(read(f"a_{name}.png"), 255 * mask[..., k])
            np.testing.assert_allclose(read(f"a_{name}_probability.png") / 255, probabilities[..., k], atol=0.51 / 255)


def test_exported_programs_decide_as_the_network_does(run, tmp_path):
    task, workdir, config = run
    config.export.outputs, config.inference.threshold = ("class_ids", "logits", "probabilities"), (0.3,)
    try:
        export.export(config, workdir, "", "stablehlo", output=str(tmp_path))
    finally:
        config.inference.threshold = ()
    facts = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert facts["task"] == task
    assert facts["thresholds"] == [0.3]
    assert "sigmoid" in facts["meaning"]
    assert facts["agreement"]["same_pixels"] == 1.0


def test_the_service_answers(run):
    task, workdir, config = run
    service, example = make_service(config, workdir), draw(task, "val")[0]
    ids = service.segment(example.image)
    np.testing.assert_array_equal(ids, load(workdir).segment(example.image))


def test_what_is_saved_is_loaded_with_its_task(run, tmp_path):
    task, workdir, _ = run
    model, image = load(workdir), draw(task, "val")[0].image
    (path,) = model.save(tmp_path / "mine.safetensors")
    again = load(path)
    assert (again.info.task, again.config.model.task) == (task, task)
    np.testing.assert_array_equal(again.segment(image), model.segment(image))


def test_settings_of_other_tasks_are_refused(run):
    task, workdir, config = run
    changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, threshold=(0.1, 0.2, 0.3)))
    with pytest.raises(UserError, match=r"config\.inference\.threshold=.*one for all, or one for each"):
        evaluate.evaluate(changed, workdir)
    model = dataclasses.replace(config.model, task="multiclass")
    with pytest.raises(UserError, match=f"config.model.task='multiclass': data set squares is {task}"):
        evaluate.evaluate(dataclasses.replace(config, model=model), workdir)
    if task == "multilabel":
        crf = dataclasses.replace(config, inference=dataclasses.replace(config.inference, crf="v1"))
        with pytest.raises(UserError, match=r"config\.inference\.crf='v1': gives each pixel one class"):
            evaluate.evaluate(crf, workdir)
