"""Small files of large cost: each is refused in one line, soon, and in little memory."""

from __future__ import annotations

import json
import struct
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from test_tflite import FLOAT16, FLOAT32, Flatbuffer
from tf_bundles import DTYPE_IDS, field, shape_message, table

from deeplab_jax.types import UserError
from deeplab_jax.weights.formats import keras_h5
from deeplab_jax.weights.formats.budget import VARIABLE
from deeplab_jax.weights.formats.crc32c import masked_crc32c
from deeplab_jax.weights.formats.read import read_arrays

BIG = 1 << 20  # bytes of an array that is named again and again
MAX_SECONDS = 4.0  # each takes less than one on an idle machine; without a budget minutes


def _safetensors_views(path):
    entry = {"dtype": "BF16", "shape": [BIG // 2], "data_offsets": [0, BIG]}
    header = json.dumps({f"w{index}": entry for index in range(100)}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(BIG))


def _tensorflow_views(path):
    data = bytes(BIG)
    entry = field(1, DTYPE_IDS["float32"]) + field(2, shape_message([BIG // 4])) + field(5, BIG)
    entry += bytes([6 << 3 | 5]) + struct.pack("<I", masked_crc32c(data))
    header = field(1, 1)
    _write_bundle(path, [(b"", header), *((f"w{index:03d}".encode(), entry) for index in range(60))], data)


def _tensorflow_names(path):
    entry = field(1, DTYPE_IDS["float32"]) + field(2, shape_message([0]))
    entry += bytes([6 << 3 | 5]) + struct.pack("<I", masked_crc32c(b""))
    names = ((b"n" * 3990 + f"{index:06d}".encode(), entry) for index in range(2800))
    _write_bundle(path, [(b"", field(1, 1)), *names], b"")


def _write_bundle(path, entries, data):
    path.write_bytes(table(entries))
    path.with_name(f"{path.stem}.data-00000-of-00001").write_bytes(data)


def _pickle(*instructions):
    return b"\x80\x02" + b"".join(instructions) + b"."


def _unicode(text):
    return b"X" + struct.pack("<I", len(text)) + text


def _pickle_texts(path):
    """Many arrays whose bytes are one text."""
    dtype = b"cnumpy\ndtype\n(" + _unicode(b"f4") + b"tR"
    new = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    state = b"(K\x01(J" + struct.pack("<i", BIG // 4) + b"t" + dtype + b"\x89h\x01tb"
    text = _unicode(bytes(BIG)) + b"q\x010"
    arrays = [_unicode(f"w{index}".encode()) + new + state for index in range(200)]
    path.write_bytes(_pickle(text, b"}(", *arrays, b"u"))


def _pickle_mappings(path):
    """A mapping of many numbers under many names."""
    numbers = b"".join(b"J" + struct.pack("<i", index) + b"N" for index in range(20_000))
    names = b"".join(_unicode(f"{index}".encode()) + b"h\x01" for index in range(20_000))
    path.write_bytes(_pickle(b"}(", numbers, b"uq\x010", b"}(", names, b"u"))


def _pth_parameters(path):
    """A parameter of a parameter of ... under many names."""
    wrap = b"\x85q\x030h\x02h\x03R"  # the value on the stack becomes the argument of a call
    nested = b"ctorch._utils\n_rebuild_parameter\nq\x020N" + wrap * 30_000
    names = b"".join(_unicode(f"{index}".encode()) + b"h\x04" for index in range(20_000))
    _write_zip(path, {"a/data.pkl": _pickle(nested, b"q\x040}(", names, b"u")})


def _pth_views(path):
    """A storage fetched anew for each of its views."""
    tensors = b""
    for index in range(100):
        view = b"(" + _unicode(b"v") + b"K" + bytes([index]) + b"J" + struct.pack("<i", BIG // 8) + b"t"
        storage = b"(" + _unicode(b"storage") + b"ctorch\nFloatStorage\n" + _unicode(b"0") + _unicode(b"cpu")
        storage += b"J" + struct.pack("<i", BIG // 4) + view + b"tQ"
        size = b"(J" + struct.pack("<i", BIG // 8) + b"t(K\x01t\x89}tR"
        tensors += _unicode(f"w{index}".encode()) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size
    _write_zip(path, {"a/data.pkl": _pickle(b"}(", tensors, b"u"), "a/data/0": bytes(BIG)})


def _pth_zeros(path):
    storage = b"(" + _unicode(b"storage") + b"ctorch\nByteStorage\n" + _unicode(b"0") + _unicode(b"cpu")
    storage += b"J" + struct.pack("<i", 32 * BIG) + b"tQ"
    size = b"K\0(J" + struct.pack("<i", 32 * BIG) + b"t(K\x01t\x89}tR"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + size
    members = {"a/data.pkl": _pickle(b"}(", _unicode(b"w"), tensor, b"u"), "a/data/0": bytes(32 * BIG)}
    _write_zip(path, members, zipfile.ZIP_DEFLATED)


def _npz_zeros(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, w=np.zeros(32 * BIG, np.uint8))


def _npz_one_name(path):
    _write_zip(path, {"v.npy": b"", "w.npy": b""})
    path.write_bytes(path.read_bytes().replace(b"v.npy", b"w.npy"))


def _h5_zeros(path):
    with h5py.File(path, "w") as archive:
        archive.create_dataset("w", data=np.zeros(32 * BIG, np.uint8), compression="gzip", chunks=(BIG,))


def _tflite_halves(path):
    _write_tflite(path, [(f"w{index}", FLOAT16) for index in range(50)], BIG // 2)


def _tflite_one_name(path):
    _write_tflite(path, [("w", FLOAT32)] * 2000, BIG // 4)


def _write_tflite(path, tensors, count):
    """Tensors on one buffer."""
    flat = Flatbuffer()

    def tensor(name, type_id):
        shape, text = struct.pack("<i", count), name.encode()
        slots = {0: lambda: flat.vector(shape, 1), 2: 0, 3: lambda: flat.vector(text, len(text))}
        return lambda: flat.table(slots | ({1: type_id} if type_id else {}))

    children = [tensor(*each) for each in tensors]
    buffer = [lambda: flat.table({0: lambda: flat.vector(bytes(BIG), BIG)})]
    subgraph = [lambda: flat.table({0: lambda: flat.tables(children)})]
    flat.point(0, flat.table({0: 3, 4: lambda: flat.tables(buffer), 2: lambda: flat.tables(subgraph)}))
    path.write_bytes(bytes(flat.data))


def _write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


MADE = {
    "safetensors.safetensors": _safetensors_views,
    "entries.index": _tensorflow_views,
    "names.index": _tensorflow_names,
    "texts.pkl": _pickle_texts,
    "mappings.pkl": _pickle_mappings,
    "parameters.pth": _pth_parameters,
    "views.pth": _pth_views,
    "zeros.pth": _pth_zeros,
    "zeros.npz": _npz_zeros,
    "one_name.npz": _npz_one_name,
    "zeros.h5": _h5_zeros,
    "halves.tflite": _tflite_halves,
    "one_name.tflite": _tflite_one_name,
}


@pytest.mark.parametrize("name", MADE)
def test_a_small_file_of_large_cost(name, tmp_path, refused, monkeypatch):
    path = tmp_path / name
    MADE[name](path)
    monkeypatch.setattr(keras_h5, "_convert_apart", keras_h5._convert)
    monkeypatch.setenv(VARIABLE, "0.02")
    start = time.thread_time()
    reason = refused(path)
    assert time.thread_time() - start < MAX_SECONDS
    assert any(words in reason for words in (VARIABLE, "without end", "share their bytes", "two members"))


def test_the_budget_can_be_raised(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    _npz_zeros(path)
    monkeypatch.setenv(VARIABLE, "0.02")
    with pytest.raises(UserError, match=VARIABLE):
        read_arrays(path)
    monkeypatch.setenv(VARIABLE, "1")
    assert read_arrays(path)["w"].nbytes == 32 * BIG


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan", "inf"])
def test_a_factor_that_is_none(value, tmp_path, monkeypatch):
    np.savez(tmp_path / "weights.npz", w=np.zeros(1))
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UserError, match="must be a positive number"):
        read_arrays(tmp_path / "weights.npz")


def test_a_header_that_no_parser_survives(tmp_path, refused):
    """Python's own parser ends with MemoryError at nested brackets."""
    header = b"(" * 9000
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    _write_zip(tmp_path / "weights.npz", {"w.npy": data})
    assert "damaged header" in refused(tmp_path / "weights.npz")


def test_memory_that_is_exhausted(tmp_path, refused, monkeypatch):
    np.savez_compressed(tmp_path / "weights.npz", w=np.zeros(10))

    def exhaust(*_):
        raise MemoryError

    monkeypatch.setattr(zlib, "decompressobj", exhaust)
    assert "needs more memory than there is" in refused(tmp_path / "weights.npz")


def test_names_do_not_reach_the_terminal_as_commands(tmp_path, refused):
    np.savez(tmp_path / "weights.npz", **{"w\x1b[31m": np.zeros(1)})
    assert "\x1b" not in refused(tmp_path / "weights.npz")
