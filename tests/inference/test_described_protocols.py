"""What scores say of the settings that they were made with, and the way back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from deeplab_jax.inference.protocols import PROTOCOLS, as_described, describe_passes
from deeplab_jax.inference.settings import InferenceConfig, MeasureConfig

KEYS = {
    "name", "scales", "flip", "fuse", "window", "stride", "blend", "pad_to", "bucket", "resize_input", "labels",
    "center_crop", "compute_dtype", "crf",
}  # fmt: skip


def _settings(name):
    chosen = PROTOCOLS[name].settings.items()
    return InferenceConfig(**{path.partition(".")[2]: value for path, value in chosen if path.startswith("inf")})


def test_the_keys_are_those_of_all_scores():
    described = describe_passes(InferenceConfig(protocol="v1_val", resize_labels=True))
    assert set(described) == KEYS
    assert described["name"] == "v1_val"
    assert described["labels"] == "original"  # nothing is resized
    assert [key for key in KEYS if described[key] is None] == [
        key for key in KEYS if key in ("window", "stride", "blend", "resize_input", "center_crop", "crf")
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_settings_come_back_from_what_scores_say(name):
    settings = _settings(name)
    described = json.loads(json.dumps(describe_passes(settings)))
    other = InferenceConfig(window=(65, 65), blend="uniform", crf="v1", resize_shorter=7, batch_size=3)
    found = as_described(other, described)
    assert describe_passes(found) == described
    assert found.batch_size == 3  # which is no part of it
    if settings.window != (0, 0) and settings.resize_shorter:
        assert described["resize_input"] == {
            "shorter": settings.resize_shorter, "longer": settings.resize_longer, "antialias": settings.resize_antialias
        }  # fmt: skip


def test_older_scores_leave_the_rest_as_it_is():
    settings = InferenceConfig(fuse="max", bucket=32, measures=MeasureConfig(trimap=True))
    found = as_described(settings, {"dataset": "toy", "flip": True, "scales": [1.0, 0.5]})
    assert found == dataclasses.replace(settings, flip=True, scales=(1.0, 0.5))
