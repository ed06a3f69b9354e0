"""VOC: found wherever it lies, unpacked or downloaded where it must be, and its palette."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import pathlib
import tarfile
import threading

import numpy as np
import pytest
import scipy.io
from made_files import make_ids, pixels, write_image, write_mask

from deeplab_jax.data.datasets import voc
from deeplab_jax.types import UserError


@pytest.fixture
def devkit(tmp_path) -> pathlib.Path:
    """The folder that holds VOCdevkit."""
    root = tmp_path / "holder" / "VOCdevkit" / "VOC2012"
    for seed, name in enumerate(("one", "two", "three")):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
        write_mask(root / "SegmentationClass" / f"{name}.png", make_ids(seed=seed, num_classes=21))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": ["one"], "val": ["two"], "trainval": ["one", "two"]}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    return tmp_path / "holder"


@pytest.fixture
def prepared(tmp_path) -> str:
    return str(tmp_path / "prepared")


def pack(devkit: pathlib.Path) -> pathlib.Path:
    """The archive of the data, in a folder of its own."""
    archive = devkit.parent / "archive" / voc.ARCHIVE.name
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.add(devkit / "VOCdevkit", "VOCdevkit")
    return archive


@pytest.mark.parametrize("inner", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_any_folder_down_to_the_data_will_do(devkit, prepared, inner):
    dataset = voc.open_dataset(str(devkit / inner), prepared)
    assert dataset.info.splits == {"train": 1, "trainval": 2, "val": 1}
    np.testing.assert_array_equal(dataset.open_split("val")[0].label, make_ids(seed=1, num_classes=21))


@pytest.mark.parametrize("which", ["archive", "its folder"])
def test_archive_is_unpacked(devkit, prepared, which):
    archive = pack(devkit)
    dataset = voc.open_dataset(str(archive if which == "archive" else archive.parent), prepared)
    assert dataset.open_split("trainval").names == ["one", "two"]


def test_damaged_archive(devkit, prepared):
    archive = pack(devkit)
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(UserError, match=rf"{voc.ARCHIVE.name}: cannot be unpacked .*; get http://host\.robots"):
        voc.open_dataset(str(archive), prepared)


@pytest.fixture
def server(devkit, monkeypatch):
    """A web server with the archive, in place of the real one; lists the requests it got."""
    archive = pack(devkit)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            requests.append(self.command)

    handler = functools.partial(Handler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        replace_archive(
            monkeypatch,
            url=f"http://127.0.0.1:{web.server_port}/{voc.ARCHIVE.name}",
            checksum=f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}",
        )
        yield requests
        web.shutdown()


def replace_archive(monkeypatch, **changes: str) -> None:
    monkeypatch.setattr(voc, "ARCHIVE", dataclasses.replace(voc.ARCHIVE, **changes))


def test_no_root_downloads_once(server, prepared):
    assert voc.open_dataset("", prepared).open_split("trainval").names == ["one", "two"]
    assert "GET" in server
    server.clear()
    assert voc.open_dataset("", prepared).info.splits["trainval"] == 2
    assert not server


def test_download_of_other_content_is_refused(server, prepared, monkeypatch):
    replace_archive(monkeypatch, checksum=f"sha256:{'0' * 64}")
    with pytest.raises(UserError, match=r"the download failed .*; get http"):
        voc.open_dataset("", prepared)


def test_no_root_and_no_network_says_what_to_put_where(prepared, monkeypatch):
    replace_archive(monkeypatch, url="http://127.0.0.1:9/nothing.tar")  # the discard port: nobody listens
    with pytest.raises(UserError) as caught:
        voc.open_dataset("", prepared)
    assert str(caught.value).startswith("config.data.root is empty and the download failed (")
    assert f"; get http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{voc.ARCHIVE.name} and give config.data.root" in str(
        caught.value
    )
    assert str(caught.value).endswith("JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/")


@pytest.mark.parametrize("problem", ["does not exist", "holds no VOC data"])
def test_root_without_data(tmp_path, prepared, problem):
    root = tmp_path / "empty"
    if problem == "holds no VOC data":
        root.mkdir()
    with pytest.raises(UserError, match=rf"^config\.data\.root='.*empty': {problem}; g"):
        voc.open_dataset(str(root), prepared)


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
@pytest.mark.parametrize("list_name", ["trainaug", "train_aug"])
def test_trainaug_takes_the_masks_of_sbd(devkit, prepared, line, list_name):
    root = devkit / "VOCdevkit" / "VOC2012"
    for name in ("one", "three"):
        write_mask(root / "SegmentationClassAug" / f"{name}.png", np.full((20, 30), 15, np.uint8))
    lines = [line.replace("{}", name) for name in ("one", "three")]
    (root / "ImageSets" / "Segmentation" / f"{list_name}.txt").write_text("\n".join(lines))
    dataset = voc.open_dataset(str(devkit), prepared)
    assert dataset.info.splits["trainaug"] == 2
    source = dataset.open_split("trainaug")
    assert source.names == ["one", "three"]
    assert (source[0].label == 15).all()
    assert not (dataset.open_split("train")[0].label == 15).all()


@pytest.fixture
def without_three(devkit):
    """VOC has no mask of that image."""
    (devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "three.png").unlink()


def write_sbd(folder: pathlib.Path) -> None:
    """SBD as published: 'two' is VOC's for validation, 'one' has a mask of VOC's too."""
    (folder / "cls").mkdir(parents=True)
    for seed, name in enumerate(("one", "two", "three")):
        ids = np.random.default_rng(seed).integers(0, 21, (20, 30), dtype=np.uint8)
        content = {"Segmentation": ids, "Boundaries": np.zeros((3, 3)), "CategoriesPresent": np.unique(ids)}
        scipy.io.savemat(folder / "cls" / f"{name}.mat", {"GTcls": content}, do_compression=True)
    (folder / "train.txt").write_text("three\ntwo\n")
    (folder / "val.txt").write_text("one\n")


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.usefixtures("without_three")
def test_trainaug_from_sbd_as_published(devkit, prepared, tmp_path, place, packed):
    if packed:
        write_sbd(tmp_path / "sbd" / "benchmark_RELEASE" / "dataset")
        with tarfile.open(devkit / place / "benchmark.tgz", "w:gz") as tar:
            tar.add(tmp_path / "sbd" / "benchmark_RELEASE", "benchmark_RELEASE")
    else:
        write_sbd(devkit / place / "benchmark_RELEASE" / "dataset")
    dataset = voc.open_dataset(str(devkit), prepared)
    assert dataset.info.splits == {"train": 1, "trainval": 2, "val": 1, "trainaug": 2}
    source = dataset.open_split("trainaug")
    assert source.names == ["one", "three"]
    np.testing.assert_array_equal(source[0].label, make_ids(seed=0, num_classes=21))  # VOC's own
    np.testing.assert_array_equal(source[1].label, np.random.default_rng(2).integers(0, 21, (20, 30), dtype=np.uint8))
    np.testing.assert_array_equal(dataset.open_split("val")[0].label, make_ids(seed=1, num_classes=21))


@pytest.mark.parametrize("damage", ["half", "another"])
@pytest.mark.usefixtures("without_three")
def test_damaged_mat_file(devkit, prepared, damage):
    folder = devkit / "benchmark_RELEASE" / "dataset"
    write_sbd(folder)
    path = folder / "cls" / "three.mat"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:200])
    else:
        scipy.io.savemat(path, {"GTcls": {"Segmentation": np.zeros((2, 3))}})
    with pytest.raises(UserError, match=r"three\.mat: is no mask of SBD \(.*\); unpack benchmark\.tgz again"):
        voc.open_dataset(str(devkit), prepared).open_split("trainaug")


@pytest.mark.parametrize("has_list", [False, True])
def test_absent_trainaug_says_what_is_missing(devkit, prepared, has_list):
    if has_list:
        (devkit / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").write_text("one\n")
    with pytest.raises(
        UserError, match=r"has no split 'trainaug'; put SBD's benchmark\.tgz or benchmark_RELEASE/ there, or its 10,582"
    ):
        voc.open_dataset(str(devkit), prepared).open_split("trainaug")


def test_palette_is_the_published_one(devkit, prepared):
    palette = voc.open_dataset(str(devkit), prepared).info.palette
    assert palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tvmonitor


def test_pets(shared, prepared):
    """Real photographs in VOC form."""
    dataset = voc.open_dataset(str(shared / "data" / "pets"), prepared)
    assert dataset.info.splits == {"train": 240, "train_mini": 16, "val": 60, "val_mini": 8}
    source = dataset.open_split("val_mini")
    ids = set.union(*(set(np.unique(source[index].label).tolist()) for index in range(8)))
    assert ids == {0, 8, 12, 255}


def test_png_content_behind_a_jpg_name(devkit, prepared):
    image = devkit / "VOCdevkit" / "VOC2012" / "JPEGImages" / "two.jpg"
    write_image(image.with_suffix(".png"), seed=9)
    image.with_suffix(".png").rename(image)
    example = voc.open_dataset(str(devkit), prepared).open_split("val")[0]
    np.testing.assert_array_equal(example.image, pixels(image))
