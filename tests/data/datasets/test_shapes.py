"""The rendered scenes: the same on every run, honest about their classes, thin parts and borders included."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest

from deeplab_jax.data.sources import rendering

NUM_SCENES = 60


@pytest.fixture(scope="module")
def scenes():
    return [rendering.render_scene(np.random.default_rng(seed), (128, 160)) for seed in range(NUM_SCENES)]


def test_a_seed_is_a_scene(scenes):
    image, label = rendering.render_scene(np.random.default_rng(7), (128, 160))
    np.testing.assert_array_equal(image, scenes[7][0])
    np.testing.assert_array_equal(label, scenes[7][1])
    assert not np.array_equal(scenes[7][0], scenes[8][0])


def test_every_class_is_common(scenes):
    present = np.array([[(label == class_id).any() for class_id in range(7)] for _, label in scenes])
    assert present[:, 0].all()
    assert (present[:, 1:].mean(axis=0) > 0.25).all()


def test_border_lies_between_different_ids_and_nowhere_else(scenes):
    kernel = np.ones((3, 3), np.uint8)
    for _, label in scenes[:10]:
        known = label != rendering.IGNORE_LABEL
        assert 0.02 < (~known).mean() < 0.2
        # Across a border of ignored pixels no two different ids touch.
        highest = cv2.dilate(np.where(known, label, 0), kernel)
        lowest = cv2.erode(np.where(known, label, 255), kernel)
        assert (highest[known] == lowest[known]).all()
        # And every ignored pixel is near one that is known.
        assert (cv2.dilate(known.astype(np.uint8), np.ones((5, 5), np.uint8)) == 1).all()


def test_color_helps_but_does_not_decide(scenes):
    """The class of the nearest hue is right for about half of the objects: more than chance, far from always."""
    right = []
    for image, label in scenes:
        for class_id in range(1, 7):
            if (label == class_id).sum() > 20:
                hue = colorsys.rgb_to_hsv(*image[label == class_id].mean(axis=0))[0]
                right.append(round(6 * hue) % 6 == class_id % 6)
    assert 0.3 < np.mean(right) < 0.7


def test_objects_stand_out(scenes):
    """Outlines can be seen: across them the colour changes more than elsewhere."""
    for image, label in scenes[:10]:
        edges = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
        change = np.hypot(cv2.Sobel(edges, cv2.CV_32F, 1, 0), cv2.Sobel(edges, cv2.CV_32F, 0, 1)).sum(axis=-1)
        assert change[label == rendering.IGNORE_LABEL].mean() > 2 * change[label == 0].mean()
