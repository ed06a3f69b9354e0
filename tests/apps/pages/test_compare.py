"""Two runs side by side: what the page says, whose images changed, and what is asked for where something is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.pages import comparison as app
from deeplab_jax.config import AddedLoss, Config, from_dict, to_dict
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.metrics.confusion import scores as score
from deeplab_jax.types import DatasetInfo, Example, UserError

NAMES = ("ground", "<b>ox", "never")
INFO = DatasetInfo("toy", 3, 255, NAMES, ((0, 0, 0), (250, 0, 0), (0, 0, 250)), {"val": 6})


def write_run(workdir, confusion, per_image, **settings):
    config = Config()
    for name, value in settings.items():
        setattr(config.optimizer, name, value)
    workdir.mkdir()
    protocol = {"dataset": "toy", "split": "val", "flip": False, "output_stride": 8, "scales": [1.0, 1.5]}
    scores = {**score(np.array(confusion), NAMES), "num_images": 6, "confusion": confusion, "protocol": protocol}
    (workdir / "scores.json").write_text(json.dumps(scores))
    rows = [{"name": f"image{k}", "mean_iou": value} for k, value in enumerate(per_image)]
    (workdir / "per_image.json").write_text(json.dumps(rows))
    (workdir / "config.json").write_text(json.dumps(to_dict(config)))
    return workdir


@pytest.fixture
def runs(tmp_path, rng, monkeypatch):
    """Two workdirs, and networks that predict class 0 and class 1."""
    first = write_run(tmp_path / "first", [[8, 2, 0], [5, 5, 0], [0, 0, 0]], [0.5, 0.5, 0.5, 0.5, None, 0.3])
    second = write_run(
        tmp_path / "second",
        [[9, 1, 0], [1, 9, 0], [0, 0, 0]],
        [0.5, 0.9, 0.2, 0.6, 0.7, 0.3],
        learning_rate=0.5,
    )
    examples = [
        Example(f"image{k}", rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), np.ones((9, 12), np.uint8))
        for k in range(6)
    ]
    seen = []

    def make_segmenter(apply_fn, variables, options):
        seen.append(options)
        value = len(seen) - 1
        return lambda image: lambda: np.full(image.shape[:2], value % 2, np.uint8)

    monkeypatch.setattr(open_data, "open_normalized", lambda config, workdir: Dataset(INFO, {"val": examples}.get))
    monkeypatch.setattr(open_data, "find_info", lambda config, workdir: INFO)
    monkeypatch.setattr(network, "build", lambda config, info: type("Model", (), {"apply": None}))
    monkeypatch.setattr(network, "load_variables", lambda *args: {})
    monkeypatch.setattr(app, "make_segmenter", make_segmenter)
    return first, second, seen


def test_the_page_shows_what_changed(runs, tmp_path):
    first, second, seen = runs
    app.compare([first, second], tmp_path / "out")
    html = (tmp_path / "out" / "comparison.html").read_text()
    for said in ("&lt;b&gt;ox", "image1", "+40.0", "image2", "-30.0", "optimizer.learning_rate", "0.007 -&gt; 0.5"):
        assert said in html
    assert "<b>ox" not in html
    assert "not scored alike" not in html
    assert "image0" not in html  # unchanged
    assert html.index("image1") < html.index("image3") < html.index("image2")  # gained most, gained, lost
    assert html.count("data:image/jpeg;base64,") == 6 * 3
    assert "http" not in html
    assert [options.settings.scales for options in seen[:2]] == [(1.0, 1.5)] * 2  # drawn as they were scored

    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert data["iou_per_class"]["never"] == [None, None]
    assert data["iou_per_class"]["ground"] == pytest.approx([8 / 15, 9 / 11])
    assert data["per_image"]["image1"] == [0.5, 0.9]
    assert "image4" not in data["per_image"]  # nothing to compare with
    assert [run["workdir"] for run in data["runs"]] == [str(first), str(second)]


def test_other_protocols_are_a_warning(runs, tmp_path):
    first, second, _ = runs
    scores = json.loads((first / "scores.json").read_text())
    scores["protocol"]["flip"] = True
    (first / "scores.json").write_text(json.dumps(scores))
    app.compare([first, second], tmp_path / "out")
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "not scored alike" in html
    assert "flip: True -&gt; False" in html


def test_without_the_images_the_page_says_why(runs, tmp_path, monkeypatch):
    def open_normalized(config, workdir):
        raise UserError("config.data.root is empty")

    monkeypatch.setattr(open_data, "open_normalized", open_normalized)
    first, second, _ = runs
    app.compare([first, second], tmp_path / "out")
    html = (tmp_path / "out" / "comparison.html").read_text()
    assert "Without pictures: config.data.root is empty" in html
    assert "image1" in html


def test_mistakes_are_one_line(runs, tmp_path):
    first, second, _ = runs
    with pytest.raises(UserError, match="takes two workdirs, got 1"):
        app.compare([first], tmp_path)
    other = write_run(tmp_path / "other", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [])
    scores = json.loads((other / "scores.json").read_text())
    scores |= {"iou_per_class": {"cat": 1.0}, "confusion": [[1]]}
    (other / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(UserError, match="were scored on other classes"):
        app.compare([first, other], tmp_path)
    (second / "scores.json").unlink()
    with pytest.raises(UserError, match=r"holds no scores\.json; write it with --mode=evaluate"):
        app.compare([first, second], tmp_path)


def test_a_config_comes_back_from_json():
    config = Config()
    config.data.crop_size = (65, 97)
    config.model.head.args = {"aspp_channels": 8}
    config.loss.added = (AddedLoss("dice.dice", 0.5),)
    config.inference.scales = (0.5, 1.0)
    settings = json.loads(json.dumps(to_dict(config)))
    assert from_dict(settings) == config
    settings["model"]["of_another_version"] = 3
    del settings["inference"]
    assert from_dict(settings).model == config.model
    assert from_dict(settings).inference == Config().inference
