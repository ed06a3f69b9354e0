"""Weights in several files with an index, and folders as libraries write them."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats.read import read_arrays, read_contents
from deeplab_jax.weights.formats.safetensors_file import write

ARRAYS = {"a.weight": np.arange(6.0).reshape(2, 3), "b.weight": np.ones(3), "c.weight": np.zeros(2)}


def _sharded(folder, changes=None):
    where = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    where["c.weight"] = where["b.weight"]
    for shard in set(where.values()):
        write(folder / shard, {name: ARRAYS[name] for name in ARRAYS if where[name] == shard}, {})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where | (changes or {})}))
    return index


def test_a_folder_of_shards_and_its_index(tmp_path):
    index = _sharded(tmp_path)
    for path in (tmp_path, index):
        read = read_arrays(path)
        assert set(read) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(read[name], array)


def test_shards_of_pickles(tmp_path):
    (tmp_path / "pytorch_model-00001-of-00001.bin").write_bytes(pickle.dumps(ARRAYS, 2))
    names = dict.fromkeys(ARRAYS, "pytorch_model-00001-of-00001.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    assert set(read_arrays(tmp_path)) == set(ARRAYS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a.weight": "../model-00001-of-00002.safetensors"}, "does not name files of the index's folder"),
        ({"a.weight": "/etc/passwd"}, "does not name files of the index's folder"),
        ({"a.weight": 3}, "does not name files of the index's folder"),
        ({"a.weight": "gone.safetensors"}, "names 'gone.safetensors', which is not beside it; fetch that file too"),
        ({"d.weight": "model-00002-of-00002.safetensors"}, "'model-00002-of-00002.safetensors' lacks 'd.weight'"),
    ],
)
def test_an_index_that_lies(changes, words, tmp_path, refused):
    assert words in refused(_sharded(tmp_path, changes))


@pytest.mark.parametrize("text", ["[]", "{", '{"weight_map": []}', "[" * 100_000])
def test_an_index_that_is_none(text, tmp_path, refused):
    index = _sharded(tmp_path)
    index.write_text(text)
    assert "damaged index" in refused(index)


def test_the_only_file_of_a_folder(tmp_path):
    write(tmp_path / "best.safetensors", ARRAYS, {})
    (tmp_path / "notes.txt").write_text("the best one")
    assert set(read_arrays(tmp_path)) == set(ARRAYS)
    write(tmp_path / "last.safetensors", ARRAYS, {})
    with pytest.raises(UserError, match=r"several files of weights \(best\.safetensors, last\.safetensors\); name one"):
        read_arrays(tmp_path)
    write(tmp_path / "model.safetensors", {"w": ARRAYS["a.weight"]}, {})
    assert set(read_arrays(tmp_path)) == {"w"}


def test_a_folder_without_any(tmp_path):
    with pytest.raises(UserError, match="a folder without weights; name a file of weights"):
        read_arrays(tmp_path)


def test_the_config_beside_a_file(tmp_path):
    write(tmp_path / "best.safetensors", ARRAYS, {})
    assert read_contents(tmp_path / "best.safetensors").origin == ""
    (tmp_path / "config.json").write_text('{"output_stride": 8}')
    contents = read_contents(tmp_path / "best.safetensors")
    assert (contents.settings, contents.origin) == ({"output_stride": 8}, "config.json")
    (tmp_path / "best.json").write_text('{"output_stride": 16}')
    assert read_contents(tmp_path / "best.safetensors").settings == {"output_stride": 16}
