"""The threshold that evaluation finds: said, kept in the workdir, and used by what predicts with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from deeplab_jax.apps.assembly import kept_threshold, network, open_data
from deeplab_jax.apps.assembly.evaluation import make_evaluator
from deeplab_jax.apps.assembly.kept_threshold import with_kept_threshold
from deeplab_jax.apps.assembly.network_metadata import read_description, write_description
from deeplab_jax.apps.modes import evaluate as app
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo, Example, UserError

INFO = DatasetInfo("cells", 2, 255, ("ground", "cell"), ((0, 0, 0), (9, 9, 9)), {"val": 3}, task="binary")


class FromRedChannel(nn.Module):
    """The logit of the object, from the red channel."""

    @nn.compact
    def __call__(self, images, *, train):
        one = self.param("one", nn.initializers.ones, ())
        return one * (jnp.asarray(images)[..., :1].astype(jnp.float32) - 128) / 32


@pytest.fixture
def dataset(rng):
    """Objects are red from 100 on, where the network says 0.29."""
    examples = []
    for k in range(3):
        image = rng.integers(0, 256, (9, 12 + k, 3), dtype=np.uint8)
        examples.append(Example(f"image{k}", image, (image[..., 0] >= 100).astype(np.uint8)))
    return Dataset(INFO, {"val": examples}.__getitem__)


@pytest.fixture
def workdir(dataset, monkeypatch, tmp_path):
    """A folder whose best checkpoint is step 7, with the variables given instead of read."""
    monkeypatch.setattr(open_data, "open_dataset", lambda config: dataset)
    monkeypatch.setattr(network, "build", lambda config, info: FromRedChannel())
    monkeypatch.setattr(network, "load_variables", lambda *args: {"params": {"one": jnp.ones(())}})
    for module in (kept_threshold, app):
        monkeypatch.setattr(module, "find_checkpoint", lambda workdir: tmp_path / "checkpoints" / "7")
    return tmp_path


def searching():
    config = Config()
    config.inference.pad_to = (9, 17)
    config.data.num_workers = 1
    config.inference.measures.best_threshold = True
    return config


def test_it_is_said_kept_and_used(workdir, capsys):
    scores = app.evaluate(searching(), workdir)
    said = capsys.readouterr().out
    row = scores["best_threshold"]["per_class"]["cell"]
    assert row["iou"] == 1.0
    assert 0.28 < row["threshold"] < 0.3
    assert row["iou_at_even"] == scores["iou_per_class"]["cell"] < 1
    assert f"threshold with the greatest IoU of 'cell' on split 'val': {row['threshold']:g}, IoU 1.0000; at 0.5" in said
    assert f"kept in {workdir / 'threshold.json'}" in said

    plain = searching()
    plain.inference.measures.best_threshold = False
    used, said = with_kept_threshold(plain, workdir)
    assert said == f"threshold {row['threshold']:g}, chosen on split 'val': {workdir / 'threshold.json'}"
    again = app.evaluate(used, workdir)
    assert again["iou_per_class"]["cell"] == 1.0
    assert again["protocol"]["threshold_split"] == "val"
    assert "chosen on split 'val', the one that is scored here" in capsys.readouterr().out


def test_what_the_config_gives_comes_first_and_another_checkpoint_has_none(workdir, monkeypatch):
    kept_threshold.keep_threshold(workdir, {"thresholds": [0.3], "split": "val"})
    given = Config()
    given.inference.threshold = (0.7,)
    assert with_kept_threshold(given, workdir) == (given, "")
    monkeypatch.setattr(kept_threshold, "find_checkpoint", lambda workdir: workdir / "9")
    config, said = with_kept_threshold(Config(), workdir)
    assert not config.inference.threshold
    assert "is of checkpoint 7, and the best is now 9; find it anew" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"thresholds": [2.0], "split": "val", "checkpoint": "7"}'])
def test_a_damaged_file_is_named(workdir, text):
    (workdir / "threshold.json").write_text(text)
    with pytest.raises(UserError, match=r"threshold.json .*: remove it, and 0.5 is the threshold"):
        with_kept_threshold(Config(), workdir)


def test_it_goes_into_the_file_of_the_network():
    config = Config()
    config.inference.threshold, config.inference.threshold_split = (0.3,), "val"
    text = write_description(config.model, INFO, inference=config.inference)
    inference = read_description(text, "file").inference
    assert (inference.threshold, inference.threshold_split) == ((0.3,), "val")
    damaged = json.loads(text)
    damaged["inference"]["threshold"] = [3]
    with pytest.raises(UserError, match=r"inference.threshold"):
        read_description(json.dumps(damaged), "file")


def test_classes_that_exclude_each_other_have_none():
    info = DatasetInfo("two", 2, 255, ("a", "b"), ((0, 0, 0),) * 2, {"val": 0})
    with pytest.raises(UserError, match=r"best_threshold=True: data set two is multiclass"):
        make_evaluator(searching(), FromRedChannel(), Dataset(info, lambda split: []), make_mesh())
