"""The report: what it reads, how it ranks, and that the page needs nothing from outside."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.pages import run_report as app
from deeplab_jax.apps.pages.charts import data_uri, line_chart
from deeplab_jax.config import Config
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.metrics.calibration import CalibrationCounts, calibration
from deeplab_jax.metrics.confusion import scores as score
from deeplab_jax.types import DatasetInfo, Example, UserError

NAMES = ("ground", "disc", "<b>ox", "never")
INFO = DatasetInfo("toy", 4, 255, NAMES, ((0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250)), {"val": 6})
CONFUSION = np.array([[90, 10, 0, 0], [5, 15, 0, 0], [8, 2, 0, 0], [0, 0, 0, 0]])


@pytest.fixture
def workdir(tmp_path, rng, monkeypatch):
    """A workdir as training leaves it, and a network that predicts class 1 everywhere."""
    examples = [
        Example(f"val/{k}", rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.full((12, 16), k % 3, np.uint8))
        for k in range(6)
    ]
    monkeypatch.setattr(open_data, "open_dataset", lambda config: Dataset(INFO, {"val": examples}.__getitem__))
    monkeypatch.setattr(network, "build", lambda config, info: type("Model", (), {"apply": None}))
    monkeypatch.setattr(network, "load_variables", lambda *args: {})
    monkeypatch.setattr(app, "make_segmenter", lambda *args: lambda image: lambda: np.ones(image.shape[:2], np.uint8))

    lines = [{"step": step, "loss": 1 / step, "learning_rate": 0.1, "images_per_second": 8.0} for step in range(1, 5)]
    lines.append({"step": 4, "evaluation": {"mean_iou": 0.5, "iou_per_class": {"ground": 0.5}}})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "lo')
    scores = {**score(CONFUSION, NAMES), "num_images": 6, "confusion": CONFUSION.tolist(), "protocol": {"crf": None}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    per_image = [{"name": f"val/{k}", "mean_iou": k / 10} for k in range(6)]
    (tmp_path / "per_image.json").write_text(json.dumps(per_image))
    return tmp_path


class Page(HTMLParser):
    """Checks that what is opened is closed, and collects what the page refers to and says."""

    VOID = frozenset({"meta", "img", "br", "link", "use", "path"})

    def __init__(self, html):
        super().__init__()
        self.open, self.links, self.text = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(workdir):
    return Page((workdir / "report.html").read_text())


def test_the_page_needs_nothing_from_outside(workdir):
    app.report(Config(), workdir)
    page = read_page(workdir)
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    html = (workdir / "report.html").read_text()
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_the_page_shows_what_the_run_was(workdir):
    app.report(Config(), workdir)
    text = " ".join(" ".join(read_page(workdir).text).split())
    mean_iou = json.loads((workdir / "scores.json").read_text())["mean_iou"]
    assert f"{100 * mean_iou:.1f} %" in text
    assert "<b>ox" in text  # escaped, not markup
    assert "absent" in text
    assert "Never predicted, though the images hold them: <b>ox" in text
    for title in ("Training loss", "Mean IoU on val", "Learning rate", "Training speed, images/s"):
        assert title in text
    assert "val/5 mean IoU 50.0 %" in text
    assert "model.batch_norm.decay" in text


def test_what_else_was_measured_is_shown(workdir):
    scores = json.loads((workdir / "scores.json").read_text())
    scores["confidence_interval"] = {"level": 0.95, "mean_iou": [0.41, 0.52], "num_resamples": 1000}
    scores["boundary_iou"] = {"mean": 0.31, "per_class": dict.fromkeys(NAMES, 0.123), "band_fraction": 0.02}
    scores["trimap"] = {"around": "labels", "widths": [1, 2], "mean_iou": [None, 0.4], "pixel_accuracy": [None, 0.6]}
    counts = CalibrationCounts(np.array([0, 4, 8]), np.array([0, 1, 7]), np.zeros(3))
    scores["calibration"] = calibration(counts)
    scores["speed"] = {"images_per_second": 2.5, "seconds": 4.0, "devices": "1 x cpu"}
    (workdir / "scores.json").write_text(json.dumps(scores))
    row = {"mean_iou": 0.5, "confidence_interval": {"mean_iou": None}, "pixel_accuracy": 0.9, "source": "S", "note": ""}
    (workdir / "protocols.json").write_text(json.dumps({"v3_val_os8": row}))
    app.report(Config(), workdir)
    text = " ".join(" ".join(read_page(workdir).text).split())
    for said in (
        "41.0 % to 52.0 %",
        "31.0 %",
        "12.3 %",
        "2.5 a second",
        "Mean IoU near the boundaries between classes",
        "How often it is right, by how sure it is",
        "v3_val_os8",
    ):
        assert said in text
    assert json.loads((workdir / "report.json").read_text())["protocols"]["v3_val_os8"]["mean_iou"] == 0.5


def test_report_json_holds_the_numbers(workdir):
    app.report(Config(), workdir)
    data = json.loads((workdir / "report.json").read_text())
    assert data["num_steps"] == 4
    assert data["training_seconds"] == 4 * Config().data.batch_size / 8.0
    assert data["curves"]["loss"]["steps"] == [1, 2, 3, 4]
    assert data["curves"]["mean_iou"]["values"] == [0.5]
    assert [row["name"] for row in data["best"]] == ["val/5", "val/4", "val/3"]
    assert [row["name"] for row in data["worst"]] == ["val/0", "val/1", "val/2"]
    assert data["largest_confusions"][0] == {"truth": "<b>ox", "prediction": "ground", "fraction": 0.8}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("metrics.jsonl", "holds no metrics.jsonl"),
        ("scores.json", "No scores yet"),
        ("per_image.json", "holds no per_image.json"),
    ],
)
def test_what_is_missing_is_said(workdir, missing, said):
    (workdir / missing).unlink()
    app.report(Config(), workdir)
    assert said in " ".join(read_page(workdir).text)


def test_images_that_the_split_no_longer_holds_are_left_out(workdir):
    (workdir / "per_image.json").write_text(json.dumps([{"name": "gone", "mean_iou": 0.1}]))
    app.report(Config(), workdir)
    assert "or the split changed since" in " ".join(read_page(workdir).text)


def test_no_checkpoint_is_one_line_and_writes_nothing(workdir, monkeypatch):
    def load_variables(*args):
        raise UserError("no checkpoint in DIR: train first")

    monkeypatch.setattr(network, "load_variables", load_variables)
    with pytest.raises(UserError, match="no checkpoint"):
        app.report(Config(), workdir)
    assert not (workdir / "report.html").exists()


def test_damaged_scores_are_one_line(workdir):
    (workdir / "scores.json").write_text('{"mean_iou": 0.')
    with pytest.raises(UserError, match=r"scores\.json.*--mode=evaluate") as error:
        app.report(Config(), workdir)
    assert "\n" not in str(error.value)


def test_best_and_worst_share_no_image():
    rows = [{"name": str(k), "mean_iou": value} for k, value in enumerate([0.2, None, 0.9, 0.5])]

    def names(count):
        return tuple([row["name"] for row in part] for part in app.best_and_worst(rows, count))

    assert names(1) == (["2"], ["0"])
    assert names(4) == (["2", "3"], ["0"])
    assert app.best_and_worst([], 4) == ([], [])


def test_training_seconds_follow_the_rate():
    lines = [{"step": 10, "images_per_second": 5.0}, {"step": 20, "images_per_second": None}]
    lines += [{"step": 30, "images_per_second": 10.0}]
    assert app.training_seconds(lines, batch_size=2) == 10 * 2 / 5 + 20 * 2 / 10
    assert app.training_seconds([], batch_size=2) is None


def test_charts_take_the_colours_of_the_page():
    svg = line_chart([0, 10, 20], [1.0, float("nan"), 0.5])
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "var(--accent)" in svg
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]", svg)
    assert svg == line_chart([0, 10, 20], [1.0, float("nan"), 0.5])


def test_large_images_are_shrunk():
    image = np.zeros((1000, 2000, 3), np.uint8)
    assert len(data_uri(image, max_side=100)) < len(data_uri(image, max_side=1000))
    assert data_uri(image).startswith("data:image/jpeg;base64,")
