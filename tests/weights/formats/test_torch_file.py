"""PyTorch's files: written by hand from the format, and by PyTorch where it is installed."""

from __future__ import annotations

import dataclasses
import functools
import struct
import zipfile

import numpy as np
import pytest

from deeplab_jax.weights.formats.read import read_arrays

FORMS = ("zip", "legacy")
ITEM_BYTES = {"FloatStorage": 4, "BFloat16Storage": 2, "LongStorage": 8, "QInt8Storage": 1}


@dataclasses.dataclass
class Call:
    """What a pickle says of an object that a function makes."""

    module: str
    name: str
    arguments: tuple = ()
    state: object = None


@dataclasses.dataclass
class Storage:
    """The contents of a storage, and what PyTorch calls its type."""

    key: str
    type: str
    data: bytes
    count: int
    view: tuple | None = None


def _assemble(value, form):
    """The instructions of protocol 2 for a value; storages lie beside it."""
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            octets = value.to_bytes(12, "little", signed=True)
            return b"\x8a" + bytes([len(octets)]) + octets
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(_assemble(item, form) for item in value) + b"t"
        case list():
            return b"](" + b"".join(_assemble(item, form) for item in value) + b"e"
        case dict():
            pairs = [_assemble(item, form) for pair in value.items() for item in pair]
            return b"}(" + b"".join(pairs) + b"u"
        case Call():
            state = b"" if value.state is None else _assemble(value.state, form) + b"b"
            reference = f"c{value.module}\n{value.name}\n".encode()
            return reference if value.arguments is None else reference + _assemble(value.arguments, form) + b"R" + state
        case Storage():
            key = ("storage", Call("torch", value.type, None), value.key, "cpu", value.count)
            return _assemble((*key, value.view) if form == "legacy" else key, form) + b"Q"
    raise TypeError(value)


def _tensor(storage, offset, size, stride):
    hooks = Call("collections", "OrderedDict")
    return Call("torch._utils", "_rebuild_tensor_v2", (storage, offset, size, stride, False, hooks))


def _storages(value):
    match value:
        case Storage():
            return {value.key: value}
        case Call():
            return _storages((value.arguments or (), value.state))
        case dict():
            return _storages(tuple(value.values()))
        case tuple() | list():
            return {key: found for item in value for key, found in _storages(item).items()}
    return {}


def _write(path, value, form):
    """Writes a file as torch.save does."""
    storages = _storages(value)
    data = b"\x80\x02" + _assemble(value, form) + b"."
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", b"little")
            for key, storage in storages.items():
                archive.writestr(f"archive/data/{key}", storage.data)
            archive.writestr("archive/version", b"3\n")
        return path
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [0x1950A86A20F9469CFC6C, 1001, system]
    pickles = [b"\x80\x02" + _assemble(item, form) + b"." for item in head]
    # torch.save writes the magic number as short as it can, and readers know the file by it
    pickles[0] = b"\x80\x02\x8a\x0a" + head[0].to_bytes(10, "little") + b"."
    keys = b"\x80\x02" + _assemble(list(storages), form) + b"."
    bodies = [
        struct.pack("<q", len(storage.data) // ITEM_BYTES[storage.type]) + storage.data for storage in storages.values()
    ]
    path.write_bytes(b"".join([*pickles, data, keys, *bodies]))
    return path


def _float_storage(key, count):
    return Storage(key, "FloatStorage", np.arange(count, dtype="<f4").tobytes(), count)


def _checkpoint():
    base = _float_storage("0", 24)
    brain = Storage("1", "BFloat16Storage", b"\x80\x3f\x20\xc0", 2)
    steps = Storage("2", "LongStorage", struct.pack("<q", 7), 1)
    return {
        "epoch": 3,
        "args": Call("argparse", "Namespace", (), {"lr": "0.1"}),
        "state_dict": {
            "whole": _tensor(base, 0, (4, 6), (6, 1)),
            "transposed": _tensor(base, 0, (6, 4), (1, 6)),
            "window": _tensor(base, 8, (2, 3), (6, 1)),
            "brain": _tensor(brain, 0, (2,), (1,)),
            "steps": _tensor(steps, 0, (), ()),
            "none": _tensor(base, 0, (0, 3), (3, 1)),
            "size": _tensor(base, 1, Call("torch", "Size", ((2, 2),)), (2, 1)),
            "parameter": Call("torch._utils", "_rebuild_parameter", (_tensor(base, 23, (1,), (1,)), True, None)),
        },
    }


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def test_tensors_come_back(form, tmp_path):
    read = read_arrays(_write(tmp_path / "checkpoint.pth", _checkpoint(), form))
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "whole": base,
        "transposed": base.T,
        "window": base[1:3, 2:5],
        "brain": np.array([1.0, -2.5], np.float32),
        "steps": np.array(7),
        "none": np.zeros((0, 3), np.float32),
        "size": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
        "parameter": np.array([23.0], np.float32),
    }
    assert set(read) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name], array)
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert not read[name].flags.writeable


