"""All encoders with which segmentation_models.pytorch builds DeepLab v3+: here, or refused with the reason."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from both_sides import empty_variables, recognized
from torch_peers import import_peer

from deeplab_jax.apps.import_weights import model_config
from deeplab_jax.models.build import build_model
from deeplab_jax.weights.load import load_weights

# What is not here: how its names begin -> words of the refusal.
REFUSED = {
    "dpn": "DPN",
    "senet": "SENet",
    "se_": "SE-ResNet",
    "timm-efficientnet-b8": "EfficientNet",
    "timm-efficientnet-l2": "EfficientNet",
    "timm-tf_efficientnet_lite": "EfficientNet",
    "timm-skres": "SK-ResNe",
    "mobileone": "MobileOne",
}
NUM_LOADED = 28


@pytest.mark.peer
@pytest.mark.slow
def test_every_encoder_is_loaded_or_refused_by_name():
    smp, torch = import_peer("segmentation_models_pytorch"), import_peer("torch")
    loaded = 0
    for encoder in smp.encoders.encoders:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                module = smp.DeepLabV3Plus(encoder, encoder_weights=None, classes=21)
        except (ValueError, RuntimeError):
            continue  # it dilates no encoder that pools, nor transformers
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        words = next((words for start, words in REFUSED.items() if encoder.startswith(start)), "")
        if words:
            with pytest.raises(ValueError, match=words):
                recognized("smp", shapes)
            continue
        layout = recognized("smp", shapes)
        variables = empty_variables(build_model(model_config(layout.model)), np.int8)
        arrays = {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}
        _, report = load_weights(arrays, layout, variables)
        assert report.is_complete, encoder
        loaded += 1
    assert loaded == NUM_LOADED
