"""Mutates small made files and feeds them to the readers: nothing but an answer or one line may come of it.

    python benchmarks/fuzz.py [--minutes=1] [--only=weights,images,workdir,config,http] [--seed=0] [--keep=FOLDER]

Each kind runs in a process of its own with 3 GiB of address space, which a watch restarts when it dies or hangs. Inputs
that end in a traceback, a crash, a hang or high memory are kept in the folder. The exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import multiprocessing
import pathlib
import pickle
import resource
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator

import h5py
import numpy as np
import uvicorn
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.apps.assembly import records, trained, workdir
from deeplab_jax.config import Config, to_dict
from deeplab_jax.data.sources.images import decode_image
from deeplab_jax.data.sources.mask_files import decode_mask
from deeplab_jax.serving.connections import uvicorn_config
from deeplab_jax.serving.guard import HOST
from deeplab_jax.serving.service import Service
from deeplab_jax.serving.settings import ServeConfig
from deeplab_jax.serving.web import make_app
from deeplab_jax.types import DatasetInfo, UserError
from deeplab_jax.validation import validate
from deeplab_jax.weights.formats import keras_h5, safetensors_file
from deeplab_jax.weights.formats.read import read_arrays

ADDRESS_SPACE, MAX_GROWTH = 3 << 30, 1 << 30  # bytes
MAX_SECONDS = 5.0
ODD_BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
ODD_VALUES = (None, True, -1, 0, 1.5, 1e308, float("nan"), 2**70, "", "x" * 5000, "\ud800", [], [[]], {}, {"a": 1})
INPUT = "input"
# A tensor "w" of two floats, as TensorFlow Lite stores it.
TFLITE = bytes.fromhex(
    "1800000054464c330e001000040000000c0000000800000010000000030000000800000034000000020000000c00000014000000"
    "040004000400000006000800040000000800000004000000080000000000803f0000803f010000000c0000000600080004000000"
    "080000000400000001000000100000000c0010000400000008000c000c0000000c000000010000000c0000000100000002000000"
    "0100000077000000"
)
# A dictionary of one tensor of 2 x 3 floats, as torch.save writes it.
TORCH_PICKLE = (
    b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
    b"X\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs."
)


def weight_seeds(folder: pathlib.Path) -> Iterator[bytes]:
    arrays = {"conv/weight": np.ones((2, 3, 1, 1), np.float32), "conv/bias": np.zeros(2, np.float16)}
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    safetensors_file.write(folder / "a.safetensors", arrays, {"format": "pt"})
    (folder / "a.pkl").write_bytes(pickle.dumps({"model": arrays}))
    with zipfile.ZipFile(folder / "a.pth", "w") as archive:
        for name, data in (("data.pkl", TORCH_PICKLE), ("byteorder", b"little"), ("data/0", bytes(24))):
            archive.writestr(f"archive/{name}", data)
    (folder / "a.tflite").write_bytes(TFLITE)
    with h5py.File(folder / "a.h5", "w") as file:
        file["conv/conv/kernel:0"] = arrays["conv/weight"]
    yield from (path.read_bytes() for path in sorted(folder.iterdir()))


def image_seeds(folder: pathlib.Path) -> Iterator[bytes]:
    values = np.random.default_rng(0).integers(0, 255, (17, 23, 3), dtype=np.uint8)
    for mode in ("RGB", "L", "P", "1", "I;16"):
        picture = Image.fromarray(values[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(values)
        picture = picture if mode == "I;16" else picture.convert(mode)
        for kind, options in (
            ("PNG", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"compression": "tiff_adobe_deflate"}),
            ("TIFF", {}),
            ("BMP", {}),
            ("GIF", {}),
            ("JPEG", {}),
            ("WEBP", {}),
            ("PPM", {}),
            ("JPEG2000", {}),
        ):
            stream = io.BytesIO()
            try:
                picture.save(stream, kind, **options)
            except (OSError, KeyError):  # the format has no such mode
                continue
            yield stream.getvalue()


def workdir_seeds(folder: pathlib.Path) -> Iterator[bytes]:
    scores = {"mean_iou": 0.5, "iou_per_class": {"a": 0.5}, "protocol": {}, "confusion": [[3]]}
    yield json.dumps(scores).encode()
    yield json.dumps([{"name": "cat", "mean_iou": 0.5}]).encode()
    yield b'{"step": 1, "loss": 0.5}\n{"step": 2, "evaluation": {"mean_iou": 0.1}}\n'
    info = {"name": "a", "num_classes": 1, "ignore_label": 255, "class_names": ["a"], "palette": [[0, 0, 0]]}
    yield json.dumps({**info, "splits": {"train": 1}}).encode()


def config_seeds(folder: pathlib.Path) -> Iterator[bytes]:
    yield json.dumps(to_dict(Config())).encode()


def http_seeds(folder: pathlib.Path) -> Iterator[bytes]:
    picture = next(image_seeds(folder))
    head = f"Host: {HOST}\r\nConnection: close\r\n"
    for path in ("/", "/api/model", "/api/segment"):
        yield f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
    post = f"POST /api/segment HTTP/1.1\r\n{head}Origin: http://{HOST}\r\n"
    yield f"{post}Content-Length: {len(picture)}\r\n\r\n".encode() + picture
    chunk = f"{post}Transfer-Encoding: chunked\r\n\r\n{len(picture):x}\r\n".encode()
    yield chunk + picture + b"\r\n0\r\n\r\n"


def read_weights(path: pathlib.Path) -> None:
    read_arrays(path)


def read_image(path: pathlib.Path) -> None:
    data = path.read_bytes()
    for decode in (decode_image, decode_mask):
        try:
            decode(data, path.name)
        except UserError:
            continue


def read_workdir(path: pathlib.Path) -> None:
    for read in (records.read_scores, records.read_images, records.read_metrics, workdir.read_info):
        try:
            read(path)
        except UserError:
            continue


def read_config(path: pathlib.Path) -> None:
    shutil.copy(path, path.with_name(workdir.CONFIG_FILE))
    if config := trained.read_config(path.parent):
        validate(config)


def read_http(path: pathlib.Path) -> None:
    """Sends the bytes to a server with a toy network; raises AssertionError where it answers with a failure."""
    with socket.create_connection((HOST, _port()), timeout=MAX_SECONDS) as connection:
        try:
            connection.sendall(path.read_bytes())
            answer = connection.recv(1 << 12)
        except ConnectionError:  # closed before all was sent
            return
    assert not answer.startswith(b"HTTP/1.1 500"), answer


@functools.cache
def _port() -> int:
    """The port of a server in a thread of this process."""

    def segment(image: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: (image[..., 0] // 128).astype(np.uint8)

    info = DatasetInfo("toy", 2, 255, ("a", "b"), ((0, 0, 0), (9, 9, 9)), {"val": 1})
    limits = ServeConfig(max_rate=1_000_000, upload_seconds=0.2, header_seconds=0.2)
    app = make_app(Service(lambda: segment, lambda size: size, info, limits), {})
    server = uvicorn.Server(uvicorn_config(app, limits, host=HOST, port=0, log_level="critical"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return int(server.servers[0].sockets[0].getsockname()[1])


KINDS: dict[str, tuple[Callable[[pathlib.Path], Iterator[bytes]], Callable[[pathlib.Path], None]]] = {
    "weights": (weight_seeds, read_weights),
    "images": (image_seeds, read_image),
    "workdir": (workdir_seeds, read_workdir),
    "config": (config_seeds, read_config),
    "http": (http_seeds, read_http),
}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a few changes: bytes, integers, pieces cut out, doubled, moved or put in; or a value of JSON."""
    if data[:1] in (b"{", b"[") and b"\n" not in data and rng.random() < 0.8:
        return change_value(data, rng)
    octets = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not octets:
            break
        start = int(rng.integers(len(octets)))
        stop = min(len(octets), start + int(2 ** rng.uniform(0, 8)))
        match rng.integers(6):
            case 0:
                octets[start] = int(rng.choice(ODD_BYTES))
            case 1:
                octets[start] ^= 1 << int(rng.integers(8))
            case 2:
                size = int(rng.choice([2, 4, 8]))
                octets[start : start + size] = int(2 ** rng.uniform(0, 8 * size - 1)).to_bytes(size, "little")
            case 3:
                del octets[start:stop]
            case 4:
                octets[start:start] = octets[start:stop]
            case _:
                octets = octets[:stop] if rng.random() < 0.2 else octets + octets[start:stop]
    return bytes(octets)


