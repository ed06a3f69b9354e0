"""The tutorial notebook: every cell runs, in order, and says what its text promises."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOK = REPOSITORY / "notebooks" / "tutorial.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text())["cells"]


@pytest.fixture(scope="module")
def names():
    """What the notebook has defined at its end."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(NOTEBOOK.parent)
        for index, cell in enumerate(cells()):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {index}", "exec"), names)
    return names


@pytest.mark.slow
def test_it_loads_predicts_and_fine_tunes(names):
    assert names["prediction"].shape == names["image"].shape[:2]
    assert set(np.unique(names["prediction"])) <= {0, 1}
    assert set(names["scores"]["iou_per_class"]) == {"ground", "object"}
    assert names["scores"]["mean_iou"] > 0.4  # one class everywhere would have less


@pytest.mark.slow
def test_it_shows_every_branch(names):
    assert sorted(names["branches"]) == ["aspp0", "aspp1", "aspp2", "aspp3", "image_pooling"]
    assert len({branch.shape for branch in names["branches"].values()} - {(1, 1, 1, 16)}) == 1


def test_links_lead_somewhere():
    text = "".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "markdown")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    assert all((NOTEBOOK.parent / target).exists() for target in targets)


def test_no_cell_holds_a_path_or_an_error():
    for cell in cells():
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert "/home/" not in json.dumps(output)
