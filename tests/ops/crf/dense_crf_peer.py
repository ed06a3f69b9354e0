"""pydensecrf as a peer: runs it, and the small made-up photo that its golden results are of."""

from __future__ import annotations

import pathlib

import numpy as np

from deeplab_jax.ops.crf.parameters import CRFParams

GOLDEN = pathlib.Path(__file__).resolve().parent / "dense_crf_golden.npz"
NUM_ITERATIONS = 10
NUM_CLASSES = 5
CASES = {  # name -> ((height, width), params); 29 x 37 is one more than a multiple of 4
    "v2_resnet101": ((30, 40), CRFParams(3.0, 1.0, 4.0, 67.0, 3.0)),
    "readme": ((29, 37), CRFParams(3.0, 3.0, 10.0, 80.0, 13.0)),
    "after": ((29, 37), CRFParams(2.0, 2.0, 4.0, 65.0, 3.0, normalization="after")),
    "matrix": ((30, 40), CRFParams(1.0, 3.0, 1.0, 49.0, 5.0, compatibility=2.0 - 3.0 * np.eye(NUM_CLASSES))),
}


def run_peer(unary, image, params, num_iterations=NUM_ITERATIONS):
    """pydensecrf's marginals for log-probabilities, [h, w, c]; it knows one compatibility per kernel."""
    from pydensecrf import densecrf

    height, width, num_classes = unary.shape
    normalization = {"symmetric": densecrf.NORMALIZE_SYMMETRIC, "after": densecrf.NORMALIZE_AFTER}[params.normalization]

    def compatibility(weight):
        return weight if params.compatibility is None else np.float32(weight * params.compatibility)

    crf = densecrf.DenseCRF2D(width, height, num_classes)
    crf.setUnaryEnergy(np.array(-unary.reshape(-1, num_classes).T, np.float32, order="C"))
    crf.addPairwiseGaussian(sxy=params.pos_xy_std, compat=compatibility(params.pos_w), normalization=normalization)
    crf.addPairwiseBilateral(
        sxy=params.bi_xy_std,
        srgb=params.bi_rgb_std,
        rgbim=np.array(image, order="C"),
        compat=compatibility(params.bi_w),
        normalization=normalization,
    )
    marginals = np.array(crf.inference(num_iterations), np.float32)
    return marginals.reshape(num_classes, height, width).transpose(1, 2, 0)


def draw_photo(rng, height, width):
    """(image, unary): regions that fade to black in the first corner, and a noisy, blurred opinion of them."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    centers = rng.random((NUM_CLASSES, 2))
    near = np.stack([-8 * ((x - cx) ** 2 + (y - cy) ** 2) for cx, cy in centers], -1)
    region = near.argmax(-1)
    colors = rng.integers(20, 250, (NUM_CLASSES, 3))
    image = colors[region] * np.clip(4 * (x + y), 0, 1)[..., None] + rng.normal(size=(height, width, 3)) * 4
    unary = near + 0.6 * rng.normal(size=near.shape)
    return np.clip(image, 0, 255).astype(np.uint8), unary.astype(np.float32)
