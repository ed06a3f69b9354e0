"""The public face: DESIGN's snippets, what it costs to import, and what it answers to wrong input."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import os
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs
from PIL import Image

import deeplab_jax as dl
from deeplab_jax.apps import library, listing
from deeplab_jax.config import BatchNormConfig

SMALL = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
TINY = {
    "num_units": (1, 1, 1, 1),
    "multi_grid": (1,),
    "strided_unit": "first",
    "width": 0.125,
}  # few layers: compiles quickly
SIZE = (40, 48)


def make(**arguments):
    arguments = {"backbone": "resnet.ResNet", "num_classes": 3, "backbone_args": TINY, "head_args": SMALL} | arguments
    return dl.create("v3plus", **arguments)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def in_a_process(code):
    """What Python code prints, in a process of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- importing


def test_the_door_opens_at_once_and_touches_no_device():
    code = "import time, sys; start = time.perf_counter(); import deeplab_jax as dl;"
    code += "seconds = time.perf_counter() - start; dl.__version__; dir(dl); print(seconds, *sys.modules)"
    seconds, *modules = in_a_process(code).split()
    packages = {name.partition(".")[0] for name in modules}
    assert not packages & {"jax", "flax", "numpy", "optax", "jaxtyping", "clu"}
    assert float(seconds) < 1.0  # 0.3 s where nothing else runs


def test_a_config_loads_no_jax():
    assert "jax" not in in_a_process("import sys, deeplab_jax as dl; dl.Config(); print(*sys.modules)").split()


def test_train_and_export_are_packages_and_functions():
    code = "import deeplab_jax as dl, deeplab_jax.train.step as step, deeplab_jax.export.program as program;"
    code += "print(callable(dl.train), callable(dl.export), step.__name__, dl.train.step is step)"
    assert in_a_process(code) == "True True deeplab_jax.train.step True"


def test_the_names_are_all_there_and_a_wrong_one_is_answered():
    for name in dir(dl):
        assert getattr(dl, name) is not None
    wanted = "Config Model UserError create evaluate export list_backbones list_configs list_datasets list_heads"
    wanted += " list_layouts list_losses list_models list_pretrained load losses metrics ops train"
    assert set(wanted.split()) <= set(dir(dl))
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; did you mean 'load'"):
        dl.lod  # noqa: B018


def test_type_checkers_see_the_same_names():
    """Two lists, one for them and one for Python, which must not import: they must agree."""
    for package in (dl, dl.losses, dl.metrics, dl.ops):
        tree = ast.parse(pathlib.Path(package.__file__).read_text())
        block = next(node for node in tree.body if isinstance(node, ast.If))
        seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert seen == {name for name in dir(package) if not name.startswith("_")}, package.__name__


# ---- a network, as DESIGN section 10 has it


def test_segment_probabilities_overlay(model, image, tmp_path):
    mask = model.segment(image)
    assert (mask.shape, mask.dtype) == (SIZE, np.uint8)
    probabilities = model.probabilities(image)
    assert (probabilities.shape, probabilities.dtype) == ((*SIZE, 3), np.float32)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(-1), mask)
    picture = model.overlay(image, mask)
    assert (picture.shape, picture.dtype) == (image.shape, np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    for given in (path, str(path), Image.open(path), jnp.asarray(image)):
        np.testing.assert_array_equal(model.segment(given), mask)


def test_a_list_gives_a_list_in_its_order(model, image):
    images = [image, image[:20], image[::-1], image[:, :30]]
    masks = model.segment(images, batch_size=2)
    assert [mask.shape for mask in masks] == [each.shape[:2] for each in images]
    for each, mask in zip(images, masks, strict=True):
        np.testing.assert_array_equal(model.segment(each), mask)
    assert [each.shape for each in model.probabilities([image])] == [(*SIZE, 3)]
    assert model.segment([]) == []


def test_one_shape_is_compiled_for_once(model, image):
    model.segment(image)
    assert _compilations(lambda: jax.jit(lambda x: x + 1)(3))  # which the count below would have seen
    assert not _compilations(lambda: (model.segment(image[::-1]), model.segment([image, image[:30]])))


def _compilations(run):
    """Events of compilation while `run` runs."""
    seen = []

    def listener(event, _, **kwargs):
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    return seen


def test_options_are_those_of_the_config(model, image):
    plain, flipped = model.probabilities(image), model.probabilities(image, flip=True)
    assert np.abs(plain - flipped).max() > 0
    mirrored = model.probabilities(np.ascontiguousarray(image[:, ::-1]), flip=True, pad_to=SIZE)[:, ::-1]
    np.testing.assert_allclose(model.probabilities(image, flip=True, pad_to=SIZE), mirrored, atol=1e-5)
    refined = model.segment(image, crf="v2_resnet101")
    assert refined.shape == SIZE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scals": (1.0,)}, r"no predictor option 'scals'; did you mean 'scales'"),
        ({"measures": None}, "no predictor option 'measures'"),
        ({"scales": ()}, r"config\.inference\.scales=\(\): must be"),
        ({"fuse": "min"}, r"config\.inference\.fuse='min': must be mean or max|config\.inference\.fuse='min'"),
        ({"crf": "v2_resnet10"}, "config\\.inference\\.crf: no CRF preset 'v2_resnet10'.*v2_resnet101"),
    ],
)
def test_an_option_that_cannot_work_is_answered(model, image, options, words):
    with pytest.raises(ValueError, match=words):
        model.segment(image, **options)


