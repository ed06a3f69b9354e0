"""The training mode from config to workdir, with a toy network and a toy data set in the real machinery."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.loss import make_loss
from deeplab_jax.apps.modes import train as app
from deeplab_jax.config import Config, DataConfig, InferenceConfig, LossConfig, OptimizerConfig, TrainConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.nn.norm import BatchNorm
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.train.checkpoint import restore_variables
from deeplab_jax.train.state import abstract_variables
from deeplab_jax.types import DatasetInfo, Example, UserError

NAMES = ("red", "green", "blue")
SPLITS = {"train": 10, "val": 5}


class Part(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x, *, train):
        return BatchNorm(name="bn")(nn.Conv(self.channels, (3, 3), name="conv")(x), train=train)


class Toy(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(Part(8, name="backbone")(jnp.asarray(images, jnp.float32) / 255, train=train))
        return nn.Conv(self.num_classes, (1, 1), name="head")(x)


def make_dataset(num_classes=3):
    """Noise whose class is its strongest channel, in images of several sizes."""

    def split(name):
        rng = np.random.default_rng(len(name))
        images = [rng.integers(0, 256, (30 + k, 40, 3), dtype=np.uint8) for k in range(SPLITS[name])]
        return [Example(f"{name}{k}", x, x.argmax(-1).astype(np.uint8)) for k, x in enumerate(images)]

    names = tuple(f"class{k}" for k in range(num_classes))
    return Dataset(DatasetInfo("toy", num_classes, 255, names, ((0, 0, 0),) * num_classes, SPLITS), split)


@pytest.fixture
def config():
    return Config(
        data=DataConfig(batch_size=4, crop_size=(17, 33), num_workers=1),
        optimizer=OptimizerConfig(learning_rate=0.1),
        train=TrainConfig(num_steps=8, log_every=2, eval_every=4, checkpoint_every=4, keep_checkpoints=1),
        inference=InferenceConfig(batch_size=2, bucket=16),
    )


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch, config):
    config.mesh.data = 2
    monkeypatch.setattr(open_data, "open_dataset", lambda config: make_dataset())
    monkeypatch.setattr(network, "build", lambda config, info, mesh=None: Toy(info.num_classes))
    reported = []
    monkeypatch.setattr(app, "report", lambda config, workdir: reported.append(workdir))
    return reported


def load(workdir, num_classes=3):
    init = network.make_init(Config(), Toy(num_classes))
    return jax.device_get(restore_variables(workdir, abstract_variables(init, make_mesh(1)), prefer="latest"))


def test_a_run_leaves_everything_in_the_workdir(config, tmp_path, toy_parts, capsys):
    workdir = tmp_path / "new" / "run"
    assert app.train(config, workdir) == 0
    assert {"config.json", "metrics.jsonl", "scores.json", "per_image.json", "checkpoints", "tensorboard"} <= {
        path.name for path in workdir.iterdir()
    }
    assert json.loads((workdir / "config.json").read_text())["data"]["crop_size"] == [17, 33]
    scores = json.loads((workdir / "scores.json").read_text())
    evaluations = [
        line["evaluation"]
        for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        if "evaluation" in line
    ]
    assert len(evaluations) == 2
    assert scores["mean_iou"] == max(evaluation["mean_iou"] for evaluation in evaluations)
    assert scores["num_images"] == 5
    assert [row["name"] for row in json.loads((workdir / "per_image.json").read_text())] == [
        f"val{k}" for k in range(5)
    ]
    assert toy_parts == [workdir]
    out = capsys.readouterr().out
    assert "data set    toy: 3 classes, images: train 10, val 5" in out
    assert "parameters  backbone 240, head 27" in out
    assert re.search(r"devices     2 x \w+, 2 images of a batch on each", out)


def test_the_devices_may_augment(config, tmp_path, capsys):
    """The same draws, and so nearly the same curve as with the host's pixels."""
    losses = []
    for flag in (False, True):
        config.data = dataclasses.replace(config.data, device_augmentation=flag, photometric=True, max_class_share=0.9)
        assert app.train(config, tmp_path / str(flag)) == 0
        lines = [json.loads(line) for line in (tmp_path / str(flag) / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if "loss" in line])
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert re.search(r"images/s  step \d+\.\d ms  data \d+\.\d %  fetch \d+\.\d ms", capsys.readouterr().out)


