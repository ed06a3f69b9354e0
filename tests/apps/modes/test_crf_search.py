"""The search of the CRF's kernel: its grids, what it keeps and reuses, and its result as a setting."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.crf_settings import find_crf, setting_from_dict, setting_to_dict
from deeplab_jax.apps.assembly.evaluation import protocol
from deeplab_jax.apps.modes import crf_search
from deeplab_jax.apps.modes.crf_search import Point, evenly_spaced, search
from deeplab_jax.config import Config, CRFSearchConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.ops.crf.parameters import crf_preset
from deeplab_jax.types import DatasetInfo, Example, UserError

SIZE = (24, 32)


class NoisyEye(nn.Module):
    """Sees brightness through noise of its own, times a parameter."""

    @nn.compact
    def __call__(self, images, *, train):
        one = self.param("one", nn.initializers.ones, ())
        noise = np.random.default_rng(1).normal(size=images.shape[1:3]).astype(np.float32)
        score = one * ((jnp.asarray(images).astype(jnp.float32).mean(-1) - 127.5) / 60 + 1.5 * noise[None])
        return jnp.stack([-score, score], axis=-1)


@pytest.fixture
def run(monkeypatch, tmp_path, rng, capsys):
    """crf-search on three bright discs; returns its printed lines and how often the network ran."""
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    examples = []
    for index in range(3):
        label = ((row - 12) ** 2 + (column - 10 - 4 * index) ** 2 < 60).astype(np.uint8)
        image = np.clip(60 + 130 * label[..., None] + rng.normal(size=(*SIZE, 3), scale=5), 0, 255).astype(np.uint8)
        examples.append(Example(f"disc{index}", image, label))
    info = DatasetInfo("toy", 2, 255, ("dark", "bright"), ((0, 0, 0),) * 2, {"val": 3})
    dataset = Dataset(info, {"val": examples}.__getitem__)
    calls = []
    made = crf_search.make_predictor

    def counting(*args):
        predict = made(*args)
        return lambda image: calls.append(1) or predict(image)

    monkeypatch.setattr(crf_search, "make_predictor", counting)
    monkeypatch.setattr(open_data, "open_dataset", lambda config: dataset)
    monkeypatch.setattr(network, "build", lambda config, info: NoisyEye())

    def run(one=1.0, normalization="imagenet", **changes):
        monkeypatch.setattr(network, "load_variables", lambda *args: {"params": {"one": jnp.asarray(one)}})
        settings = CRFSearchConfig(2, (0.1, 4.0), (8.0,), (20.0,), num_refinements=0, num_iterations=2)
        config = Config(crf_search=dataclasses.replace(settings, **changes))
        config.inference.pad_to = SIZE
        config.model.normalization = normalization
        config.data.train_split = "val"
        calls.clear()
        crf_search.crf_search(config, tmp_path)
        return capsys.readouterr().out.splitlines(), len(calls)

    return run


def test_finds_the_better_setting_which_then_is_one(run, tmp_path):
    lines, num_calls = run()
    assert num_calls == 2
    result = json.loads((tmp_path / "crf_search.json").read_text())
    assert result["best"]["bi_w"] == 4.0
    assert result["mean_iou"] > 0.9 > result["mean_iou_without"]
    assert [row["bi_w"] for row in result["settings"]] == [0.1, 4.0]
    assert lines[1].split() == ["4", "8", "20", f"{result['mean_iou']:.4f}"]
    path = lines[-1].partition("--config.inference.crf=")[2]
    assert setting_to_dict(find_crf(path)) == result["best"]


def test_a_second_search_reuses_what_it_can(run, tmp_path):
    run()
    known = json.loads(next((tmp_path / "crf_search").glob("*/scores.json")).read_text())
    lines, num_calls = run()
    assert num_calls == 0
    assert next((tmp_path / "crf_search").glob("*/scores.json")).read_text() == json.dumps(known, indent=1) + "\n"
    _, num_calls = run(num_images=3, bi_w=(4.0,))
    assert num_calls == 1, "the first and the last of the three were there"
    again, num_calls = run(one=0.9)
    assert num_calls == 2, "other weights: nothing that is kept is true of them"
    assert len(list((tmp_path / "crf_search").iterdir())) == 1
    assert again != lines


def test_images_may_be_normalised_by_the_data_sets_own_statistics(run, tmp_path):
    run(normalization="dataset")
    assert json.loads((tmp_path / "crf_search.json").read_text())["best"]["bi_w"] == 4.0


def test_coarse_then_fine():
    settings = CRFSearchConfig(bi_w=(3.0, 5.0), bi_xy_std=(30.0, 50.0, 70.0), bi_rgb_std=(4.0,), num_refinements=2)
    rounds = []

    def score_all(points):
        rounds.append(list(points))
        return [-abs(p.bi_w - 4.4) - abs(p.bi_xy_std - 44) for p in points]

    found = search(settings, score_all)
    assert [len(points) for points in rounds] == [6, 8, 8]
    assert Point(4.0, 40.0, 4.0) in rounds[1]
    assert max(found, key=found.get) == Point(4.5, 45.0, 4.0)
    assert {p.bi_rgb_std for p in found} == {4.0}


def test_images_are_spread_over_the_split():
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 100) == evenly_spaced(3, 0) == [0, 1, 2]


def test_scores_say_which_numbers_a_name_stood_for():
    config = Config()
    assert protocol(config)["crf_setting"] is None
    config.inference.crf = "v1"
    assert protocol(config)["crf_setting"] == setting_to_dict(crf_preset("v1"))


def test_a_setting_is_a_preset_or_a_file(tmp_path):
    assert find_crf("") is None
    preset = crf_preset("v2_resnet101")
    assert find_crf("v2_resnet101") == preset
    values = setting_to_dict(preset)
    assert setting_from_dict(values) == preset
    path = tmp_path / "own.json"
    path.write_text(json.dumps(values))
    assert find_crf(str(path)) == preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bi_w": -1}, r"bi_w=-1.0: weights are 0 or more, widths positive"),
        ({"bi_xy_std": 0}, "bi_xy_std=0.0"),
        ({"bi_rgb_std": float("nan")}, "bi_rgb_std=nan"),
        ({"normalization": "before"}, "normalization='before': give symmetric or after"),
        ({"num_iterations": 2.5}, "num_iterations=2.5: give a whole number"),
        ({"typo": 1}, "a CRF has .*; here are .*typo"),
        ({"bi_w": "much"}, "could not convert"),
    ],
)
def test_a_file_that_holds_no_crf_is_refused_in_one_line(tmp_path, changes, message):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(setting_to_dict(crf_preset("v1")) | changes))
    with pytest.raises(UserError, match=message) as caught:
        find_crf(str(path))
    assert "\n" not in str(caught.value)


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no CRF preset 'v2_resnet'; did you mean .*crf_search\.json"):
        find_crf("v2_resnet")
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file"):
        find_crf(str(tmp_path / "none.json"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"holds no CRF .*--mode=crf-search writes crf_search\.json"):
        find_crf(str(tmp_path / "list.json"))