def test_features(model, image):
    features = model.features(image[None])
    assert list(features) == [info.name for info in model.module.backbone.feature_info]
    for info in model.module.backbone.feature_info:
        cells = [-(-axis // info.stride) for axis in SIZE]
        assert features[info.name].shape == (1, *cells, info.channels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image[None], r"pass images\[0\], or a list of images"),
        (lambda image: image.transpose(2, 0, 1), r"channels come first: pass image\.transpose\(1, 2, 0\)"),
        (lambda image: image / 255, r"float64 .*\(image \* 255\)"),
        (lambda image: image[..., 0], "grey"),
        (lambda image: np.dstack([image, image[..., :1]]), "RGBA"),
    ],
)
def test_a_wrong_image_is_answered(model, image, change, words):
    for call in (model.segment, model.probabilities, lambda x: model.overlay(x, np.zeros(SIZE, np.uint8))):
        with pytest.raises(ValueError, match=rf"expected RGB bytes, an image \[height, width, 3\] .*; got .*{words}"):
            call(change(image))


def test_features_want_a_batch(model, image):
    with pytest.raises(ValueError, match=r"expected RGB bytes, a batch .*; got uint8 \[40, 48, 3\]: .*image\[None\]"):
        model.features(image)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("mask", [np.zeros((3, 3), np.uint8), np.zeros(SIZE), np.zeros((*SIZE, 1), np.uint8)])
def test_a_mask_that_does_not_fit_is_answered(model, image, mask, unchecked_types):
    with pytest.raises(ValueError, match=r"expected a mask of class ids|image is \(40, 48\), label is \(3, 3\)"):
        model.overlay(image, mask)


def test_what_a_model_says_of_itself(model):
    assert model.classes == ("class0", "class1", "class2")
    assert model.info.num_classes == 3
    assert model.config.model.output_stride == 16
    assert model.normalization is model.module.normalization
    assert repr(model) == "Model('v3plus.v3plus' on 'resnet.ResNet', 3 classes, output stride 16)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.info = None


def test_the_summary_counts_parameters_and_multiply_adds(model):
    text = model.summary((65, 65))
    total = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    assert f"{total:,}" in text
    assert "backbone" in text
    assert "stride16 [5, 5, 256]" in text
    assert "head/logits/kernel" in text


def test_plain_flax(model, image):
    logits = model.module.apply(model.variables, image[None], train=False)
    assert (logits.shape, logits.dtype) == ((1, *SIZE, 3), jnp.float32)


# ---- create


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("v3plu", {}, r"no 'v3plu' in deeplab_jax/heads/; did you mean 'v3plus'"),
        ("v3plus", {"backbone": "resnt50"}, r"no 'resnt50' in deeplab_jax/backbones/; did you mean 'resnet50'"),
        ("v3plus", {"output_strid": 8}, r"config\.model has no field 'output_strid'; did you mean 'output_stride'"),
        ("v3plus", {"head_args": {"aspp_chanels": 8}}, r"no argument 'aspp_chanels'; did you mean 'aspp_channels'"),
        ("v3plus", {"output_stride": 12}, r"config\.model\.output_stride=12: must be"),
        ("v3plus", {"class_names": ("one",)}, "class_names: expected 3, one for each class; got 1"),
        ("v3plus", {"num_classes": 0}, "num_classes=0"),
        ("v3plus", {"channels": 0}, "channels=0: must be at least 1"),
    ],
)
def test_create_answers_what_cannot_be(name, arguments, words):
    arguments = {"backbone": "mobilenet_v2", "num_classes": 3} | arguments
    with pytest.raises(ValueError, match=words):
        dl.create(name, **arguments)


