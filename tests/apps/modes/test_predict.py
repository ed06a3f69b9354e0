"""Prediction on files: what is found, how results are named, what is written, and what a mistake says."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp
from PIL import Image

from deeplab_jax.apps.assembly import network, open_data, segment_files
from deeplab_jax.apps.assembly.workdir import keep_info
from deeplab_jax.apps.modes import predict as app
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.types import DatasetInfo, UserError

PALETTE = ((0, 0, 0), (250, 10, 20), (10, 250, 20))
INFO = DatasetInfo("toy", 3, 255, ("ground", "red", "green"), PALETTE, {"val": 1})


class Brightest(nn.Module):
    """Class 1 where red is the strongest channel, 2 where green is, else 0: a network without weights."""

    @nn.compact
    def __call__(self, images, *, train):
        blue, red, green = images[..., 2], images[..., 0], images[..., 1]
        return jnp.stack([blue, red, green], axis=-1).astype(jnp.float32)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """predict(images, output) with a toy network in place of a trained one."""
    monkeypatch.setattr(open_data, "module_info", lambda config: INFO)
    monkeypatch.setattr(network, "build", lambda config, info: Brightest())
    monkeypatch.setattr(network, "load_variables", lambda *args, **kwargs: {})

    def run(images, output=""):
        app.predict(Config(), tmp_path / "workdir", "", str(images), str(output))

    return run


def save_halves(path, size=(20, 30), mode="RGB"):
    """An image whose left half is red and whose right half is green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, : size[1] // 2] = (220, 30, 30)
    pixels[:, size[1] // 2 :] = (30, 220, 30)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def test_writes_ids_in_the_palette_and_an_overlay_at_the_original_size(run, tmp_path):
    save_halves(tmp_path / "in" / "photo.png")
    run(tmp_path / "in")
    folder = tmp_path / "workdir" / "predictions"
    assert sorted(path.name for path in folder.iterdir()) == ["photo.png", "photo_overlay.png"]
    with Image.open(folder / "photo.png") as ids:
        assert ids.mode == "P"
        assert ids.size == (30, 20)
        assert ids.getpalette()[3:9] == [250, 10, 20, 10, 250, 20]
        expected = np.repeat(np.where(np.arange(30) < 15, 1, 2)[None], 20, axis=0)
        np.testing.assert_array_equal(np.asarray(ids), expected)
    with Image.open(folder / "photo_overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (30, 20))


def test_camera_orientation_is_respected(run, tmp_path):
    (tmp_path / "in").mkdir()
    with Image.open(save_halves(tmp_path / "upright.png")) as upright:
        exif = Image.Exif()
        exif[0x0112] = 6  # shown turned by 90 degrees clockwise: red on top, green below
        upright.save(tmp_path / "in" / "turned.jpg", exif=exif, quality=95)
    run(tmp_path / "in")
    with Image.open(tmp_path / "workdir" / "predictions" / "turned.png") as ids:
        assert ids.size == (20, 30)
        assert (np.asarray(ids)[:13] == 1).all()  # JPEG blurs the border between the halves
        assert (np.asarray(ids)[17:] == 2).all()


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "I;16", "CMYK"])
def test_any_mode_is_taken(run, tmp_path, mode):
    ending = "tif" if mode == "CMYK" else "png"
    save_halves(tmp_path / "in" / f"photo.{ending}", mode=mode)
    run(tmp_path / "in")
    with Image.open(tmp_path / "workdir" / "predictions" / "photo.png") as ids:
        assert ids.size == (30, 20)


def test_images_are_found_as_file_list_glob_and_folder(tmp_path):
    names = ["a.jpg", "b.PNG", "c.txt", "x,y.png"]
    for name in names:
        (tmp_path / name).touch()
    folder = str(tmp_path)

    def found(images):
        return [path.name for path in app.expand_images(images)]

    assert found(folder) == ["a.jpg", "b.PNG", "x,y.png"]
    assert found(f"{folder}/c.txt") == ["c.txt"]  # asked for by name: the decoder shall say what it is
    assert found(f"{folder}/b.PNG, {folder}/a.jpg,") == ["b.PNG", "a.jpg"]
    assert found(f"{folder}/*.jpg") == ["a.jpg"]
    assert found(f"{folder}/x,y.png") == ["x,y.png"]
    assert found(f"{folder}/a.jpg,{folder}") == ["a.jpg", "b.PNG", "x,y.png"]  # each once


