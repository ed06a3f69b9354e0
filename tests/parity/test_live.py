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


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision_deeplabv3_mobilenet_v3_large", "torchvision_deeplabv3_resnet50"])
@pytest.mark.parametrize("size", [(480, 520), (223, 301)])
def test_sizes_of_any_form_give_the_peers_logits(name, size, tmp_path):
    """The reference scripts' crop and shorter side, and a size that is no multiple of anything, nor one more."""
    case = CASES[name]
    peer = case.build()
    arrays = drawn_arrays(case, peer_shapes(peer))
    images = drawn_images(name, size)
    expected = peer_output(case, peer, arrays)(images)
    got = our_output(case, arrays, tmp_path, case.layout)(images)
    assert np.abs(got - expected).max() < 1e-4 * expected.std()


@pytest.mark.peer
def test_smp_refuses_what_is_no_multiple_of_its_stride_and_ours_computes_it(tmp_path):
    name = "smp_deeplabv3plus_resnet34"
    case = CASES[name]
    peer = case.build()
    arrays = drawn_arrays(case, peer_shapes(peer))
    images = drawn_images(name, (50, 83))
    with pytest.raises(RuntimeError, match="Wrong input shape"):
        peer_output(case, peer, arrays)(images)
    assert our_output(case, arrays, tmp_path, case.layout)(images).shape == (1, 50, 83, 21)
