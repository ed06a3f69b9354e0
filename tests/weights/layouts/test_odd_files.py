"""Every layout meets names and shapes of files that are not its own: it fits, or says why not."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import re

import numpy as np
import pytest

from deeplab_jax import registry
from deeplab_jax.apps.assembly import weights_file
from deeplab_jax.types import UserError

LAYOUTS = registry.module_names("weights.layouts")
SHAPES = [(), (0,), (1,), (3, 3), (21, 256, 1, 1), (2**40, 0), (1, 1, 1, 1, 1), (0, 0, 0, 0)]


def _names(layout):
    """Names in the layout's own source, whose lookups are those that may fail."""
    source = pathlib.Path(importlib.import_module(f"deeplab_jax.weights.layouts.{layout}").__file__).read_text()
    texts = re.findall(r'"([\w./:-]{3,60})"', source)
    return list(dict.fromkeys(texts))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_names_and_shapes(layout, rng):
    names = _names(layout)
    odd = ["", ".", "/", "a\x1b[31m", "9" * 5000, *(f"{name}.weight" for name in names), *(f"{n}/x" for n in names)]
    for _ in range(60):
        chosen = rng.choice(names + odd, size=rng.integers(1, len(names) + len(odd)))
        shapes = {str(name): SHAPES[rng.integers(len(SHAPES))] for name in chosen}
        with contextlib.suppress(ValueError):  # the reason why it does not fit
            weights_file._recognize(layout, shapes)


@pytest.mark.parametrize("shape", [(), (0, 256, 1, 1), (2**40, 0)])
def test_an_odd_classifier_in_a_real_network(shape, tmp_path):
    names = ("backbone.conv1.weight", "classifier.4.weight", "classifier.0.convs.0.0.weight")
    np.savez(tmp_path / "odd.npz", **dict.fromkeys(names, np.zeros(shape, np.float32)))
    with pytest.raises(UserError, match=r"no layout fits|without arrays"):
        weights_file.read_file(str(tmp_path / "odd.npz"), "")
