"""Compiling for what is not there: what is read off a program's text, and what is said where a compiler is missing."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from benchmarks.scaling_model import reduced_bytes
from deeplab_jax import registry
from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.build_step import abstract_batch, build_step
from deeplab_jax.apps.modes import compile as compiling
from deeplab_jax.config import Config, PartConfig
from deeplab_jax.hardware.chips import CHIPS
from deeplab_jax.hardware.program_text import Traffic, count_bytes, read_collectives, read_convolutions
from deeplab_jax.hardware.topologies import Topology, find_topology
from deeplab_jax.ops.mesh import make_mesh
from deeplab_jax.types import DatasetInfo, UserError

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
INFO = DatasetInfo("any", 5, 255, ("thing",) * 5, ((0, 0, 0),) * 5, {})

# Short, but with all that XLA's text has: layouts, tuples with comments, started collectives, loops, metadata.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%fused (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %multiply.1 = f32[8,4]{1,0} multiply(%param_0, %param_0)
}

%body (carry: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %carry = (s32[], f32[8,4]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%carry), index=0
  %x.1 = f32[8,4]{1,0} get-tuple-element(%carry), index=1
  %fusion.1 = f32[8,4]{1,0} fusion(%x.1), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (s32[], f32[8,4]{1,0}) tuple(%at, %fusion.1)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)S(1)} parameter(0)
  %start = s32[] constant(0)
  %in = (s32[], f32[8,4]{1,0}) tuple(%start, %x)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%in), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %y = f32[8,4]{1,0} get-tuple-element(%while.1), index=1
  %all-reduce.1 = (f32[4]{0}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%y, %y), channel_id=1, to_apply=%add
  %all-reduce-start.2 = f32[10]{0} all-reduce-start(%y), channel_id=2, to_apply=%add
  %gather = (f32[4]{0}, f32[16]{0}) all-gather-start(%y), dimensions={0}
  %conv = bf16[1,9,9,8]{3,2,1,0} convolution(%y, %y), window={size=3x3 pad=2_2x2_2 rhs_dilate=2x2}, dim_labels=b01f_01io->b01f, metadata={op_name="all-reduce("}
  %cudnn.1 = (bf16[8,3,3,1]{3,2,1,0}, u8[0]{0}) custom-call(%y, %y), window={size=3x3 stride=2x2}, dim_labels=b01f_o01i->b01f, feature_group_count=8, custom_call_target="__cudnn$convBackwardFilter"
  ROOT %copy = f32[8,4]{1,0} copy(%y)
}
"""  # noqa: E501


def test_collectives_are_counted_with_their_bytes():
    assert read_collectives(PROGRAM) == {"all-reduce": Traffic(2, 16 + 12 + 40), "all-gather": Traffic(1, 64)}


def test_convolutions_are_read_with_their_windows():
    found = {each.call: each for each in read_convolutions(PROGRAM)}
    assert set(found) == {"convolution", "__cudnn$convBackwardFilter"}
    plain, cudnn = found["convolution"], found["__cudnn$convBackwardFilter"]
    assert (plain.window, plain.stride, plain.dilation, plain.groups) == ((3, 3), (1, 1), (2, 2), 1)
    assert (cudnn.window, cudnn.stride, cudnn.dilation, cudnn.groups) == ((3, 3), (2, 2), (1, 1), 8)
    assert cudnn.result == "bf16[8,3,3,1]"


def test_bytes_are_operands_and_results_of_kernels_and_loops_count_as_often_as_they_run():
    array = 8 * 4 * 4
    loop = 3 * 2 * array
    reduced = (16 + 12 + array) + (40 + array)
    rest = (16 + 64 + array) + (9 * 9 * 8 * 2 + array) + (8 * 9 * 2 + array) + 2 * array
    assert count_bytes(PROGRAM) == loop + reduced + rest


@functools.cache
def tiny_config() -> Config:
    """All rates fit in the map: taps that lie outside have no gradient, and need no reduction."""
    config = Config()
    config.model.backbone = PartConfig("resnet.ResNet", {"num_units": (1, 1, 1, 1), "multi_grid": (1,), "width": 0.125})
    config.model.head = PartConfig("aspp.aspp", {"aspp_channels": 16, "atrous_rates": (2,)})
    config.data.batch_size, config.data.crop_size = 16, (65, 65)
    return config


@pytest.fixture(scope="module")
def report():
    """Of the eight devices of the tests' host, which are as good as any."""
    return compiling.compile_report(tiny_config(), INFO, Topology("host:8", CHIPS["h100"], jax.devices()))


