"""Where a peer is installed: its names are those of the golden file, and the whole of its outputs is ours."""

from __future__ import annotations

import golden_files
import numpy as np
import pytest
from both_sides import drawn_arrays, our_output, peer_output, peer_shapes
from drawn_arrays import drawn_images
from parity_cases import CASES
from test_golden import PARAMS, TOLERANCE


@pytest.mark.peer
@pytest.mark.parametrize("name", PARAMS)
def test_outputs_are_the_installed_peers(name, tmp_path):
    case = CASES[name]
    peer = case.build()
    shapes = peer_shapes(peer)
    assert shapes == golden_files.read(name).shapes
    arrays = drawn_arrays(case, shapes)
    theirs, ours = peer_output(case, peer, arrays), our_output(case, arrays, tmp_path, case.layout)
    for size in case.sizes:
        images = drawn_images(name, size)
        expected = theirs(images)
        assert np.abs(ours(images) - expected).max() < TOLERANCE * expected.std()
