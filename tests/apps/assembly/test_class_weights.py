"""Class weights and losses, from what a config says to what the step minimises."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from deeplab_jax import registry
from deeplab_jax.apps.assembly.class_weights import COUNTS_FILE, class_weights, training_counts
from deeplab_jax.apps.assembly.loss import make_loss
from deeplab_jax.apps.modes import train
from deeplab_jax.config import AddedLoss, Config, DataConfig, LossConfig
from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.inspection.class_counts import ClassCounts, median_frequency_weights
from deeplab_jax.data.sources.stored_labels import LabelPixels
from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.losses.dice import soft_dice
from deeplab_jax.types import DatasetInfo, Example, UserError
from deeplab_jax.validation import validate

INFO = DatasetInfo("toy", 3, 255, ("ground", "red", "green"), ((0, 0, 0),) * 3, {"train": 4})


@pytest.fixture
def dataset():
    label = np.repeat(np.array([0, 0, 0, 1, 1, 255], np.uint8), 5).reshape(6, 5)
    opened = []

    def open_split(split):
        opened.append(split)
        return [Example(str(k), np.zeros((6, 5, 3), np.uint8), label) for k in range(4)]

    dataset = Dataset(INFO, open_split)
    return dataset, opened


@pytest.fixture
def batch(rng):
    logits = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    return logits, jnp.asarray(rng.integers(0, 3, (2, 4, 5)))


def total_of(config, batch, counts=None):
    return jax.jit(make_loss(config, INFO, counts))(*batch, jnp.int32(0))


@pytest.mark.parametrize(
    ("setting", "weights"),
    [
        ((), None),
        ("", None),
        ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)),
        ([0, 1, 2], (0, 1, 2)),
        ({"green": 4}, (1.0, 1.0, 4.0)),
        ("balanced", (1.0 * (0.6 + 0.4) / 2 / 0.6, (0.6 + 0.4) / 2 / 0.4, 1.0)),
    ],
)
def test_settings(setting, weights):
    config = Config(loss=LossConfig(class_weights=setting))
    validate(config)
    counts = ClassCounts.zeros(3)
    counts.add(LabelPixels(np.array([60, 40, 0]), 7, 100))
    got = class_weights(setting, INFO, lambda: counts)
    assert (got is None) == (weights is None)
    np.testing.assert_allclose(got or (), weights or ())


@pytest.mark.parametrize("setting", ["balance", (1.0, -1.0, 2.0), {"red": -1}, 3.0, ("a",), (float("nan"), 1.0, 1.0)])
def test_settings_that_make_no_sense_are_refused_at_once(setting):
    with pytest.raises(UserError, match=r"config\.loss\.class_weights=.*: must be numbers that are not negative"):
        validate(Config(loss=LossConfig(class_weights=setting)))


def test_a_name_of_no_class_is_refused_with_the_near_ones():
    with pytest.raises(
        UserError, match=r"config\.loss\.class_weights: data set toy has no class 'gren'; did you mean 'green'"
    ):
        class_weights({"gren": 2.0}, INFO, None)


def test_weights_from_frequencies_reach_the_loss(batch):
    counts = ClassCounts.zeros(3)
    counts.add(LabelPixels(np.array([10, 20, 70]), 0, 100))
    got = total_of(LossConfig(class_weights="balanced"), batch, lambda: counts)
    want = softmax_cross_entropy(*batch, ignore_label=255, class_weights=median_frequency_weights(counts))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_counts_are_kept_and_used_again_by_a_run_that_goes_on(dataset, tmp_path, capsys):
    dataset, opened = dataset
    config = Config()
    first = training_counts(config, dataset, tmp_path, continued=False)
    assert first.pixels.tolist() == [60, 40, 0]
    assert first.num_ignored == 20
    assert training_counts(config, dataset, tmp_path, continued=True).to_dict() == first.to_dict()
    assert opened == ["train"]
    training_counts(config, dataset, tmp_path, continued=False)
    assert opened == ["train"] * 2


def test_counts_of_another_split_are_not_used(dataset, tmp_path):
    dataset, opened = dataset
    training_counts(Config(), dataset, tmp_path, continued=False)
    kept = json.loads((tmp_path / COUNTS_FILE).read_text())
    kept["of"]["num_images"] = 5
    (tmp_path / COUNTS_FILE).write_text(json.dumps(kept))
    training_counts(Config(), dataset, tmp_path, continued=True)
    assert opened == ["train"] * 2


def test_broken_counts_are_one_line_with_the_remedy(dataset, tmp_path):
    (tmp_path / COUNTS_FILE).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*class_counts\.json .*: remove it, and the classes are counted"):
        training_counts(Config(), dataset[0], tmp_path, continued=True)


def test_own_arguments_and_added_losses_reach_the_step(batch):
    config = LossConfig(
        args={"label_smoothing": 0.1},
        factor=0.5,
        added=(AddedLoss("dice.soft_dice", factor=2.0, args={"smooth": 1.0}),),
    )
    validate(Config(loss=config))
    first, weight = softmax_cross_entropy(*batch, ignore_label=255, label_smoothing=0.1)
    second, _ = soft_dice(*batch, ignore_label=255, smooth=1.0)
    np.testing.assert_allclose(total_of(config, batch), (0.5 * first + 2.0 * second, weight), rtol=1e-6)


def test_an_added_loss_without_mining_goes_beside_one_that_mines(batch):
    config = LossConfig(top_k_fraction=0.25, added=(AddedLoss("lovasz.lovasz_softmax"),))
    assert total_of(config, batch)[1] == 2 * 5


DICE, CROSS_ENTROPY = "dice.soft_dice", "cross_entropy.softmax_cross_entropy"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            LossConfig("focl.softmax_focal"),
            "config.loss: no module 'focl' in deeplab_jax/losses/; did you mean 'focal'",
        ),
        (
            LossConfig(args={"label_smooting": 0.1}),
            "takes no argument 'label_smooting'; did you mean 'label_smoothing'",
        ),
        (LossConfig(added=(AddedLoss(DICE, args={"gamma": 2}),)), f"config.loss.added[0]: '{DICE}' takes no argument"),
        (LossConfig(added=(AddedLoss(DICE, factor=0.0),)), "config.loss.added[0].factor=0.0: must be positive"),
    ],
)
def test_mistakes_that_show_in_the_config_alone(config, message):
    with pytest.raises(UserError, match=re.escape(message)):
        validate(Config(loss=config))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LossConfig(args={"label_smoothing": 2.0}), f"config.loss: '{CROSS_ENTROPY}': label_smoothing=2.0: must be"),
        (LossConfig(args={"label_smoothing": "much"}), f"config.loss: '{CROSS_ENTROPY}': '<=' not supported"),
        (LossConfig(args={"ignore_label": 0}), "must not hold 'ignore_label', which is set by other fields"),
        (LossConfig(DICE, top_k_fraction=0.5), f"config.loss.top_k_fraction=0.5: '{DICE}' has no hard-pixel mining"),
    ],
)
def test_mistakes_that_show_when_the_loss_is_tried_out(config, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        make_loss(config, INFO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"), [("balanced", "balanced"), ("(1,2.5,3)", (1, 2.5, 3)), ("{'red': 2.0}", {"red": 2.0})]
)
def test_the_command_line_sets_weights_of_every_kind(text, value):
    values = flags.FlagValues()
    argv = ["main.py", f"--config.loss.class_weights={text}"]
    config = config_flags.DEFINE_config_dataclass("config", Config(), flag_values=values, sys_argv=argv)
    values(argv)
    assert config.value.loss.class_weights == value
    validate(config.value)


def test_training_says_which_weights_it_has_found(dataset, tmp_path, capsys):
    config = Config(loss=LossConfig(class_weights="balanced"))
    train._count_classes(config, dataset[0], tmp_path)
    assert capsys.readouterr().out == "weights     balanced: ground 0.8333, red 1.25, green 1\n"


def two_classes(task):
    maps = task == "multilabel"
    return dataclasses.replace(make_info("cells", ("background", "cell")), task=task), (2,) * maps


@pytest.mark.parametrize(
    ("task", "want"), [("multiclass", "softmax"), ("binary", "sigmoid"), ("multilabel", "sigmoid")]
)
def test_without_a_name_the_loss_is_the_cross_entropy_of_the_task(rng, task, want):
    info, maps = two_classes(task)
    logits = rng.normal(size=(1, 3, 4, info.num_outputs)).astype(np.float32)
    label = jnp.asarray(rng.integers(0, 2, (1, 3, 4, *maps)).astype(np.uint8))
    config = LossConfig(class_weights=(1.0, 3.0), args={"label_smoothing": 0.1})
    validate(Config(loss=config))
    loss = registry.resolve("losses", f"cross_entropy.{want}_cross_entropy")
    total = loss(logits, label, ignore_label=255, class_weights=(1.0, 3.0), label_smoothing=0.1)
    np.testing.assert_array_equal(make_loss(config, info)(logits, label, jnp.zeros((), jnp.int32)), total)


def test_arguments_that_only_sigmoids_take_are_known_before_the_task_is():
    validate(Config(loss=LossConfig(args={"pos_weight": 3.0})))
    with pytest.raises(UserError, match=r"'cross_entropy\.softmax_cross_entropy' takes no argument 'pos_weigt'"):
        validate(Config(loss=LossConfig(args={"pos_weigt": 3.0})))
    with pytest.raises(UserError, match="'pos_weight'"):
        validate(Config(loss=LossConfig(args={"pos_weight": 3.0}), data=DataConfig(task="multiclass")))


@pytest.mark.parametrize(
    ("task", "name", "remedy"),
    [
        ("binary", "dice.soft_dice", "data set cells is binary: take 'dice.sigmoid_dice'"),
        ("multilabel", "lovasz.lovasz_softmax", "data set cells is multilabel: take 'lovasz.lovasz_hinge'"),
        ("multiclass", "focal.sigmoid_focal", "data set cells is multiclass: take 'focal.softmax_focal'"),
    ],
)
def test_a_loss_of_another_task_is_refused_with_the_one_to_take(task, name, remedy):
    with pytest.raises(UserError, match=remedy):
        make_loss(LossConfig(added=(AddedLoss(name),)), two_classes(task)[0])


def test_class_weights_that_change_nothing_are_refused():
    binary = two_classes("binary")[0]
    with pytest.raises(UserError, match="has one class, the object, so that weights change nothing"):
        make_loss(LossConfig("dice.sigmoid_dice", class_weights=(1.0, 2.0)), binary)
    make_loss(LossConfig(added=(AddedLoss("dice.sigmoid_dice"),), class_weights=(1.0, 2.0)), binary)
