"""Imported networks compute what their systems' do: logits against twins in PyTorch, by way of a file."""

from __future__ import annotations

import copy
import functools

import jax
import numpy as np
import pytest
from torch_peers import draw_weights, import_peer, relative_error, to_torch

from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.models.build import build_model

NUM_CLASSES = 3
# Of the images: odd and even, and so long that the pyramid's largest rate reaches from one end to the other.
STRIDE_8, STRIDE_16 = ((33, 321), (48, 328)), ((33, 609), (48, 608))
TWINS = {
    "detectron2": ("Detectron2", ((32, 608), (64, 608))),  # its images are multiples of 32
    "jfzhang": ("Jfzhang", STRIDE_16),
    "kazuto": ("Kazuto", STRIDE_8),
    "mmseg": ("Mmseg", STRIDE_8),
    "mmseg_fcn": ("MmsegFcn", ((33, 65), (48, 72))),
    "vainf": ("VainfResNet", STRIDE_16),
    "vainf_mobilenet": ("VainfMobileNetV2", STRIDE_16),
}
POOLING_SIZE = (32, 512)  # detectron2's windows, as large as crops of training
# On weights drawn at random PyTorch itself is 2e-4 off what it computes in float64.
TOLERANCE = 1e-3
CHANGES = [
    ("detectron2", "head", "pooling_size", (0, 0)),
    ("detectron2", "backbone", "multi_grid", (1, 1, 1)),
    ("detectron2", "backbone", "carrier_rate", "old"),
    ("jfzhang", "backbone", "multi_grid", (1, 1, 1)),
    ("jfzhang", "backbone", "carrier_rate", "old"),
    ("kazuto", "backbone", "strided_conv", "conv2"),
    ("kazuto", "backbone", "carrier_rate", "old"),
    ("kazuto", "backbone", "pool_padding", "symmetric"),
    ("mmseg", "backbone", "carrier_rate", "new"),
    ("vainf", "backbone", "carrier_rate", "new"),
    ("vainf_mobilenet", "backbone", "padded_expansion", False),
    ("vainf_mobilenet", "backbone", "stem_padding", "symmetric"),
    ("vainf_mobilenet", "backbone", "carrier_rate", "new"),
]
pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Name of a twin -> config and variables of ours, images, the twin's logits."""

    @functools.cache
    def make(name):
        rng = np.random.default_rng(0)
        class_name, sizes = TWINS[name]
        images = [rng.integers(0, 256, (1, *size, 3)).astype(np.uint8) for size in sizes]
        # So different from one another that what is pooled from them varies, and its batch norm amplifies no rounding.
        brightness = np.array([0.1, 0.4, 0.7, 1.0])[:, None, None, None]
        batch = np.floor(rng.integers(0, 256, (4, 33, 512, 3)) * brightness).astype(np.float32)
        twin = draw_weights(_build(class_name), rng, batch)
        path = tmp_path_factory.mktemp("twins") / "twin.npz"
        np.savez(path, **{key: tensor.numpy() for key, tensor in twin.state_dict().items()})
        config, variables = import_checkpoint(str(path), layout=name.partition("_")[0])
        if name == "detectron2":
            config.head.args["pooling_size"] = POOLING_SIZE
        return config, variables, images, [twin(to_torch(x.astype(np.float32))) for x in images]

    return make


def _build(class_name):
    import_peer("torchvision.models")
    import torch_twins
    import torch_twins_resnets

    make = getattr(torch_twins_resnets, class_name, None) or getattr(torch_twins, class_name)
    return make(NUM_CLASSES, (2, 32)) if class_name == "Detectron2" else make(NUM_CLASSES)


def _errors(config, variables, images, theirs):
    apply = jax.jit(functools.partial(build_model(config).apply, variables))
    return [relative_error(apply(x), logits) for x, logits in zip(images, theirs, strict=True)]


@pytest.mark.parametrize("name", TWINS)
def test_logits_are_the_twins(name, imported):
    assert max(_errors(*imported(name))) < TOLERANCE


@pytest.mark.parametrize(("name", "part", "option", "value"), CHANGES)
def test_another_convention_is_another_network(name, part, option, value, imported):
    config, variables, images, theirs = imported(name)
    changed = copy.deepcopy(config)
    getattr(changed, part).args[option] = value
    # Even sizes alone, on which more conventions differ.
    assert min(_errors(changed, variables, images[1:], theirs[1:])) > 10 * TOLERANCE