def test_the_same_command_resumes_and_equals_one_run(config, tmp_path, monkeypatch):
    config.mesh.data = 1  # bit for bit is promised on one device
    app.train(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def write_and_die(self, step, values):
        if step == 6:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(app.MetricWriter, "write", write_and_die)
        with pytest.raises(Killed):
            app.train(config, tmp_path / "parts")
    app.train(config, tmp_path / "parts")
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert (tmp_path / "parts" / "scores.json").read_text() == (tmp_path / "whole" / "scores.json").read_text()


def test_a_workdir_of_another_config_is_refused_with_the_fields_named(config, tmp_path):
    app.train(config, tmp_path)
    before = load(tmp_path)
    other = copy.deepcopy(config)
    other.optimizer.learning_rate = 0.2
    other.data.crop_size = (33, 33)
    with pytest.raises(UserError) as caught:
        app.train(other, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds a run of another config (data.crop_size: [17, 33] -> [33, 33]; "
        "optimizer.learning_rate: 0.1 -> 0.2): choose a new --workdir, or continue it with "
        "--allow=data.crop_size,optimizer.learning_rate"
    )
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["learning_rate"] == 0.1
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path), before)


def test_a_finished_run_goes_on_with_what_is_allowed(config, tmp_path, capsys):
    app.train(config, tmp_path)
    config.train.num_steps, config.optimizer.learning_rate = 12, 0.05
    names = ["train.num_steps", "optimizer.learning_rate"]
    with pytest.raises(UserError, match=r"or continue it with --allow=optimizer\.learning_rate,train\.num_steps$"):
        app.train(config, tmp_path)
    with pytest.raises(UserError, match=r"another config .*train\.num_steps: 8 -> 12"):
        app.train(config, tmp_path, names[1:])
    with pytest.raises(UserError, match=r"--allow=optimizer\.name: a run cannot be continued with another"):
        app.train(config, tmp_path, ["optimizer.name"])
    assert app.train(config, tmp_path, names) == 0
    assert "continuing with optimizer.learning_rate: 0.1 -> 0.05; train.num_steps: 8 -> 12" in capsys.readouterr().out
    (point,) = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert point == {"step": 8, "changes": ["optimizer.learning_rate: 0.1 -> 0.05", "train.num_steps: 8 -> 12"]}
    curve = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = {point["step"]: point["learning_rate"] for point in curve if "learning_rate" in point}
    assert rates[12] == pytest.approx(0.05 * (1 - 11 / 12) ** 0.9, rel=1e-5)


def test_what_does_not_touch_the_run_may_change(config, tmp_path, toy_parts):
    app.train(config, tmp_path)
    config.inference.flip = True
    config.train.log_every = 3
    config.data.num_workers = 2
    config.mesh.data = 1
    written = json.loads((tmp_path / "config.json").read_text())
    del written["optimizer"]["clip_norm"], written["serve"]  # as if they had not been thought of then
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert app.train(config, tmp_path) == 0
    assert len(toy_parts) == 2


def test_a_data_set_whose_classes_changed_is_refused(config, tmp_path, monkeypatch):
    app.train(config, tmp_path)
    monkeypatch.setattr(open_data, "open_dataset", lambda config: make_dataset(num_classes=4))
    with pytest.raises(UserError, match="made for 3 classes, this data set has 4"):
        app.train(config, tmp_path)


def test_a_batch_that_does_not_divide_is_refused_with_the_remedy(config, tmp_path):
    config.mesh.data = 8
    config.data.batch_size = 12
    config.train.accumulation_steps = 2
    message = r"config\.data\.batch_size=12: 6 images at a time do not divide over 8 devices; .*config\.mesh\.data=6"
    with pytest.raises(UserError, match=message):
        app.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_devices_than_there_are_is_refused(config, tmp_path):
    config.mesh.data = 64
    with pytest.raises(UserError, match=r"config\.mesh\.data=64: 64 devices asked for, 8 present"):
        app.train(config, tmp_path)


