"""The warning that a network answers one class whatever it sees."""

from __future__ import annotations

import types

import numpy as np
import pytest

from deeplab_jax.apps.modes import train
from deeplab_jax.apps.pages.score_table import collapse_warning
from deeplab_jax.inference.evaluator import Evaluation

NAMES = ("ground", "red", "green")


def warning_of(confusion):
    return collapse_warning({"confusion": confusion, "iou_per_class": dict.fromkeys(NAMES, 0.0)})


@pytest.mark.parametrize(
    "confusion",
    [
        [[700, 0, 0], [200, 0, 0], [100, 0, 0]],
        [[7000, 0, 0], [1990, 10, 0], [980, 5, 15]],
        [[9950, 0, 0], [40, 0, 0], [10, 0, 0]],  # nearly one class in the labels too, but nothing else is found
    ],
)
def test_collapsed(confusion):
    line = warning_of(confusion)
    assert line.startswith("predictions have collapsed to 'ground': ")
    assert "\n" not in line
    assert "--mode=lint" in line
    assert "config.loss.class_weights=balanced" in line


def test_it_says_how_many_are_labelled_so():
    assert "100.0% of the pixels, of which 70.0% are labelled so" in warning_of([[700, 0, 0], [200, 0, 0], [100, 0, 0]])


@pytest.mark.parametrize(
    "confusion",
    [
        [[700, 0, 0], [20, 180, 0], [100, 0, 0]],
        [[9950, 0, 0], [10, 30, 0], [2, 0, 8]],  # a good network on a split of nearly one class
        [[1000, 0, 0], [0, 0, 0], [0, 0, 0]],  # there is nothing else to find
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    ],
)
def test_not_collapsed(confusion):
    assert warning_of(np.array(confusion).tolist()) is None


@pytest.mark.usefixtures("unchecked_types")
def test_training_says_it_after_an_evaluation(capsys, tmp_path):
    scores = {"confusion": [[7, 0], [3, 0]], "iou_per_class": {"ground": 0.7, "red": 0.0}, "mean_iou": 0.35}
    evaluation = Evaluation(np.array(scores["confusion"]), scores, [], 1)
    curve = types.SimpleNamespace(write_evaluation=lambda step, scores: None)
    never_best = types.SimpleNamespace(is_best=lambda scores: False)
    evaluate = train._make_evaluate(lambda variables: evaluation, tmp_path, never_best, curve)
    assert evaluate(40, types.SimpleNamespace(eval_variables={})) == scores
    assert "warning: step 40: predictions have collapsed to 'ground'" in capsys.readouterr().out