def change_value(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with an odd value in the place of one of its own."""
    tree = node = json.loads(data)
    while True:
        key = list(node)[rng.integers(len(node))] if isinstance(node, dict) else int(rng.integers(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.1:
            node[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
            return json.dumps(tree).encode()
        node = node[key]


def attempt(read: Callable[[pathlib.Path], None], path: pathlib.Path) -> str:
    """What went wrong in reading a file; '' if nothing did."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, reason = time.thread_time(), ""
    try:
        read(path)
    except UserError as error:
        reason = "" if "\n" not in str(error) else "several lines"
    except Exception as error:
        reason = f"traceback {type(error).__name__} at {traceback.extract_tb(error.__traceback__)[-1].name}"
    if time.thread_time() - start > MAX_SECONDS:
        reason = reason or "hang"
    if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MAX_GROWTH:
        reason = reason or "memory"
    return reason


def work(kind: str, folder: pathlib.Path, seed: int, outcomes: multiprocessing.SimpleQueue) -> None:
    """Reads mutated inputs until it is ended; the current one lies in the folder."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    seeds, read = KINDS[kind]
    made = folder / "seeds"
    made.mkdir(exist_ok=True)
    corpus, rng = list(seeds(made)), np.random.default_rng(seed)
    keras_h5._convert_apart = keras_h5._convert  # this process may die in its place
    while True:
        path = folder / INPUT
        path.write_bytes(mutate(corpus[rng.integers(len(corpus))], rng))
        reason = attempt(read, path)
        if reason:
            shutil.copy(path, folder / f"found-{time.monotonic_ns()}")
        outcomes.put(reason)


def watch(kind: str, seconds: float, seed: int, keep: pathlib.Path) -> Counter[str]:
    """How often each outcome came; '' is as it should be."""
    found: Counter[str] = Counter()
    end, context = time.monotonic() + seconds, multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        outcomes, folder = context.SimpleQueue(), keep / kind
        folder.mkdir(parents=True, exist_ok=True)
        child = context.Process(target=work, args=(kind, folder, seed + sum(found.values()), outcomes), daemon=True)
        child.start()
        last = time.monotonic() + 60  # imports
        while child.is_alive() and time.monotonic() < min(end, last + 6 * MAX_SECONDS):
            if outcomes.empty():
                time.sleep(0.02)
                continue
            found[outcomes.get()] += 1
            last = time.monotonic()
        if time.monotonic() < end:
            reason = "hang" if child.is_alive() else f"ended with status {child.exitcode}"
            found[reason] += 1
            shutil.copy(folder / INPUT, folder / f"found-{time.monotonic_ns()}")
        child.kill()
        child.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default="")
    options = parser.parse_args()
    kinds = options.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--only={options.only}: {', '.join(unknown)} is none of {', '.join(KINDS)}")
    keep = pathlib.Path(options.keep or tempfile.mkdtemp(prefix="fuzz-"))
    print("| kind | inputs | findings |\n| --- | --- | --- |")
    bad = 0
    for kind in kinds:
        found = watch(kind, 60 * options.minutes / len(kinds), options.seed, keep)
        total, good = sum(found.values()), found.pop("", 0)
        bad += total - good
        listed = "; ".join(f"{count} x {reason}" for reason, count in found.most_common())
        print(f"| {kind} | {total:,} | {listed or 'none'} |", flush=True)
    print(f"inputs of findings: {keep}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
