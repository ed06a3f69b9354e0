"""StableHLO files: any number of images of any size, for three platforms, without this project."""

from __future__ import annotations

import jax
import jax.export
import numpy as np
import pytest
from small_network import PAD_PIXEL, expected_logits, make_network, patches, program_of

from deeplab_jax.canvas import Canvas
from deeplab_jax.export.formats import stablehlo
from deeplab_jax.export.program import Format, make_program, require_packages
from deeplab_jax.models.multi_scale import MultiScaleDeepLab
from deeplab_jax.types import UserError

CANVAS = Canvas((1, 1), 16)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.stablehlo"
    stablehlo.write(program_of(*make_network()), path)
    return path


def test_the_logits_and_ids_of_images_of_any_number_and_size(written, rng):
    run = stablehlo.load(written)
    for shape in ((1, 33, 49), (3, 20, 41)):
        images = patches(rng, shape)
        expected = expected_logits(*make_network(), images, CANVAS)
        outputs = run(images)
        # The same sums in another order: float32 keeps seven digits of logits of size ten.
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)
        np.testing.assert_array_equal(outputs["class_ids"], outputs["logits"].argmax(-1))
        assert outputs["class_ids"].dtype == np.uint8
        assert len(np.unique(outputs["class_ids"])) > 1  # else the comparison could not fail


def test_the_file_holds_its_weights_and_serves_three_platforms(written):
    exported = jax.export.deserialize(bytearray(written.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval) for aval in exported.in_avals] == ["uint8[b,h,w,3]"]
    assert "b,h,w" in str(exported.out_avals[0])


@pytest.mark.parametrize("padding", ["tf_same", "symmetric"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_each_convention_is_written_for_any_size(padding, align_corners, tmp_path):
    stablehlo.write(program_of(*make_network(align_corners, padding)), tmp_path / "model")


def test_a_network_that_must_know_its_size_is_refused_and_takes_a_fixed_one(tmp_path, rng):
    model, variables = make_network()
    several = MultiScaleDeepLab(model.backbone, model.head, model.normalization, True, scales=(1.0, 0.5))
    with pytest.raises(UserError, match=r"--config\.export\.size") as error:
        stablehlo.write(program_of(several, variables), tmp_path / "model")
    assert "\n" not in str(error.value)
    stablehlo.write(program_of(several, variables, canvas=Canvas((33, 49), 0)), tmp_path / "model")


def test_images_of_a_fixed_canvas_may_be_smaller_but_not_larger(tmp_path, rng):
    def brightness(variables, images, *, train):
        assert images.shape[1:3] == (12, 16)
        return images.astype(np.float32)

    program = make_program(brightness, {}, outputs=("logits",), canvas=Canvas((12, 16), 0), pad_pixel=PAD_PIXEL)
    stablehlo.write(program, tmp_path / "model")
    run = stablehlo.load(tmp_path / "model")
    images = patches(rng, (2, 9, 16))
    np.testing.assert_array_equal(run(images)["logits"], images)
    with pytest.raises(ValueError, match="shapes"):
        run(patches(rng, (1, 12, 17)))


def test_other_channels_keep_their_type(tmp_path, rng):
    """Two channels of 16 bits, in a network without weights."""

    def apply_fn(variables, images, *, train):
        return images.astype(np.float32)

    program = make_program(
        apply_fn, {}, outputs=("probabilities",), canvas=CANVAS, pad_pixel=(7.0, 9.0), dtype="uint16"
    )
    stablehlo.write(program, tmp_path / "model")
    images = rng.integers(0, 3, (1, 5, 6, 2), dtype=np.uint16)
    outputs = stablehlo.load(tmp_path / "model")(images)
    assert set(outputs) == {"probabilities"}
    np.testing.assert_allclose(outputs["probabilities"], jax.nn.softmax(images.astype(np.float32)), atol=1e-6)


def test_a_missing_package_is_named_with_its_command():
    missing = Format("model", lambda *_: None, lambda _: None, ("a-package",), ("no_such_module",))
    with pytest.raises(UserError, match=r"^--format=x: needs more packages: pip install a-package$"):
        require_packages("x", missing)
