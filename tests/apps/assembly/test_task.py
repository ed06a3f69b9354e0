"""The task of a data set: as it says itself, or as the config reads its masks, where that can be."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.types import UserError

TWO = make_info("two", ("background", "cell"))
MAPS = dataclasses.replace(make_info("maps", ("roof", "window")), task="multilabel")


def test_two_classes_are_a_binary_task_where_the_config_says_so():
    assert open_data.with_task(TWO, "") == TWO
    binary = open_data.with_task(TWO, "binary")
    assert (binary.task, binary.num_classes, binary.num_outputs) == ("binary", 2, 1)
    assert open_data.with_task(binary, "multiclass").num_outputs == 2
    assert open_data.with_task(MAPS, "").num_outputs == 2


@pytest.mark.parametrize(
    ("info", "task", "words"),
    [
        (make_info("one", ("cell",)), "", "class 'cell' alone.*config.data.task=binary"),
        (make_info("three", ("a", "b", "c")), "binary", r"has 3 classes \(a, b, c\); a binary task has two"),
        (TWO, "multilabel", "masks of data set two are multiclass: classes do not overlap"),
        (MAPS, "binary", "masks of data set maps are multilabel: classes overlap"),
    ],
)
def test_masks_of_another_task_are_refused(info, task, words):
    with pytest.raises(UserError, match=words):
        open_data.with_task(info, task)


@pytest.mark.parametrize("takes_task", [True, False])
def test_a_data_set_is_told_the_task_if_it_asks(monkeypatch, takes_task):
    module, told = types.ModuleType("two_classes"), []
    module.__file__ = "two_classes.py"

    def told_task(root, prepared_dir, task):
        told.append(task)
        return Dataset(TWO, lambda split: [])

    module.open_dataset = told_task if takes_task else lambda root, prepared_dir: Dataset(TWO, lambda split: [])
    monkeypatch.setitem(sys.modules, "two_classes", module)
    config = Config()
    config.data.dataset, config.data.task = "two_classes:open_dataset", "binary"
    assert open_data.open_dataset(config).info.task == "binary"
    assert told == (["binary"] if takes_task else [])
