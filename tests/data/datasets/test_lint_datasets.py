"""Every data set of the suite can be checked: nothing is wrong with what it makes, and what is planted is found."""

from __future__ import annotations

import pytest
from test_datasets import FORMS

from deeplab_jax import registry
from deeplab_jax.data.inspection.linter import lint_dataset


def open_made(name, folder):
    FORMS[name][0](folder / "original")
    open_dataset = registry.resolve("data.datasets", f"{name}.open_dataset")
    return open_dataset(str(folder / "original"), str(folder / "prepared"))


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"shapes"}))
def test_no_error_in_good_data(name, tmp_path):
    dataset = open_made(name, tmp_path)
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    assert dataset.originals is not None
    # The suite's splits share images, and its masks are of noise: that is all there is to say.
    assert {finding.kind for finding in report.findings if finding.severity == "error"} <= {"shared_image"}
    for split, counts in report.counts.items():
        assert counts.num_images == dataset.info.splits[split]


@pytest.mark.parametrize("name", sorted(set(FORMS) - {"shapes"}))
def test_a_missing_image_is_found_in_every_form(name, tmp_path):
    dataset = open_made(name, tmp_path)
    path = dataset.originals.samples["train"][0].image
    path.unlink()
    report = lint_dataset(dataset, train_split="train", eval_split="val")
    assert [finding.file for finding in report.findings if finding.kind == "missing_file"] == [str(path)]