@pytest.mark.parametrize("images", ["missing.jpg", "*.jpg", "empty", ""])
def test_nothing_found_is_one_line(run, tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        run(images)
    message = one_line(error)
    assert "--images" in message
    assert images in message
    assert not (tmp_path / "workdir").exists()


def test_images_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    for path in ("one/frame.png", "two/frame.png", "two/frame.bmp", "two/other.png"):
        save_halves(tmp_path / path)
    run(f"{tmp_path}/*/*")
    written = {path.name for path in (tmp_path / "workdir" / "predictions").iterdir()}
    names = ("one_frame_png", "two_frame_bmp", "two_frame_png", "other")
    assert written == {f"{name}{ending}" for name in names for ending in (".png", "_overlay.png")}


def test_a_result_that_would_be_anothers_is_refused(run, tmp_path):
    save_halves(tmp_path / "in" / "cat.jpg")
    save_halves(tmp_path / "in" / "cat_overlay.jpg")
    with pytest.raises(UserError, match=r"would overwrite .*cat_overlay\.png, that of") as error:
        run(tmp_path / "in")
    one_line(error)


def test_images_themselves_are_never_overwritten(run, tmp_path):
    path = save_halves(tmp_path / "in" / "cat.png")
    before = path.read_bytes()
    with pytest.raises(UserError, match="would overwrite") as error:
        run(tmp_path / "in", tmp_path / "in")
    assert "--output" in one_line(error)
    assert path.read_bytes() == before


def test_one_bad_image_among_many_does_not_stop_the_others(run, tmp_path):
    for k in range(20):
        save_halves(tmp_path / "in" / f"{k:02}.png")
    (tmp_path / "in" / "07.png").write_bytes(b"no image")
    whole = (tmp_path / "in" / "11.png").read_bytes()
    (tmp_path / "in" / "11.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as error:
        run(tmp_path / "in")
    message = one_line(error)
    assert "2 of 20 images" in message
    assert "07.png" in message
    assert "11.png" in message
    assert len(list((tmp_path / "workdir" / "predictions").glob("*_overlay.png"))) == 18


def test_output_that_is_a_file_is_one_line(run, tmp_path):
    save_halves(tmp_path / "in" / "cat.png")
    (tmp_path / "taken").touch()
    with pytest.raises(UserError) as error:
        run(tmp_path / "in", tmp_path / "taken")
    message = one_line(error)
    assert str(tmp_path / "taken") in message
    assert "choose another folder" in message


def test_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    save_halves(tmp_path / "in" / "cat.png")

    def write_bytes(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)
    with pytest.raises(UserError) as error:
        run(tmp_path / "in")
    message = one_line(error)
    assert "cat.png" in message
    assert "No space left on device" in message


@pytest.mark.usefixtures("unchecked_types")
def test_an_image_is_read_once_ahead_and_in_order(tmp_path):
    """Reading runs ahead of the device by a bounded number of images."""
    waiting = []

    class Pool:
        def submit(self, function, path):
            waiting.append(path)
            return path

    ahead = segment_files._ahead(Pool(), None, range(100))
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    assert len(waiting) < 20
    assert list(ahead) == list(range(3, 100))


def test_images_of_one_size_share_batches(run, tmp_path, monkeypatch):
    """Full batches, then one by one; each image's result is its own."""
    seen = []
    make = app.make_batch_segmenter

    def counting(*args):
        segment = make(*args)

        def count(images):
            seen.append(len(images))
            return segment(images)

        return count

    monkeypatch.setattr(app, "make_batch_segmenter", counting)
    for k in range(19):
        save_halves(tmp_path / "in" / f"{k:02}.png", size=(20, 2 * k + 12))
    run(tmp_path / "in")
    assert sorted(seen) == [1, 1, 1, 8, 8]
    for k in range(19):
        ids = np.asarray(Image.open(tmp_path / "workdir" / "predictions" / f"{k:02}.png"))
        assert ids.shape == (20, 2 * k + 12)
        assert (ids[:, : k + 6] == 1).all()
        assert (ids[:, k + 6 :] == 2).all()


def test_images_of_many_sizes_do_not_pile_up(tmp_path):
    """What waits for a full batch is bounded."""
    waiting = set()
    most = 0

    def segment(images):
        for image in images:
            waiting.discard(image.shape[1])
        return [lambda image=image: image[..., 0] for image in images]

    def read(path, info):
        nonlocal most
        waiting.add(int(path.name))
        most = max(most, len(waiting))
        return np.zeros((3, int(path.name), 3), np.uint8)

    paths = [pathlib.Path(str(k)) for k in range(1, 200)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_files, "_read", read)
        options = PredictorOptions(InferenceConfig(bucket=1))
        segment_files.segment_files(segment, options, paths, paths, INFO, files=lambda *result: {}, batch_size=4)
    assert not waiting
    assert most <= 4 * 4 + 2 * 8


def test_a_trained_workdir_predicts_without_its_data_set(run, tmp_path, monkeypatch):
    keep_info(INFO, tmp_path / "workdir")
    monkeypatch.setattr(open_data, "open_dataset", lambda config: pytest.fail("opened the data set"))
    run(save_halves(tmp_path / "in" / "photo.png"))
    assert (tmp_path / "workdir" / "predictions" / "photo.png").exists()
    assert open_data.find_info(Config(), tmp_path / "workdir") == INFO


def test_a_broken_description_of_the_data_set_is_one_line(run, tmp_path):
    (tmp_path / "workdir").mkdir()
    (tmp_path / "workdir" / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*dataset\.json.*: remove it") as error:
        run(save_halves(tmp_path / "in" / "photo.png"))
    one_line(error)
