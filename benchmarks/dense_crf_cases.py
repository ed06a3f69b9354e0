"""Shared by the CRF benchmarks: images, unary terms, the peer, and the timing of two sides."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

HEIGHT, WIDTH, NUM_CLASSES, NUM_ITERATIONS = 375, 500, 21, 10
PRESET_NAMES = ("v2_vgg16", "v2_resnet101", "ccvl", "pydensecrf_readme", "crf_as_rnn")

Times = dict[str, list[tuple[float, float]]]  # side -> (wall, CPU) seconds of each round


def load_images(paths: list[pathlib.Path]) -> list[np.ndarray]:
    """The images at the benchmark's size, or one synthetic image."""
    return [_load(path) for path in paths] or [_make_up_photo()]


def _load(path: pathlib.Path) -> np.ndarray:
    from PIL import Image

    return np.array(Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def _make_up_photo() -> np.ndarray:
    """Noise whose amplitude falls with frequency as in photos, with mostly the same detail in all colours."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1
    noise = [
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(HEIGHT, WIDTH))) / frequency**1.2, s=(HEIGHT, WIDTH))
        for _ in range(4)
    ]
    gray, *colors = [field / field.std() for field in noise]
    return np.clip(np.stack([gray + 0.4 * color for color in colors], -1) * 45 + 110, 0, 255).astype(np.uint8)


def opinion(image: np.ndarray) -> np.ndarray:
    """Log-probabilities that a network might give: 33x33 scores of brightness bands, enlarged."""
    height, width = image.shape[:2]
    rows, columns = (np.linspace(0, size - 1, 33).astype(int) for size in (height, width))
    gray = image.mean(-1)[rows][:, columns]
    scores = -(((gray[..., None] - np.linspace(0, 255, NUM_CLASSES)) / 20) ** 2)
    weights = []
    for size in (height, width):
        position = np.linspace(0, 32, size)
        weights.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(33))))
    logits = np.einsum("Hh,hwc,Ww->HWc", weights[0], scores, weights[1])
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    return np.log(probabilities.clip(1e-5)).astype(np.float32)


def run_peer(unary: np.ndarray, image: np.ndarray, params) -> tuple[np.ndarray, tuple[float, float]]:
    """pydensecrf's marginals, and its seconds for both lattices and for inference."""
    from pydensecrf import densecrf

    normalization = {"symmetric": densecrf.NORMALIZE_SYMMETRIC, "after": densecrf.NORMALIZE_AFTER}[params.normalization]
    height, width, num_classes = unary.shape
    energy = np.array(-unary.reshape(-1, num_classes).T, order="C")
    crf = densecrf.DenseCRF2D(width, height, num_classes)
    crf.setUnaryEnergy(energy)
    image = np.array(image, order="C")
    start = time.perf_counter()
    crf.addPairwiseGaussian(sxy=params.pos_xy_std, compat=params.pos_w, normalization=normalization)
    crf.addPairwiseBilateral(
        sxy=params.bi_xy_std, srgb=params.bi_rgb_std, rgbim=image, compat=params.bi_w, normalization=normalization
    )
    built = time.perf_counter()
    marginals = np.array(crf.inference(NUM_ITERATIONS)).reshape(num_classes, height, width).transpose(1, 2, 0)
    return marginals, (built - start, time.perf_counter() - built)


def interleave(sides: dict[str, Callable], num_rounds: int) -> tuple[Times, dict]:
    """Times of each side and round, and the results; the first round, which compiles, is not counted."""
    results = {side: run() for side, run in sides.items()}
    times: Times = {side: [] for side in sides}
    for _ in range(num_rounds):
        for side, run in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[side].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times, results


def medians(times: Times) -> tuple[dict[str, float], dict[str, float]]:
    """(wall, CPU) seconds of each side."""
    wall = {side: statistics.median(each for each, _ in pairs) for side, pairs in times.items()}
    return wall, {side: statistics.median(each for _, each in pairs) for side, pairs in times.items()}


def versions() -> dict[str, str]:
    names = ("jax", "numpy", "pydensecrf2")
    return {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}