def test_the_collectives_of_a_step_are_those_of_the_model(report):
    state = build_step(tiny_config(), INFO, make_mesh(8)).state
    assert set(report["collectives"]) == {"all-reduce"}
    scalars = report["collectives"]["all-reduce"]["bytes"] - reduced_bytes(state.params, state.batch_stats)
    assert 0 < scalars <= 64  # the loss's sums and counts


def test_the_report_says_what_a_chip_needs(report):
    step = build_step(tiny_config(), INFO, make_mesh(8))
    batch = abstract_batch(tiny_config(), INFO, make_mesh(8))
    arguments = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(step.state))
    arguments += sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch)) / 8
    assert report["memory"]["arguments"] == pytest.approx(arguments, rel=0.01)
    assert report["fits"]
    assert report["bytes_moved"] > report["memory"]["temporaries"]
    page = compiling.compile_page(report)
    for text in ("host:8", "2 images of 16 on each", "fits        yes", "all-reduce", "not: a measurement"):
        assert text in page


def test_a_program_that_does_not_fit_is_a_result():
    report = {"memory": None, "error": "RESOURCE_EXHAUSTED: Used 20G of 15G hbm", "topology": "v5e", "num_chips": 1}
    report |= {"device_kind": "TPU v5 lite", "batch_size": 16, "network": "a b", "output_stride": 16}
    assert "fits        no: RESOURCE_EXHAUSTED" in compiling.compile_page({**report, "compute_dtype": "bfloat16"})


@pytest.mark.parametrize("name", ["v9:2x2", "v5e:axb", "v5e:0x2", "v5e:2x2x2x2", "a100", ""])
def test_a_name_that_says_nothing_is_refused(name):
    with pytest.raises(UserError, match=r"must be KIND or KIND:SHAPE"):
        find_topology(name)


@pytest.mark.parametrize(("name", "remedy"), [("v5e:2x2", r"jax\[tpu\]"), ("h100", "jax-cuda12-plugin==")])
def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch, name, remedy):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"is installed: pip install .*{remedy}"):
        find_topology(name)


def test_classes_that_only_the_data_knows_must_be_given(tmp_path):
    config = Config()
    config.data.dataset = "folder"
    with pytest.raises(UserError, match=r"--config\.model\.num_classes"):
        open_data.find_info(config, tmp_path, names_matter=False)
    config.model.num_classes = 7
    assert open_data.find_info(config, tmp_path, names_matter=False).num_classes == 7


@pytest.mark.parametrize(
    "name", [name for name in registry.module_names("data.datasets") if name not in ("folder", "tfds")]
)
def test_every_other_data_set_needs_no_files(tmp_path, name):
    config = Config()
    config.data.dataset = name
    assert open_data.find_info(config, tmp_path).name == name


def compile_mode(tmp_path, topology, *overrides, config="v3plus_voc"):
    """The report of `main.py --mode=compile`, in a process that is not set up for tests."""
    command = [sys.executable, str(REPOSITORY / "main.py"), f"--config={REPOSITORY / 'configs' / config}.py"]
    command += [f"--workdir={tmp_path}", "--mode=compile", f"--topology={topology}", *overrides]
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode == 2 and "is installed: pip install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("compile_*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_what_was_won_on_gpu_at_output_stride_16(tmp_path):
    report = compile_mode(tmp_path, "h100")
    assert not compiling.large_windows(report)
    assert report["bytes_moved"] <= 78e9
    assert report["memory"]["temporaries"] <= 9e9


@pytest.mark.slow
def test_what_was_won_on_gpu_at_output_stride_8(tmp_path):
    report = compile_mode(tmp_path, "h100", "--config.model.output_stride=8")
    assert not compiling.large_windows(report)
    assert report["fits"]


@pytest.mark.slow
def test_the_recipe_for_16_images_fits_on_16_small_chips(tmp_path):
    report = compile_mode(tmp_path, "v5e:4x4")
    assert report["num_chips"] == 16
    assert report["fits"]
    assert report["collectives"]["all-reduce"]["bytes"] >= 2 * 59e6  # every gradient; kernels' in bfloat16


@pytest.mark.slow
def test_strips_of_images_stay_strips_on_tpu(tmp_path):
    """Called functions that are not inlined make its partitioner gather what they are given: 109 MB were seen so."""
    overrides = ("--config.mesh.space=2", "--config.data.batch_size=4")
    report = compile_mode(tmp_path, "v5e:2x2", *overrides, config="quickstart")
    assert report["collectives"]["collective-permute"]["count"] > 0
    assert report["collectives"].get("all-gather", {"bytes": 0})["bytes"] < 10e6
