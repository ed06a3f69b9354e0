"""The tutorial notebook: every cell runs, in order, and says what its text promises."""

from __future__ import annotations

import ast
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
def test_its_own_loop_learns(names):
    assert names["losses"][-1] < 0.5 * names["losses"][0]
    assert (names["mine"].segment(names["image"]) == names["ids"]).mean() > 0.7  # the ground alone would have less


@pytest.mark.slow
def test_it_shows_every_branch(names):
    assert sorted(names["branches"]) == ["aspp0", "aspp1", "aspp2", "aspp3", "image_pooling"]
    assert len({branch.shape for branch in names["branches"].values()} - {(1, 1, 1, 16)}) == 1


def test_links_lead_somewhere():
    text = "".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "markdown")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets
    assert all((NOTEBOOK.parent / target).exists() for target in targets)


def test_it_imports_the_public_face_alone():
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in imported if name.startswith("deeplab_jax.")]
    assert "deeplab_jax" in imported
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(str(module).startswith("deeplab_jax") for module in modules)
    assert "sys" not in imported


def test_no_cell_holds_a_path_or_an_error():
    for cell in cells():
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert "/home/" not in json.dumps(output)
