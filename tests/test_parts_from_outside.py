"""The page on parts of one's own, followed: its files in a folder beside a config, every kind found there and run."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax import registry
from deeplab_jax.apps.command import main
from deeplab_jax.apps.find_config import load_config
from deeplab_jax.apps.import_weights import pretrained_variables
from deeplab_jax.models.build import build_model
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "adding_a_part.md"
OF_FILES = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page's files, as a user has them; nothing of them is importable before their config is read."""
    folder = tmp_path_factory.mktemp("parts")
    for name, text in OF_FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def config(folder):
    return load_config(str(folder / "my_config.py"))


def run(folder, *flags):
    """The command line, on one device; programs stay where the tests keep them."""
    common = (f"--config={folder / 'my_config.py'}", f"--workdir={folder / 'run'}", "--config.mesh.data=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
        return main(["main.py", *common, *flags])


@pytest.fixture(scope="module")
def workdir(folder):
    assert run(folder, "--config.inference.pad_to=(65,65)", "--config.inference.batch_size=2") == 0
    return folder / "run"


def test_the_page_has_a_file_of_every_kind():
    kinds = {"backbone", "head", "loss", "augment", "data", "layout", "format"}
    assert set(OF_FILES) == {*(f"my_package/my_{kind}.py" for kind in kinds), "my_config.py"}
    for kind in ("backbone", "head"):
        assert OF_FILES[f"my_package/my_{kind}.py"].count("\n") < 32, "an example is short"


def test_a_config_names_them(config):
    validate(config)
    config.model.head.args = {"chanels": 3}
    with pytest.raises(UserError, match=r"MyHead' takes no argument 'chanels'; did you mean 'channels'"):
        validate(config)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_features_are_as_declared(config, output_stride):
    backbone = registry.resolve("backbones", config.model.backbone.name)(output_stride=output_stride)
    images = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    features, _ = jax.eval_shape(lambda x: backbone.init_with_output(jax.random.key(0), x, train=False), images)
    for info in backbone.feature_info:
        size = 64 // info.stride + 1
        assert features[info.name].shape == (1, size, size, info.channels)


def test_training_evaluation_and_report_work_with_them(workdir):
    scores = json.loads((workdir / "report.json").read_text())
    assert set(scores["scores"]["iou_per_class"]) == {"dark", "light"}
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) >= 1


def test_a_format_of_ones_own_is_compared_and_kept(folder, workdir):
    flags = ("--mode=export", "--format=my_package.my_format:file_format", "--config.export.outputs=('logits',)")
    assert run(folder, *flags) == 0
    assert (workdir / "export" / "model.mine").read_bytes().startswith(b"MINE")


def test_a_layout_of_ones_own_fills_the_backbone(config, folder, rng):
    config.model.num_classes = 2
    model = build_model(config.model)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3), jnp.uint8), train=False))
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(shapes))
    arrays = {}
    for unit, leaves in target["params"]["backbone"].items():
        arrays[f"{unit}.conv.weight"] = rng.normal(size=leaves["conv"]["kernel"].transpose(3, 2, 0, 1).shape)
        for name in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{unit}.bn.{name}"] = rng.random(leaves["norm"]["scale"].shape)
    source = folder / "theirs.npz"
    np.savez(source, **{name: array.astype(np.float32) for name, array in arrays.items()})
    config.model.pretrained.source = str(source)
    config.model.pretrained.layout = "my_package.my_layout:recognize"
    validate(config)
    filled, report, folded = pretrained_variables(config.model, target)
    assert (len(report.loaded), folded) == (len(arrays), False)
    kernel = filled["params"]["backbone"]["unit1"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["unit1.conv.weight"].astype(np.float32).transpose(2, 3, 1, 0))
