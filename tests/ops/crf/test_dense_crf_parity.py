"""The CRF against pydensecrf: its golden results, and where it is installed, real photos with a real network's logits.

On the host both compute the same lattice with the same roundings, so that only the order of sums differs; mean field
then amplifies what differs, most where classes are nearly equally likely.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from dense_crf_peer import CASES, GOLDEN, NUM_ITERATIONS, run_peer
from PIL import Image

from deeplab_jax.ops.crf.mean_field import mean_field
from deeplab_jax.ops.crf.parameters import CRFParams, unary_from_probabilities
from deeplab_jax.ops.resize import resize_bilinear

# Ten iterations of float32 sums in another order.
HOST_TOLERANCE = 1e-4
# The compiled builder contracts products and sums, which moves weights by 1e-5.
PROGRAM_TOLERANCE = 1e-3

PARAMETER_SETS = {
    "v2_vgg16": CRFParams(2.0, 2.0, 4.0, 65.0, 3.0),
    "v2_resnet101": CRFParams(3.0, 1.0, 4.0, 67.0, 3.0),
    "pydensecrf_readme": CRFParams(3.0, 3.0, 10.0, 80.0, 13.0),
    "crf_as_rnn": CRFParams(3.0, 3.0, 5.0, 160.0, 3.0, normalization="after"),  # the last photo's corner is dark
}
NAMES = ("2007_000032", "2007_000039", "camvid_0001TP_006690", "cats_and_dogs", "tfls_rider")


@pytest.mark.parametrize("name", CASES)
def test_golden_results(name):
    with np.load(GOLDEN) as golden:
        image, unary, want = (golden[f"{name}/{part}"] for part in ("image", "unary", "marginals"))
    assert (want.argmax(-1) != unary.argmax(-1)).mean() > 0.05, "the CRF did something"
    got = mean_field(unary, image, CASES[name][1], num_iterations=NUM_ITERATIONS)
    np.testing.assert_allclose(got, want, atol=HOST_TOLERANCE)


def _photo_and_unary(shared, name, size):
    """A photo at another size, and the 257 model's opinion of it."""
    folder = shared / "weights" / "golden_257"
    image = Image.open(folder / "inputs" / f"{name}.png").convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    logits = np.load(folder / "outputs" / f"{name}.npz")["logits_os8"]
    probabilities = jax.nn.softmax(resize_bilinear(logits[None], size, align_corners=True)[0])
    return np.asarray(image), np.asarray(unary_from_probabilities(probabilities))


def _check_against_peer(shared, name, size, params, **options):
    pytest.importorskip("pydensecrf.densecrf")
    image, unary = _photo_and_unary(shared, name, size)
    got = np.asarray(mean_field(unary, image, params, num_iterations=NUM_ITERATIONS, **options))
    want = run_peer(unary, image, params)
    np.testing.assert_allclose(got, want, atol=HOST_TOLERANCE if not options else PROGRAM_TOLERANCE)
    assert (got.argmax(-1) == want.argmax(-1)).mean() > 0.999


@pytest.mark.peer
@pytest.mark.parametrize(("set_name", "name"), list(zip(PARAMETER_SETS, NAMES[1:], strict=True)))
def test_photos_at_the_networks_own_size(shared, set_name, name):
    _check_against_peer(shared, name, (257, 257), PARAMETER_SETS[set_name])


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("size", [(375, 500), (333, 500), (500, 375), (281, 499)])
@pytest.mark.parametrize("set_name", PARAMETER_SETS)
def test_photos_of_voc_sizes(shared, set_name, size):
    for name in NAMES:
        _check_against_peer(shared, name, size, PARAMETER_SETS[set_name])


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("set_name", PARAMETER_SETS)
def test_photos_with_lattices_of_the_program(shared, set_name):
    for name in NAMES:
        _check_against_peer(shared, name, (257, 257), PARAMETER_SETS[set_name], filtering="program")
