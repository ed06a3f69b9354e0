"""Archives for the benchmarks' servers: what predict makes passes the rules, and each fault is found."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import zipfile

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp
from PIL import Image

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.modes import predict as app
from deeplab_jax.config import Config
from deeplab_jax.data.datasets import cityscapes
from deeplab_jax.data.sources.submission import SUBMISSIONS, check_archive, submission
from deeplab_jax.types import DatasetInfo, UserError
from deeplab_jax.visualize import IGNORE_COLOR

VOC_IDS = ("2008_000006", "2011_003256")
FRAMES = ("berlin_000000_000019", "berlin_000001_000019")
FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


class RedDivided(nn.Module):
    """Class k where the red channel holds 10 k."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        red = jnp.asarray(images)[..., :1].astype(jnp.float32) / 10
        return -((red - jnp.arange(float(self.num_classes))[None, None, None]) ** 2)


@pytest.fixture
def run(monkeypatch, tmp_path, rng):
    """(benchmark, image names, number of classes) -> (folder of results, ids by name)."""

    def run(name, names, num_classes):
        info = DatasetInfo("toy", num_classes, 255, tuple(map(str, range(num_classes))), ((0, 0, 0),) * num_classes, {})
        monkeypatch.setattr(open_data, "module_info", lambda config: info)
        monkeypatch.setattr(network, "build", lambda config, info: RedDivided(num_classes))
        monkeypatch.setattr(network, "load_variables", lambda *args, **kwargs: {})
        (tmp_path / "in").mkdir(exist_ok=True)
        truth = {}
        for each in names:
            truth[each] = rng.integers(0, num_classes, (20, 31))
            Image.fromarray(np.repeat(10 * truth[each][..., None], 3, -1).astype(np.uint8)).save(
                tmp_path / "in" / f"{each}.png"
            )
        app.predict(Config(), tmp_path / "workdir", "", str(tmp_path / "in"), str(tmp_path / "out"), name)
        return tmp_path / "out", truth

    return run


def test_voc_archive_is_laid_out_as_the_server_wants(run):
    folder, truth = run("voc_comp6", VOC_IDS, 21)
    with tarfile.open(folder / "results.tar.gz") as archive:
        assert sorted(archive.getnames()) == [f"{FOLDER}/{name}.png" for name in VOC_IDS]
        for name, ids in truth.items():
            with Image.open(archive.extractfile(f"{FOLDER}/{name}.png")) as image:
                assert (image.format, image.mode) == ("PNG", "P")
                np.testing.assert_array_equal(np.asarray(image), ids)
                palette = image.getpalette()
                assert palette[3:9] == [128, 0, 0, 0, 128, 0]  # aeroplane, bicycle
                assert palette[60:63] == [0, 64, 128]  # tvmonitor
                assert palette[765:768] == list(IGNORE_COLOR)
    assert not list(folder.rglob("*_overlay.png"))
    assert not list(folder.rglob("*.unfinished"))


def test_cityscapes_archive_holds_label_ids(run):
    names = [f"{frame}_leftImg8bit" for frame in FRAMES]
    folder, truth = run("cityscapes", names, 19)
    with zipfile.ZipFile(folder / "cityscapes_results.zip") as archive:
        assert archive.namelist() == [f"{frame}_pred_labelIds.png" for frame in FRAMES]
        for frame in FRAMES:
            with Image.open(io.BytesIO(archive.read(f"{frame}_pred_labelIds.png"))) as image:
                assert (image.format, image.mode) == ("PNG", "L")
                expected = np.array([each.label_id for each in cityscapes.CLASSES])[truth[f"{frame}_leftImg8bit"]]
                np.testing.assert_array_equal(np.asarray(image), expected)


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


def png(values, *, palette=None, mode=None):
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette is not None:
        image.putpalette(palette)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, "PNG")
    return file.getvalue()


def test_each_fault_of_a_voc_archive_is_found(tmp_path):
    rules = SUBMISSIONS["voc_comp6"]
    ids = np.zeros((4, 5), np.uint8)
    good, path = rules.encode(ids), f"{FOLDER}/a.png"
    for files, said in (
        ({path: good}, None),
        ({}, "a.png: missing"),
        ({path: good, "results/readme.txt": b""}, "readme.txt: does not belong"),
        ({"a.png": good}, "a.png: missing"),
        ({path: rules.encode(ids + 21)}, "holds the value 21"),
        ({path: rules.encode(ids + 255)}, "holds the value 255"),
        ({path: rules.encode(ids[:3])}, "is 3x5, its image 4x5"),
        ({path: png(ids)}, "mode L, must be PNG of mode P"),
        ({path: png(ids, palette=[9, 9, 9] * 256)}, "palette is not the benchmark's"),
        ({path: good[:40]}, "no readable image"),
    ):
        write_tar(tmp_path / "results.tar.gz", files)
        faults = check_archive(rules, tmp_path / "results.tar.gz", {"a": (4, 5)})
        if said is None:
            assert faults == []
        else:
            assert any(said in fault for fault in faults), (said, faults)
    (tmp_path / "results.tar.gz").write_bytes(b"no archive")
    assert "no readable archive" in check_archive(rules, tmp_path / "results.tar.gz", {"a": (4, 5)})[0]


def test_each_fault_of_a_cityscapes_archive_is_found(tmp_path):
    rules = SUBMISSIONS["cityscapes"]
    frame = FRAMES[0]
    good = rules.encode(np.zeros((4, 5), np.uint8))
    for files, said in (
        ({f"{frame}.png": good}, None),
        ({f"deep/down/{frame}_anything.png": good}, None),
        ({}, "0 files"),
        ({f"{frame}_a.png": good, f"b/{frame}_b.png": good}, "2 files"),
        ({f"{frame}.png": png(np.full((4, 5), 18))}, "holds the value 18"),  # a train id, or an ignored label
        ({f"{frame}.png": png(np.full((4, 5), 7), mode="RGB")}, "mode RGB"),
        ({f"{frame}.png": png(np.full((8, 10), 7))}, "is 8x10, its image 4x5"),
    ):
        with zipfile.ZipFile(tmp_path / "results.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        faults = check_archive(rules, tmp_path / "results.zip", {f"{frame}_leftImg8bit": (4, 5)})
        assert (faults == []) if said is None else any(said in fault for fault in faults), (said, faults)


@pytest.mark.parametrize(
    ("name", "names", "num_classes", "said"),
    [
        ("voc", VOC_IDS, 21, "--submission=voc: there are voc_comp5, voc_comp6, cityscapes"),
        ("voc_comp5", VOC_IDS, 19, "takes 21 classes, the network has 19"),
        ("cityscapes", VOC_IDS, 19, "is not called CITY_SEQUENCE_FRAME_leftImg8bit"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, name, names, num_classes, said):
    with pytest.raises(UserError) as error:
        run(name, names, num_classes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_rules_are_for_the_right_classes():
    info = DatasetInfo("voc", 21, 255, ("x",) * 21, ((0, 0, 0),) * 21, {})
    assert submission("voc_comp5", info).member("2008_000006").endswith("/comp5_test_cls/2008_000006.png")
    with pytest.raises(UserError, match="takes 19 classes"):
        submission("cityscapes", dataclasses.replace(info))