def test_devices_that_share_images_count_once(config, tmp_path):
    config.mesh.data, config.mesh.space, config.data.batch_size = 4, 2, 6
    message = r"6 images at a time do not divide over 4 groups of 2 devices; .*config\.mesh\.data=3"
    with pytest.raises(UserError, match=message):
        app.train(config, tmp_path)
    config.mesh.data = 3
    config.mesh.space = 3
    with pytest.raises(UserError, match=r"mesh\.data=3, config\.mesh\.space=3: 9 devices asked for, 8 present"):
        app.train(config, tmp_path)


def test_a_run_in_strips_says_what_it_needs_and_who_is_idle(config, tmp_path, capsys):
    config.mesh.data, config.mesh.space, config.mesh.shard_optimizer = 3, 2, True
    config.data.batch_size = 6
    config.model.remat = ("backbone",)
    assert app.train(config, tmp_path) == 0
    out = capsys.readouterr().out
    assert "6 x cpu, 2 images of a batch on each 2, which share their height; idle: cpu:6, cpu:7" in out
    assert re.search(r"memory      per device [\d.]+ .B \(parameters .*temporaries [\d.]+ .B\)", out)


def test_out_of_memory_names_what_needs_less(config, tmp_path, monkeypatch, capsys):
    def run_out(self, state, batch):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(app.CompiledStep, "__call__", run_out)
    with pytest.raises(UserError, match=r"out of memory on the devices: --config\.model\.compute_dtype=bfloat16, or"):
        app.train(config, tmp_path)


def test_each_device_may_be_for_itself_in_batch_norm(monkeypatch):
    monkeypatch.undo()
    config = Config()
    config.model.batch_norm.group_size = -1
    config.data.batch_size, config.train.accumulation_steps = 16, 2
    info = make_dataset().info
    assert network.build(config, info, make_mesh(4)).backbone.options.batch_norm.group_size == 2
    assert network.build(config, info, make_mesh(2, 4)).backbone.options.batch_norm.group_size == 4


def test_a_broken_config_json_is_refused(config, tmp_path):
    app.train(config, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json: .*; choose another --workdir"):
        app.train(config, tmp_path)


@pytest.mark.parametrize("class_weights", [(1.0, 2.0), (1.0, 2.0, 3.0, 4.0)])
def test_class_weights_must_match_the_classes(class_weights):
    with pytest.raises(UserError, match=f"config.loss.class_weights: {len(class_weights)} weights.*toy has 3 classes"):
        make_loss(LossConfig(class_weights=class_weights), make_dataset().info)


def test_the_share_of_hard_pixels_ramps_down(rng):
    loss = make_loss(LossConfig(top_k_fraction=0.25, top_k_ramp_steps=10), make_dataset().info)
    logits = jnp.asarray(rng.normal(size=(1, 10, 10, 3)), jnp.float32)
    label = jnp.zeros((1, 10, 10), jnp.int32)
    kept = [float(jax.jit(loss)(logits, label, jnp.int32(step))[1]) for step in (0, 4, 10, 50)]
    assert kept == [100, 70, 25, 25]


def test_folded_weights_are_calibrated_before_the_first_step(config, monkeypatch):
    """Training starts from the file's function, with statistics of the data, at the first batch."""
    made_up = {}

    def fake_load(config, variables, model):
        filled = jax.tree.map(lambda leaf: np.full_like(leaf, 0.5), dict(variables))
        made_up.update(filled)
        return filled, "all found", True

    monkeypatch.setattr(app, "pretrained_variables", fake_load)
    config.model.pretrained = dataclasses.replace(config.model.pretrained, source="weights.npz", layout="any")
    dataset, mesh, model = make_dataset(), make_mesh(2), Toy(3)
    images = dataset.open_split("val")[0].image[None]
    with app.open_loader(config, dataset) as loader:
        variables = model.init(jax.random.key(0), images, train=False)
        got = app._load_pretrained(config, model, variables, loader, mesh)
    assert not np.allclose(got["batch_stats"]["backbone"]["bn"]["mean"], 0.5, atol=0.01)
    want = model.apply(made_up, images, train=False)
    # Two ways to write one affine map, in float32.
    np.testing.assert_allclose(model.apply(got, images, train=False), want, rtol=1e-4)


def test_a_recipe_for_pretrained_weights_asks_for_them(config, tmp_path):
    config.model.pretrained.layout = "gluon"
    with pytest.raises(UserError, match=r"pretrained\.source is empty: give the file of layout 'gluon', or start from"):
        app.train(config, tmp_path / "run")