@pytest.mark.parametrize(
    ("name", "backbone", "head"),
    [
        ("v3", "resnet50", "aspp.aspp"),
        ("v1", "vgg16", "large_fov.large_fov"),
        ("v2", "resnet101", "aspp_sum.aspp_sum"),
        ("lr_aspp", "mobilenet_v3_large", "lr_aspp.lr_aspp"),
        ("aspp.ASPPHead", "xception.xception65", "aspp.ASPPHead"),
    ],
)
def test_create_finds_parts_by_short_names(monkeypatch, name, backbone, head):
    monkeypatch.setattr("deeplab_jax.model.create_variables", lambda *args, **kwargs: {"params": {}})  # slow to compile
    model = dl.create(name, backbone=backbone, num_classes=2, output_stride=8)
    assert model.config.model.head.name == head
    assert model.config.model.backbone.name.endswith(backbone.rpartition(".")[2])


def test_other_channels_are_brought_to_one_range(image):
    model = make(channels=5, class_names=("a", "b", "c"))
    assert model.classes == ("a", "b", "c")
    bands = np.dstack([image, image[..., :2]])
    assert model.segment(bands).shape == SIZE
    with pytest.raises(ValueError, match=r"\[height, width, 5\] of uint8; got uint8 \[40, 48, 3\]"):
        model.segment(image)
    with pytest.raises(ValueError, match=r"config\.inference\.crf='v2_resnet101': is for RGB bytes"):
        model.segment(bands, crf="v2_resnet101")


# ---- files


def test_what_is_saved_is_loaded_and_segments_the_same(model, image, tmp_path):
    files = model.save(tmp_path / "mine.safetensors")
    assert files == [tmp_path / "mine.safetensors"]
    again = dl.load(tmp_path / "mine.safetensors", flip=True)
    assert (again.classes, again.config.model) == (
        model.classes,
        dataclasses.replace(model.config.model, task="multiclass"),
    )
    assert again.config.inference.flip
    assert again.config.inference.bucket == model.config.inference.bucket
    np.testing.assert_array_equal(again.probabilities(image, flip=False), model.probabilities(image))


def test_training_starts_from_what_fits(model, tmp_path):
    model.save(tmp_path / "mine.safetensors")
    with pytest.warns(UserWarning, match=r"mine\.safetensors: \d+ arrays loaded; .*misshapen: .*logits"):
        other = make(num_classes=5, weights=tmp_path / "mine.safetensors")
    kernel = model.variables["params"]["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(other.variables["params"]["backbone"]["stem"]["conv"]["kernel"], kernel)
    with pytest.raises(dl.UserError, match=r"backbone\.name='vgg16\.vgg16': the weights .* need 'resnet.ResNet"):
        make(backbone="vgg16", backbone_args={}, weights=tmp_path / "mine.safetensors")


def test_a_file_without_statistics_of_batch_norm_is_said(shared):
    source = shared / "weights" / "mobilenet_v2_imagenet_tfslim_folded.npz"
    with warnings.catch_warnings(record=True, action="always") as said:
        dl.create("lr_aspp", backbone="mobilenet_v2", num_classes=2, weights=source)
    loaded, folded = (str(warning.message) for warning in said)
    assert "arrays loaded" in loaded
    assert "missing: batch_stats/head" in loaded  # which stay random, and are not taken for folded ones
    assert folded.endswith("has no statistics of batch norm: estimate them before training")


@pytest.mark.parametrize(
    ("source", "arguments", "error", "words"),
    [
        ("none.pth", {}, dl.UserError, "none.pth: no such file"),
        ("mine.safetensors", {"flp": True}, ValueError, r"no predictor option 'flp'; did you mean 'flip'"),
        ("mine.safetensors", {"layout": "torchvison"}, dl.UserError, "torchvison"),
    ],
)
def test_load_answers_what_cannot_be(model, tmp_path, source, arguments, error, words):
    model.save(tmp_path / "mine.safetensors")
    with pytest.raises(error, match=words):
        dl.load(tmp_path / source, **arguments)


def test_a_program_can_be_exported(model, tmp_path):
    assert dl.export(model, "stablehlo", tmp_path / "m.stablehlo", size=SIZE).stat().st_size > 0
    assert dl.export(model, "safetensors", tmp_path / "m.safetensors") == tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match=r"no format 'stablhlo'; did you mean 'stablehlo'"):
        dl.export(model, "stablhlo", tmp_path / "m")
    with pytest.raises(ValueError, match=r"no export setting 'sizes'; did you mean 'size'"):
        dl.export(model, "stablehlo", tmp_path / "m", sizes=SIZE)


# ---- other ways of training


