"""Where a peer is installed: its names are those of the golden files, and the whole of its outputs is ours."""

from __future__ import annotations

import golden_files
import numpy as np
import pytest
from both_sides import drawn_arrays, our_output, peer_output, peer_shapes
from drawn_arrays import drawn_images
from parity_cases import CASES
from test_golden import TOLERANCE

# One of each peer in every run: the golden files speak for the others.
QUICK = (
    "torchvision_lraspp_mobilenet_v3_large",
    "timm_xception41",
    "smp_deeplabv3_mobilenet_v2",
    "transformers_deeplabv3_mobilenet_v2",
)


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_names_are_the_installed_peers(name):
    assert peer_shapes(CASES[name].build()) == golden_files.read(name).shapes


@pytest.mark.peer
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES]
)
def test_outputs_are_the_installed_peers(name, tmp_path):
    case = CASES[name]
    peer = case.build()
    arrays = drawn_arrays(case, peer_shapes(peer))
    theirs, ours = peer_output(case, peer, arrays), our_output(case, arrays, tmp_path, case.layout)
    for size in case.sizes:
        images = drawn_images(name, size)
        expected = theirs(images)
        assert np.abs(ours(images) - expected).max() < TOLERANCE * expected.std()
