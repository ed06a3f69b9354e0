"""Which reader a file gets: by what is in it, then by its name; and what is said of a file that gets none."""

from __future__ import annotations

import ast
import io
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

import deeplab_jax.weights.formats
from deeplab_jax.types import UserError
from deeplab_jax.weights.formats.read import FORMATS, read_arrays


@pytest.fixture
def archive(tmp_path) -> pathlib.Path:
    path = tmp_path / "weights.npz"
    np.savez(path, kernel=np.arange(6.0).reshape(2, 3))
    return path


@pytest.mark.parametrize("suffix", ["", ".pth", ".h5", ".index", ".safetensors"])
def test_content_counts_before_the_suffix(archive, suffix):
    renamed = archive.rename(archive.with_suffix(suffix))
    np.testing.assert_array_equal(read_arrays(renamed)["kernel"], np.arange(6.0).reshape(2, 3))
    assert list(read_arrays(str(renamed))) == ["kernel"]


def test_arrays_are_read_only(archive):
    with pytest.raises(ValueError, match="read-only"):
        read_arrays(archive)["kernel"][0] = 1.0


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"\x1f\x8b\x08\x00", "unpack it"),
        (b"\n<!DOCTYPE html><html>", "the download went wrong"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"", "unknown format"),
        (b"weights", "unknown format"),
        (bytes(range(256)), "unknown format"),
    ],
)
def test_what_people_take_for_weights(content, remedy, tmp_path, refused):
    path = tmp_path / "weights.dat"
    path.write_bytes(content)
    assert remedy in refused(path)


def test_an_unknown_format_lists_the_known_ones(tmp_path, refused):
    path = tmp_path / "weights"
    path.write_bytes(b"?")
    text = refused(path)
    assert all(known.name in text for known in FORMATS)


def test_a_tar_archive_is_named(tmp_path, refused):
    path = tmp_path / "weights.dat"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt"), io.BytesIO())
    assert "a tar archive" in refused(path)


def test_a_zip_of_something_else_is_unknown(tmp_path, refused):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert "unknown format" in refused(path)


SUFFIXES = {suffix for known in FORMATS for suffix in known.suffixes} - {".meta"}  # which is never read itself


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_the_suffix_names_a_damaged_file(suffix, tmp_path, refused):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"?")
    name = next(known.name for known in FORMATS if suffix in known.suffixes)
    assert f"damaged {name}" in refused(path)


def test_absent_files_and_folders(tmp_path, refused):
    assert "no such file" in refused(tmp_path / "absent.npz")
    assert "a folder without" in refused(tmp_path)


def test_a_file_that_may_not_be_read(archive, monkeypatch):
    def forbid(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbid)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        read_arrays(archive)


def test_an_archive_without_arrays(tmp_path, refused):
    path = tmp_path / "empty.npz"
    np.savez(path)
    assert "without arrays" in refused(path)


def test_readers_import_nothing_that_could_execute_a_file():
    """And no framework: reading PyTorch's and TensorFlow's files must not need them."""
    forbidden = {"pickle", "importlib", "jax", "flax", "torch", "tensorflow", "keras"}
    for path in pathlib.Path(deeplab_jax.weights.formats.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            names += [node.func.id] if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else []
            assert not {name.split(".")[0] for name in names} & (forbidden | {"eval", "exec", "__import__"}), path.name