def test_the_stride_of_a_single_element_does_not_matter(form, tmp_path):
    tensor = _tensor(_float_storage("0", 24), 23, (1, 1), (2**62, 2**63 - 1))
    np.testing.assert_array_equal(read_arrays(_write(tmp_path / "model.pth", {"w": tensor}, form))["w"], [[23.0]])


def test_tied_tensors_share_memory(form, tmp_path):
    read = read_arrays(_write(tmp_path / "checkpoint.pth", _checkpoint(), form))
    assert np.shares_memory(read["whole"], read["transposed"])


def test_needs_no_suffix(form, tmp_path):
    assert "whole" in read_arrays(_write(tmp_path / "checkpoint", _checkpoint(), form))


def test_cut_short_or_changed(form, tmp_path, refused_when_cut, never_fatal):
    path = _write(tmp_path / "checkpoint.pth", _checkpoint(), form)
    refused_when_cut(path)
    never_fatal(path)


def test_big_endian_storages(tmp_path):
    """A zip says in which order its storages are."""
    path = tmp_path / "checkpoint.pth"
    storage = Storage("0", "FloatStorage", np.array([1.0, 2.0], ">f4").tobytes(), 2)
    _write(path, {"w": _tensor(storage, 0, (2,), (1,))}, "zip")
    turned = tmp_path / "turned.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(turned, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"big" if name.endswith("byteorder") else source.read(name))
    np.testing.assert_array_equal(read_arrays(turned)["w"], [1.0, 2.0])


def test_views_on_storages_of_old_files(tmp_path):
    """Before 0.4 a storage could be a part of another: its key, offset and size."""
    storage = _float_storage("0", 10)
    storage.view = ("1", 4, 3)
    path = _write(tmp_path / "old.pth", {"w": _tensor(storage, 1, (2,), (1,))}, "legacy")
    np.testing.assert_array_equal(read_arrays(path)["w"], [5.0, 6.0])


def test_a_module_that_was_pickled_whole(form, tmp_path):
    """Its names are those of its state dict, and its class is not needed."""

    def module(modules, parameters=None):
        state = {"training": True, "_parameters": parameters or {}, "_buffers": {}, "_modules": modules}
        return Call("nobody.knows", "Net", (), state)

    leaf = module({}, {"weight": _tensor(_float_storage("0", 2), 0, (2,), (1,)), "bias": None})
    path = _write(tmp_path / "model.pth", module({"backbone": module({"conv1": leaf})}), form)
    assert list(read_arrays(path)) == ["backbone.conv1.weight"]


@pytest.mark.parametrize(
    ("offset", "size", "stride", "reason"),
    [
        (0, (25,), (1,), "beyond its storage"),
        (20, (5,), (1,), "beyond its storage"),
        (0, (2, 2), (24, 1), "beyond its storage"),
        (0, (2**40,), (2**40,), "beyond its storage"),
        (0, (2**40,), (0,), "repeats its elements"),
        (0, (2**40, 2**40), (0, 0), "repeats its elements"),
        (0, (1,) * 70, (1,) * 70, "damaged"),
        (0, (0, 2**62, 2**62), (1, 1, 1), "damaged"),
        (2**80, (1,), (1,), "beyond its storage"),
        (-1, (1,), (1,), "without offset"),
        (0, (2,), (-1,), "no array has"),
        (0, (-1,), (1,), "no array has"),
        (0, (2**80,), (1,), "no array has"),
        (0, (1, 1), (1,), "without offset"),
        (None, (1,), (1,), "without offset"),
        (0, None, (1,), "no array has"),
    ],
)
def test_a_tensor_that_lies(offset, size, stride, reason, form, tmp_path, refused):
    tensor = _tensor(_float_storage("0", 24), offset, size, stride)
    assert reason in refused(_write(tmp_path / "lie.pth", {"w": tensor}, form))


