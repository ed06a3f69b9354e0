"""What cannot be learned is named before training: a class that never occurs, or that the ignore label hides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_binary import save_grey, write_discs

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.data.inspection.vanished_class import describe_vanished, require_classes
from deeplab_jax.data.sources.legend import Legend, legend_of_ids
from deeplab_jax.data.sources.raw_copy import with_raw_copies
from deeplab_jax.data.sources.stored_labels import LabelPixels
from deeplab_jax.types import DatasetInfo, UserError

INFO = DatasetInfo("made", 3, 255, ("ground", "a", "b"), ((0, 0, 0),) * 3, {})
ASSUMED = Legend(legend_of_ids(INFO).meaning, 255, ignore_is_assumed=True)


def described(*pixels, num_ignored, legend=ASSUMED, info=INFO):
    return describe_vanished(LabelPixels(np.array(pixels), num_ignored, sum(pixels)), info, "train", legend)


def test_a_class_hidden_by_the_ignore_label():
    told = described(100, 20, 0, num_ignored=30)
    assert told.startswith(
        "train: never shows b, and 255, which is ignored, fills 60% of what is not 'ground': if it is"
    )
    assert '"values": {..., "255": "b"}; if it is to be ignored, "ignore_label": 255' in told


@pytest.mark.parametrize(
    ("pixels", "num_ignored", "legend"),
    [
        ((100, 20, 1), 90, ASSUMED),  # every class occurs
        ((100, 20, 0), 6, ASSUMED),  # a border
        ((100, 20, 0), 90, legend_of_ids(INFO)),  # declared
    ],
)
def test_borders_and_declared_labels_are_no_fault(pixels, num_ignored, legend):
    assert described(*pixels, num_ignored=num_ignored, legend=legend) == ""


def test_nothing_but_background():
    told = described(100, 0, 0, num_ignored=50, legend=None)
    assert told == (
        "train: shows only 'ground' (33.3% of the pixels are ignored): nothing can be learned; label a, b, or, if 255, "
        'which is ignored, is one of them, say so in classes.json as "values": {..., "255": "a"}'
    )
    assert described(100, 0, 0, num_ignored=0).endswith("nothing can be learned; label a, b")


def hidden(ids, path):
    save_grey(np.array([0, 1, 255], np.uint8)[ids], path)


def test_training_stops_and_lint_tells_the_same(tmp_path):
    root = write_discs(tmp_path / "data", hidden, num_objects=2, classes=("ground", "a", "b"))
    dataset = folder.open_dataset(str(root), str(tmp_path / "prepared"))
    for form in (dataset, with_raw_copies(dataset)):
        with pytest.raises(
            UserError, match="data set folder: train: never shows b, and 255, which is ignored"
        ) as stopped:
            require_classes(form.open_split("train"), form, "train")
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    (finding,) = [each for each in report.findings if each.kind == "vanished_class"]
    assert f"data set folder: {finding.message}" == str(stopped.value)
    assert finding.severity == "error"
    content = {"class_names": ["ground", "a", "b"], "ignore_label": 255}
    (root / "classes.json").write_text(json.dumps(content))
    dataset = folder.open_dataset(str(root), str(tmp_path / "prepared"))
    require_classes(dataset.open_split("train"), dataset, "train")


def test_0_and_255_with_255_declared_as_ignored_are_still_nothing_to_learn(tmp_path):
    content = {"class_names": ["background", "disc"], "ignore_label": 255}
    root = write_discs(tmp_path / "data", lambda ids, path: save_grey(ids * 255, path), classes=content)
    dataset = folder.open_dataset(str(root), str(tmp_path / "prepared"))
    with pytest.raises(UserError, match=r"shows only 'background' .* nothing can be learned; label disc"):
        require_classes(dataset.open_split("train"), dataset, "train")
