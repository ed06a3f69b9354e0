"""A config's own speed: what the page says follows from what was measured, with the data and without it."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.modes import benchmark as app
from deeplab_jax.apps.pages.benchmark_table import benchmark_page
from deeplab_jax.config import Config, PartConfig
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.hardware.chips import CHIPS, find_chip
from deeplab_jax.hardware.roofline import Limits, call_times, measure_limits, pace_of
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo, Example, UserError

INFO = DatasetInfo("toy", 3, 255, ("a", "b", "c"), ((0, 0, 0),) * 3, {"train": 4, "val": 4})


@pytest.fixture(scope="module")
def config():
    config = Config()
    config.model.backbone = PartConfig("resnet.ResNet", {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "width": 0.125})
    config.model.head = PartConfig("aspp.aspp", {"aspp_channels": 8, "atrous_rates": (2,)})
    config.data.batch_size, config.data.crop_size, config.data.num_workers = 2, (33, 33), 1
    config.loss.class_weights = "balanced"  # which only the data could tell
    config.inference.batch_size, config.inference.pad_to, config.inference.flip = 3, (40, 33), True
    config.mesh.data = 1
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """(the report as written, the page as printed) of a run with data."""
    workdir, printed = tmp_path_factory.mktemp("run"), []
    image, label = np.zeros((36, 40, 3), np.uint8), np.zeros((36, 40), np.uint8)
    examples = [Example(f"{k}", image, label) for k in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "_SECONDS", 0.05)
        patch.setattr(app, "measure_limits", lambda mesh, dtype: Limits(1e12, 1e11))
        patch.setattr(open_data, "open_dataset", lambda config: Dataset(INFO, lambda split: examples))
        patch.setattr("builtins.print", lambda *args, **kwargs: printed.append(" ".join(map(str, args))))
        app.benchmark(config, workdir)
    return json.loads((workdir / app.FILE).read_text()), "\n".join(printed)


def test_the_figures_follow_from_each_other(run):
    report, page = run
    step = report["step"]
    assert step["num_calls"] >= 5
    assert step["lower"] <= step["median"] <= step["upper"]
    assert step["images_per_second"] == pytest.approx(2 / step["median"])
    assert step["memory"]["total"] > step["memory"]["parameters"] > 0
    assert step["bytes_moved"] > 3 * step["memory"]["parameters"]  # read, their gradient, and written
    assert f"{step['images_per_second']:.4g} images/s" in page
    assert f"{100 * step['convolution_flops'] / step['median'] / 1e12:.1f} % of the limit measured" in page


def test_evaluation_and_loader_are_those_of_the_config(run):
    report, page = run
    evaluation = report["evaluation"]
    assert (evaluation["batch_size"], evaluation["size"]) == (3, [40, 33])
    assert "batch 3 x 40x33, 2 passes over each" in page
    assert report["loader"]["images_per_second"] > 0
    assert "images/s alone, " in page


def test_a_chip_on_paper_is_a_second_limit(run):
    report, _ = run
    assert "on paper unknown" in benchmark_page(report)
    h100 = CHIPS["h100"]
    assert find_chip(h100.device_kind) is h100
    chip = {"kind": h100.kind, "flops": h100.flops, "memory_bandwidth": h100.memory_bandwidth}
    page = benchmark_page({**report, "chip": chip})
    assert "on paper 989 TFLOP/s in bfloat16, 3.35 TB/s" in page
    assert page.count("% of that on paper") == 1  # the peak is of another type than the network
    assert benchmark_page({**report, "chip": chip, "compute_dtype": "bfloat16"}).count("% of that on paper") == 2


def test_a_loader_that_is_too_slow_or_absent_is_said(run):
    report, _ = run
    slow = {"images_per_second": report["step"]["images_per_second"] / 2, "augment_seconds": 0.002}
    page = benchmark_page({**report, "loader": slow})
    assert "0.5 times the train step's: the step would wait for data" in page
    assert "augmentation on the devices 2 ms a step more" in page
    assert "not measured: no such folder" in benchmark_page({**report, "loader": {"refusal": "no such folder"}})


def test_without_data_there_is_a_reason(config, tmp_path, monkeypatch):
    def refuse(config):
        raise UserError("config.data.root is empty")

    monkeypatch.setattr(open_data, "open_dataset", refuse)
    assert app._open_data(config, tmp_path) == (None, "config.data.root is empty")


def test_limits_are_of_all_devices_together():
    limits = measure_limits(make_mesh(2), "bfloat16", matrix_size=64, copied_bytes=2**16)
    assert limits.flops > 0
    assert limits.bandwidth > 0


def test_as_many_times_as_calls_that_count():
    calls = []

    def call():
        calls.append(len(calls))
        return jnp.zeros(())

    assert len(call_times(call, num_calls=4, num_before=2)) == 4
    assert len(calls) == 7  # one is always ahead
    assert pace_of([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0, 5)
