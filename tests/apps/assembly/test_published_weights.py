"""Weights by name: fetched from a server of the test's own, gone on with, verified, kept; and a hub's repositories."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import io
import sys
import tarfile
import threading
import types

import pytest

from deeplab_jax.apps.assembly import published_weights
from deeplab_jax.apps.assembly.published_weights import FOLDER_VARIABLE, local_path
from deeplab_jax.types import UserError
from deeplab_jax.weights.pretrained import Published, published

CONTENT = bytes(range(256)) * 40
NAME = "torchvision:tiny"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Sends at most `limit` bytes of the rest that is asked for."""

    def do_GET(self) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append(start)
        rest = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.content, server.limit, server.asked = CONTENT, len(CONTENT), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "kept"))
    yield server
    server.shutdown()
    server.server_close()


def _publish(monkeypatch, server, **changes):
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    fields = {"url": f"http://127.0.0.1:{server.server_port}/tiny.pth", "layout": "torchvision", "megabytes": 0.01}
    entry = Published(**(fields | {"checksum": f"sha256:{digest}"} | changes))
    monkeypatch.setattr(published_weights, "published", lambda: {NAME: entry})


def test_a_file_is_fetched_once(server, monkeypatch, tmp_path):
    _publish(monkeypatch, server)
    path = local_path(NAME)
    assert path == str(tmp_path / "kept" / "tiny.pth")
    assert (tmp_path / "kept" / "tiny.pth").read_bytes() == CONTENT
    assert local_path(NAME) == path
    assert server.asked == [0]


def test_a_download_goes_on_where_it_broke_off(server, monkeypatch, tmp_path):
    _publish(monkeypatch, server)
    server.limit = 1000
    with pytest.raises(
        UserError, match=r"torchvision:tiny: cannot be fetched .*; fetch http://127\S+ elsewhere and put"
    ):
        local_path(NAME)
    server.limit = len(CONTENT)
    assert local_path(NAME) == str(tmp_path / "kept" / "tiny.pth")
    assert server.asked == [0, 1000]
    assert (tmp_path / "kept" / "tiny.pth").read_bytes() == CONTENT


def test_a_file_of_another_content_is_refused(server, monkeypatch, tmp_path):
    _publish(monkeypatch, server, checksum="sha256:00000000")
    with pytest.raises(UserError, match=r"has the sha256 [0-9a-f]+ instead of 00000000"):
        local_path(NAME)
    assert not (tmp_path / "kept" / "tiny.pth").exists()


def test_behind_a_firewall_it_says_what_to_fetch_and_where_to_put_it(server, monkeypatch, tmp_path):
    server.shutdown()
    _publish(monkeypatch, server, url="http://127.0.0.1:9/tiny.pth")
    target = tmp_path / "kept" / "tiny.pth"
    with pytest.raises(UserError) as error:
        local_path(NAME)
    assert f"fetch http://127.0.0.1:9/tiny.pth elsewhere and put it at {target}" in str(error.value)
    assert "\n" not in str(error.value)
    target.write_bytes(CONTENT)
    assert local_path(NAME) == str(target)


def test_an_archive_is_unpacked(server, monkeypatch, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("net/model.ckpt.index", "net/model.ckpt.data-00000-of-00001", "net/frozen_inference_graph.pb"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    server.content = packed.getvalue()
    server.limit = len(server.content)
    member = published()["tf_deeplab:xception65_imagenet"].member
    _publish(monkeypatch, server, url=f"http://127.0.0.1:{server.server_port}/net.tar.gz", member=member)
    folder = tmp_path / "kept" / "torchvision-tiny" / "net"
    for _ in range(2):
        assert local_path(NAME) == str(folder)
    assert {path.name for path in folder.iterdir()} == {"model.ckpt.index", "model.ckpt.data-00000-of-00001"}
    assert server.asked == [0]


def test_a_name_that_is_not_known_is_answered_with_near_ones():
    with pytest.raises(
        UserError, match="no weights of that name; did you mean 'torchvision:deeplabv3_resnet50_coco_voc'"
    ):
        local_path("torchvision:deeplabv3_resnet50_coco")
    assert local_path("C:/weights.pth") == "C:/weights.pth"


def test_every_entry_says_what_its_publisher_says():
    for name, entry in published().items():
        assert name.partition(":")[0] in ("torchvision", "tf_deeplab", "caffe", "transformers", "timm")
        assert entry.layout == name.partition(":")[0]
        assert entry.url.startswith(("https://", "http://", "hf://"))
        assert entry.checksum is None or entry.checksum.startswith("sha256:")
        assert all(0 < score < 1 for score in (entry.scores or {}).values())
        assert (entry.scores is None) or entry.protocol


def _hub(monkeypatch, files, folder):
    """A stand-in for huggingface_hub that has `files`."""
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        folder.mkdir(exist_ok=True)
        for file in files:
            if any(file.endswith(pattern.lstrip("*")) for pattern in allow_patterns):
                (folder / file).write_bytes(b"x")
        return str(folder)

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_a_repository_of_the_hub(monkeypatch, tmp_path):
    asked = _hub(monkeypatch, ["config.json", "model.safetensors", "pytorch_model.bin"], tmp_path / "snapshot")
    assert local_path("hf://owner/name@v1") == str(tmp_path / "snapshot")
    assert asked == [("owner/name", "v1")]
    assert not (tmp_path / "snapshot" / "pytorch_model.bin").exists()


def test_a_repository_without_safetensors(monkeypatch, tmp_path):
    asked = _hub(monkeypatch, ["config.json", "pytorch_model.bin"], tmp_path / "snapshot")
    local_path("hf://owner/name")
    assert asked == [("owner/name", None)] * 2
    assert (tmp_path / "snapshot" / "pytorch_model.bin").exists()


def test_what_the_hub_cannot_give_ends_in_a_line(monkeypatch):
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = lambda *_, **__: 1 / 0
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    with pytest.raises(UserError, match=r"hf://owner/name: cannot be had .*; fetch the repository elsewhere"):
        local_path("hf://owner/name")
    with pytest.raises(UserError, match="must be hf://OWNER/NAME"):
        local_path("hf://name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs the package huggingface_hub"):
        local_path("hf://owner/name")


def test_the_hub_s_own_cache_is_used_without_network(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    repository, commit = tmp_path / "models--owner--name", "0" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (snapshot / "model.safetensors").write_bytes(b"x")
    real = hub.snapshot_download
    monkeypatch.setattr(hub, "snapshot_download", lambda *args, **kw: real(*args, cache_dir=str(tmp_path), **kw))
    assert local_path("hf://owner/name") == str(snapshot)