def test_ones_own_optax_loop_trains_it(image):
    model = make(normalization="minus_one_to_one", batch_norm=BatchNormConfig(decay=0.9))
    labels = (image[None, ..., 0] > 127).astype(np.uint8)
    optimizer = optax.adam(0.01)

    @jax.jit
    def step(variables, state, images, labels, key):
        def loss_fn(params):
            now = {**variables, "params": params}
            logits, updated = model.module.apply(
                now, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            total, weight = dl.losses.softmax_cross_entropy(logits, labels, ignore_label=255)
            return total / weight, updated

        (loss, updated), gradients = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state, variables["params"])
        return {"params": optax.apply_updates(variables["params"], updates), **updated}, state, loss

    variables, state, losses = model.variables, optimizer.init(model.variables["params"]), []
    for index in range(4):
        variables, state, loss = step(variables, state, image[None], labels, jax.random.key(index))
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    trained = dataclasses.replace(model, variables=variables)
    assert np.abs(trained.probabilities(image) - model.probabilities(image)).max() > 0


def test_nnx_takes_the_module_and_its_variables(model, image):
    """As docs/python.md has it."""
    network = nnx.bridge.ToNNX(model.module)
    for name, value in linen_vars_to_nnx_attrs(model.variables).items():
        setattr(network, name, nnx.data(value))
    expected = model.module.apply(model.variables, image[None], train=False)
    np.testing.assert_allclose(network(image[None], train=False), expected, rtol=1e-5, atol=1e-6)
    assert len(jax.tree.leaves(nnx.state(network, nnx.Param))) == len(jax.tree.leaves(model.variables["params"]))


# ---- lists, runs, examples


def test_lists_name_what_create_and_config_take():
    assert {"resnet50", "xception65", "mobilenet_v2", "vgg16"} <= set(dl.list_backbones())
    assert {"v3plus", "aspp", "fcn8s", "lr_aspp"} <= set(dl.list_heads())
    assert {"v1", "v2", "v3", "v3plus"} <= set(dl.list_models())
    losses = {"softmax_cross_entropy", "softmax_focal", "soft_dice", "soft_tversky", "lovasz_softmax"}
    losses |= {"sigmoid_cross_entropy", "sigmoid_focal", "sigmoid_dice", "sigmoid_tversky", "lovasz_hinge"}
    assert losses <= set(dl.list_losses()) & set(dir(dl.losses))
    assert {"voc", "folder", "shapes"} <= set(dl.list_datasets())
    assert {"torchvision", "smp", "tf_deeplab"} <= set(dl.list_layouts())
    assert "quickstart" in dl.list_configs()
    assert "torchvision:deeplabv3_resnet50_coco_voc" in dl.list_pretrained()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A config of two steps on a folder of one's own, and an empty workdir."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for index in range(4):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, 20 + index :] = 1
        pixels = rng.integers(0, 100, (40, 48, 3)) + 120 * mask[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    (root / "classes.txt").write_text("dark\nbright\n")
    config = dl.Config()
    config.model.backbone.name, config.model.backbone.args = "resnet.ResNet", TINY
    config.model.head.args = SMALL
    config.data.dataset, config.data.root, config.data.prepared_dir = "folder", str(root), str(root / "prepared")
    config.data.batch_size, config.data.crop_size = 2, (33, 33)
    config.train.num_steps = 2
    config.inference.pad_to = (40, 48)
    config.mesh.data = 1
    return {"config": config, "workdir": root / "run"}


EXAMPLES = [
    *(getattr(library, name) for name in ("train", "evaluate", "export")),
    *(getattr(listing, name) for name in dir(listing) if name.startswith("list_")),
    *(dl.Model, dl.load, dl.create, dl.Config, dl.UserError),
    *(getattr(package, name) for package in (dl.losses, dl.metrics, dl.ops) for name in dir(package) if name[0] != "_"),
]


@pytest.mark.parametrize("thing", EXAMPLES, ids=lambda thing: thing.__name__)
def test_every_example_runs(thing, run):
    (found,) = (test for test in doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, globs=dict(run)))
    assert found.examples, f"{thing.__name__} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said = []
    assert runner.run(found, out=said.append).failed == 0, "".join(said)


def test_a_run_is_trained_scored_and_loaded(run, image):
    best = dl.train(**run)
    scores = dl.evaluate(**run)
    assert set(scores["iou_per_class"]) == set(best.classes) == {"dark", "bright"}
    model = dl.load(run["workdir"])
    assert model.config.inference.pad_to == (40, 48)
    np.testing.assert_array_equal(model.segment(image), best.segment(image))
    assert dl.load(run["workdir"], pad_to=(41, 49)).config.inference.pad_to == (41, 49)


def test_a_config_may_be_named(tmp_path):
    with pytest.raises(dl.UserError, match=r"quickstrt: no such file; did you mean 'quickstart'"):
        dl.train("quickstrt", tmp_path)
