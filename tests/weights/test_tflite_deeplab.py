"""The published TFLite network (DeepLab v3, MobileNetV2 0.5, 257 pixels) against what LiteRT computes with it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.apps.import_weights import import_checkpoint
from deeplab_jax.models.build import build_model

FOLDER = "weights/golden_257"
PHOTOS = ("2007_000032", "2007_000039", "camvid_0001TP_006690", "cats_and_dogs", "tfls_rider")


@pytest.fixture(scope="module")
def predict(shared):
    """Images -> logits at stride 8, and at the images' size."""
    config, variables = import_checkpoint(str(shared / "weights" / "deeplabv3_257_mv_gpu.tflite"), layout="tflite")
    network = build_model(config)

    def both_sizes(module, images):
        scores = module.scores(module.normalize(images), train=False)
        return scores, module.at_size(scores, images.shape[1:3], train=False)

    return jax.jit(lambda images: network.apply(variables, images, method=both_sizes))


def _read(path):
    return np.asarray(Image.open(path).convert("RGB"))[None]


@pytest.mark.parametrize("name", PHOTOS)
def test_logits_are_the_interpreters(name, predict, shared):
    scores, logits = predict(_read(shared / FOLDER / "inputs" / f"{name}.png"))
    wanted = np.load(shared / FOLDER / "outputs" / f"{name}.npz")["logits_os8"]
    # Logits spread over 5 to 7 and reach 30; the same products are summed in another order (measured: 5e-5).
    np.testing.assert_allclose(scores[0], wanted, atol=2e-4)
    labels = np.asarray(Image.open(shared / FOLDER / "outputs" / f"{name}_argmax.png"))
    np.testing.assert_array_equal(np.argmax(logits[0], -1), labels)


def test_the_published_mask_comes_out(predict, shared):
    """Class id times 10, on every pixel: the network's own last step is a resize with aligned corners."""
    _, logits = predict(_read(shared / FOLDER / "published" / "segmentation_input_rotation0.jpg"))
    published = np.asarray(Image.open(shared / FOLDER / "published" / "segmentation_golden_rotation0.png"))
    assert set(np.unique(published)) == {0, 130, 150}  # a horse and its rider
    np.testing.assert_array_equal(np.argmax(logits[0], -1) * 10, published)