@pytest.mark.parametrize("count", [2**40, 2**61, 2**70, -1, 23, 25])
def test_a_storage_that_lies(count, form, tmp_path, refused):
    storage = dataclasses.replace(_float_storage("0", 24), count=count)
    refused(_write(tmp_path / "lie.pth", {"w": _tensor(storage, 0, (2,), (1,))}, form))


@pytest.mark.parametrize("count", [2**40, 2**61, 2**63 - 1, -1, 23, 25])
def test_a_count_before_a_storage_that_lies(count, tmp_path, refused):
    storage = _float_storage("0", 24)
    path = _write(tmp_path / "lie.pth", {"w": _tensor(storage, 0, (2,), (1,))}, "legacy")
    honest = struct.pack("<q", 24) + storage.data
    path.write_bytes(path.read_bytes().removesuffix(honest) + struct.pack("<q", count) + storage.data)
    refused(path)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (Call("torch._utils", "_rebuild_qtensor", (1,)), "not plain (qtensor)"),
        (Call("torch._utils", "_rebuild_sparse_tensor", (1,)), "not plain (sparse_tensor)"),
        (_tensor(Storage("0", "QInt8Storage", b"\0", 1), 0, (1,), (1,)), "torch.QInt8Storage"),
        (Call("torch._utils", "_rebuild_tensor_v2", (1, 0, (1,), (1,))), "without its storage"),
        (Call("torch._utils", "_rebuild_tensor_v2", ()), "without its storage"),
        (Call("torch._utils", "_rebuild_tensor_v3", (_float_storage("0", 1), 0, (1,), (1,))), "no dtype"),
        ("text", "holds no tensors"),
    ],
)
def test_other_than_plain_tensors(tensor, reason, form, tmp_path, refused):
    assert reason in refused(_write(tmp_path / "model.pth", {"w": tensor}, form))


@pytest.mark.parametrize("name", ["system", "popen"])
def test_nothing_is_executed(name, form, tmp_path, refused):
    marker = tmp_path / "marker"
    evil = Call("os", name, (f"touch {marker}",))
    tensor = _tensor(_float_storage("0", 2), 0, (2,), (1,))
    for value in (evil, {"w": evil}, {"model": {"w": Call("torch._utils", "_rebuild_parameter", (evil,))}}):
        refused(_write(tmp_path / "evil.pth", value, form))
    for value in ({"state_dict": {"w": tensor}, "epoch": evil}, {"w": tensor, "v": evil}):
        assert list(read_arrays(_write(tmp_path / "evil.pth", value, form))) == ["w"]
    assert not marker.exists()


def test_storages_that_are_no_members(tmp_path, refused):
    path = tmp_path / "model.pth"
    storage = _float_storage("../../etc/passwd", 2)
    with zipfile.ZipFile(path, "w") as archive:
        data = b"\x80\x02" + _assemble({"w": _tensor(storage, 0, (2,), (1,))}, "zip") + b"."
        archive.writestr("archive/data.pkl", data)
    assert "no member" in refused(path)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.peer
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_that_pytorch_saves(zipped, protocol, torch, tmp_path):
    base = torch.arange(24.0).reshape(4, 6) - 3
    names = (
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
        "complex128",
        "bool",
        "uint8",
        "uint16",
        "uint32",
    )
    tensors = {name: base.to(getattr(torch, name)) for name in (*names, "int8", "int16", "int32", "int64")}
    tensors |= {"transposed": base.T, "window": base[1:3, 2:5], "none": base[:0], "zero_rank": torch.tensor(2.5)}
    tensors |= {"parameter": torch.nn.Parameter(base), "buffer": torch.nn.Buffer(base)}
    path = tmp_path / "model.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    read = read_arrays(path)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        np.testing.assert_array_equal(read[name], array)
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)


@pytest.mark.peer
@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoints_and_whole_modules(zipped, torch, tmp_path):
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.Conv2d(4, 2, 1))]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checkpoint = {
        "best": torch.tensor(0.7),
        "optimizer": optimizer.state_dict(),
        "model_state": model.state_dict(),
        "step": functools.partial(torch.add, 1),
    }
    for value in (checkpoint, model, {"model": model}, model.state_dict()):
        torch.save(value, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
        read = read_arrays(tmp_path / "model.pth")
        assert list(read) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(read[name], array)
