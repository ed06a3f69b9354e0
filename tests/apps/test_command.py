"""What the command makes of its flags, in this process: the workdir's config, what contradicts it, the last resort."""

from __future__ import annotations

import json
import logging
import sys

import absl.logging
import pytest

from deeplab_jax.apps import command
from deeplab_jax.apps.command import find_mode, main, mode_names
from deeplab_jax.apps.request import Needs
from deeplab_jax.config import Config, PartConfig, to_dict
from deeplab_jax.types import UserError

CONFIG = """
from deeplab_jax.config import Config, PartConfig

def get_config():
    config = Config()
    config.model.backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.5})
    config.model.head.args = {"aspp_channels": 8}
    config.data.crop_size = (65, 65)
    return config
"""


@pytest.fixture(autouse=True)
def as_a_process_would(monkeypatch):
    """Nothing of a command outlives it: it owns its process, and this one is shared."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(command, "_keep_compilations", lambda: None)
    verbosity, level = absl.logging.get_verbosity(), logging.getLogger("asyncio").level
    yield
    absl.logging.set_verbosity(verbosity)
    logging.getLogger("asyncio").setLevel(level)


@pytest.fixture
def workdir(tmp_path):
    """What a run has left there, without its weights."""
    config = Config()
    config.model.backbone = PartConfig("mobilenet_v2.mobilenet_v2", {"width": 0.5})
    config.model.head.args = {"aspp_channels": 8, "dropout": 0.2, "atrous_rates": (6, 12, 18)}
    config.data.crop_size = (65, 65)
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(to_dict(config)))
    return path


@pytest.fixture
def experiment(tmp_path):
    """A config file of the same network."""
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def asked(monkeypatch):
    """The requests that predict gets; it does nothing else."""
    requests = []
    monkeypatch.setattr(find_mode("predict"), "run", lambda request: requests.append(request) or 0)
    return requests


def test_every_mode_says_what_it_reads_and_needs():
    for name in mode_names():
        mode = find_mode(name)
        assert isinstance(mode.NEEDS, Needs)
        assert all(flag.help for flag in mode.FLAGS)
        assert callable(mode.run)
    assert {"train", "evaluate", "predict", "import", "export", "crf-search", "report", "lint"} <= set(mode_names())


def test_help_has_each_mode_with_its_flags(capsys):
    assert main(["main.py", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("python main.py --config=")
    sections = text.split("\n\n")
    (predict,) = [section for section in sections if section.startswith("predict: Segments images")]
    assert "--submission" in predict
    assert "--port" not in predict


def test_a_workdir_brings_its_config(workdir, asked, capsys):
    arguments = ["--mode=predict", "--images", "a.png", "--config.inference.flip", "--config.data.crop_size=(33, 33)"]
    assert main(["main.py", f"--workdir={workdir}", *arguments]) == 0
    assert capsys.readouterr().err == f"config: {workdir / 'config.json'}\n"
    (request,) = asked
    assert request.config.model.backbone.args == {"width": 0.5}
    assert request.config.inference.flip is True
    assert request.config.data.crop_size == (33, 33)
    assert (request.workdir, request.flags["images"], request.flags["checkpoint"]) == (workdir, "a.png", "")


@pytest.mark.parametrize(
    "overrides",
    [
        ["--config.model.output_stride=8", "--config.model.compute_dtype=bfloat16"],
        ["--config.model.head.args.dropout=0.9", "--config.model.batch_norm.decay=0.9"],
        ["--config.model.backbone.name=mobilenet_v2.MobileNetV2"],  # another name of the same
        ["--config={experiment}"],  # which leaves at their defaults what config.json names, as a list
    ],
)
def test_what_changes_nothing_of_trained_weights_passes(workdir, experiment, asked, overrides):
    arguments = [override.format(experiment=experiment) for override in overrides]
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict", *arguments]) == 0
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.normalization=slim_mean",
            "config.model.normalization='slim_mean': the weights in {} were trained with",
        ),
        ("model.align_corners=false", "config.model.align_corners=False: the weights in {} were trained with True;"),
        ("model.num_classes=7", "config.model.num_classes=7: the weights in {} were trained with 21; leave it out"),
        ("model.backbone.args.width=1.0", "config.model.backbone.args.width=1.0: the weights in {} were trained with"),
        ("model.head.name=aspp.aspp", "config.model.head.name='aspp.aspp': the weights in {} were trained with"),
    ],
)
@pytest.mark.parametrize("by_checkpoint", [False, True])
def test_what_contradicts_trained_weights_is_refused(
    workdir, experiment, asked, capsys, override, message, by_checkpoint
):
    classes = {"num_classes": 21, "class_names": ["thing"] * 21, "palette": [[0, 0, 0]] * 21}
    (workdir / "dataset.json").write_text(json.dumps({"name": "voc", "ignore_label": 255, "splits": {}, **classes}))
    arguments = [f"--workdir={workdir}"]
    if by_checkpoint:
        arguments = [f"--config={experiment}", "--workdir=never_made", f"--checkpoint={workdir}/checkpoints/3"]
    assert main(["main.py", *arguments, "--mode=predict", f"--config.{override}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {message.format(workdir)}")
    assert str(workdir / "config.json") in error
    assert not asked


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.inference.flipp=true", "config.inference has no field 'flipp'; did you mean 'flip'"),
        ("--config.inference.bucket=much", "--config.inference.bucket=much: invalid literal"),
        ("--config.model.backbone.args.depth=3", "takes no argument 'depth'"),
    ],
)
def test_overrides_of_a_workdirs_config_are_checked_as_those_of_a_file(workdir, capsys, override, message):
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict", override]) == 2
    assert message in capsys.readouterr().err


def test_an_argument_that_a_config_leaves_at_its_default_is_overridden(workdir, asked):
    overrides = ["--config.model.head.args.logits_stddev=0.5", "--config.model.backbone.args.dropout=0.1"]
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict", overrides[0]]) == 0
    assert asked[0].config.model.head.args["logits_stddev"] == 0.5
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict", overrides[1]]) == 2


@pytest.mark.parametrize(
    ("given_at", "words"), [(16, "(12, 24, 36), for (6, 12, 18) there"), (0, "(6, 12, 18), as the system has them")]
)
def test_rates_at_another_output_stride_are_told(workdir, asked, capsys, given_at, words):
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["head"]["args"]["rates_output_stride"] = given_at
    (workdir / "config.json").write_text(json.dumps(config))
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict", "--config.model.output_stride=8"]) == 0
    assert f"trained at 16: atrous rates {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "remedy"),
    [("output_stride=8", "say what the source has with --output_stride"), ("align_corners=false", "--align_corners"),
     ("head.args.atrous_rates=(1,2,3)", "--atrous_rates"), ("head.args.dropout=0.3", "leave it out")],
)  # fmt: skip
def test_import_refuses_settings_of_the_network(experiment, tmp_path, capsys, override, remedy):
    arguments = [f"--config={experiment}", f"--workdir={tmp_path / 'new'}", "--mode=import", "--source=weights.pth"]
    assert main(["main.py", *arguments, f"--config.model.{override}"]) == 2
    error = capsys.readouterr().err
    assert "the network is that of --source" in error
    assert remedy in error


def test_a_broken_config_of_a_workdir_is_one_line(workdir, capsys):
    (workdir / "config.json").write_text("{")
    assert main(["main.py", f"--workdir={workdir}"]) == 2
    assert f"cannot read {workdir / 'config.json'}" in capsys.readouterr().err


def test_a_mode_that_a_flag_suffices_for_needs_neither_config_nor_workdir(tmp_path, capsys):
    assert main(["main.py", "--mode=report", "--compare", str(tmp_path), str(tmp_path / "b")]) == 2
    assert f"--compare: {tmp_path} holds no scores.json" in capsys.readouterr().err
    assert main(["main.py", "--mode=report"]) == 2
    assert "give --config and --workdir" in capsys.readouterr().err


def fail(error):
    def run(request):
        raise error

    return run


def test_the_unforeseen_is_one_line_and_a_file(workdir, monkeypatch, capsys):
    monkeypatch.setattr(find_mode("predict"), "run", fail(RuntimeError("one\ntwo")))
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict"]) == 1
    path = workdir / "crash.txt"
    assert capsys.readouterr().err.splitlines()[1:] == [f"error: RuntimeError: one two; the traceback is in {path}"]
    assert path.read_text().startswith("Traceback")
    assert path.read_text().endswith("RuntimeError: one\ntwo\n")


def test_the_unforeseen_is_printed_where_there_is_no_workdir(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(find_mode("predict"), "run", fail(ZeroDivisionError("nothing")))
    arguments = ["--config=quickstart", f"--workdir={tmp_path / 'none'}", "--mode=predict"]
    assert main(["main.py", *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: ZeroDivisionError: nothing; the traceback is above"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (UserError("no"), 2)])
def test_statuses(workdir, monkeypatch, error, status):
    monkeypatch.setattr(find_mode("predict"), "run", fail(error))
    assert main(["main.py", f"--workdir={workdir}", "--mode=predict"]) == status
    assert not (workdir / "crash.txt").exists()
