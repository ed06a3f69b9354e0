"""Archives: found beside one another, unpacked whole and safely, downloaded with interruptions."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading
import zipfile

import pytest

from deeplab_jax.data.sources.archives import Archive, first_folder, locate
from deeplab_jax.types import UserError

ZIPPED = Archive("pictures.zip", wanted=r"/pictures/[^/]+\.jpg$")
TARRED = Archive("labels.tar.gz", wanted=r"/labels/")


def write_zip(path: pathlib.Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2017, 9, 1, 12, 30, 2)), content)


def write_tar(path: pathlib.Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_000_000_000
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
    write_zip(tmp_path / "root" / ZIPPED.name, {"pictures/a.jpg": b"A", "pictures/b.jpg": b"B", "README": b"no"})
    write_tar(tmp_path / "root" / TARRED.name, {"./labels/a.png": b"1", "secrets": b"no"})
    return tmp_path / "root"


def find(folders):
    found = [first_folder(folders, ["pictures"]), first_folder(folders, ["labels"])]
    return None if None in found else found


def locate_in(root: pathlib.Path | str, prepared: pathlib.Path, archives=(ZIPPED, TARRED), finder=find):
    return locate(
        str(root), str(prepared), archives=archives, find=finder, title="Toy", remedy="get toy.zip and put it there"
    )


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("given", ["", ZIPPED.name, TARRED.name])
def test_archives_in_a_folder_and_beside_one_another(root, tmp_path, given):
    pictures, labels = locate_in(root / given, tmp_path / "prepared")
    assert (names(pictures), names(labels)) == (["a.jpg", "b.jpg"], ["a.png"])
    assert names(pictures.parent) == ["pictures"]
    assert pictures.parent != labels.parent


def test_what_is_unpacked_already_is_taken(root, tmp_path):
    (root / "pictures").mkdir()
    pictures, _ = locate_in(root, tmp_path / "prepared")
    assert pictures == root / "pictures"
    (root / "labels").mkdir()
    assert locate_in(root, tmp_path / "nothing") == [root / "pictures", root / "labels"]
    assert not (tmp_path / "nothing").exists()


def test_archive_under_another_name(root, tmp_path):
    (root / ZIPPED.name).rename(root / "renamed.zip")
    (pictures,) = locate_in(root / "renamed.zip", tmp_path / "prepared", [ZIPPED], lambda folders: [folders[-1]])
    assert names(pictures / "pictures") == ["a.jpg", "b.jpg"]


def test_unpacking_anew_gives_the_same_times(root, tmp_path):
    times = {
        tuple(path.stat().st_mtime_ns for folder in locate_in(root, tmp_path / prepared) for path in folder.iterdir())
        for prepared in ("once", "twice")
    }
    assert len(times) == 1


def test_archives_within_archives(tmp_path):
    write_zip(tmp_path / "inner.zip", {"masks/a.png": b"1"})
    write_zip(tmp_path / "outer.zip", {"annotations/masks.zip": (tmp_path / "inner.zip").read_bytes()})
    outer = Archive("outer.zip", wanted=r"/annotations/masks\.zip$")
    masks = locate_in(
        tmp_path, tmp_path / "prepared", [outer], lambda folders: first_folder(folders, ["annotations/masks"])
    )
    assert names(masks) == ["a.png"]
    assert names(masks.parent) == ["masks"]


@pytest.mark.parametrize("name", ["../pictures/evil.jpg", "pictures/../../pictures/evil.jpg", "/pictures/evil.jpg"])
def test_members_never_leave_their_folder(root, tmp_path, name):
    write_zip(root / ZIPPED.name, {name: b"evil", "pictures/a.jpg": b"A"})
    pictures, _ = locate_in(root, tmp_path / "prepared")
    assert names(pictures) == ["a.jpg"]
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize("damaged", [ZIPPED.name, TARRED.name])
def test_damaged_archive_leaves_nothing_that_counts(root, tmp_path, damaged):
    whole = (root / damaged).read_bytes()
    (root / damaged).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{damaged}: cannot be unpacked \(.*\); get toy\.zip and put it there$"):
        locate_in(root, tmp_path / "prepared")
    (root / damaged).write_bytes(whole)
    assert locate_in(root, tmp_path / "prepared")


def test_folder_without_data(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^config\.data\.root='.*empty': holds no Toy data; get toy"):
        locate_in(tmp_path / "empty", tmp_path / "prepared")


def test_archives_that_their_owners_keep(tmp_path):
    with pytest.raises(
        UserError, match=r"^config\.data\.root is empty, and Toy cannot be downloaded without its owners; get toy"
    ):
        locate_in("", tmp_path / "prepared")


class Server(http.server.ThreadingHTTPServer):
    """Serves one archive; breaks off after `limit` bytes."""

    def __init__(self, content: bytes, limit: int, takes_ranges: bool):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.limit, self.takes_ranges = content, limit, takes_ranges
        self.sent: list[tuple[int, int]] = []  # (status, bytes)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"] if self.server.takes_ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        rest = self.server.content[start:]
        status = 200 if not asked else 206 if rest else 416
        self.send_response(status)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.limit])
        self.server.sent.append((status, len(rest[: self.server.limit])))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(root):
    servers = []

    def start(limit: int, takes_ranges: bool = True, **changes: str) -> tuple[Server, Archive]:
        server = Server((root / ZIPPED.name).read_bytes(), limit, takes_ranges)
        servers.append(server)
        checksum = f"sha1:{hashlib.sha1(server.content).hexdigest()}"
        url = f"http://127.0.0.1:{server.server_port}/{ZIPPED.name}"
        return server, dataclasses.replace(ZIPPED, **({"url": url, "checksum": checksum} | changes))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def first_of(folders):
    return folders[0]


def test_download_goes_on_where_it_broke_off(serve, tmp_path):
    server, archive = serve(limit=100)
    message = r"^config\.data\.root is empty and the download failed \(100 of \d+ bytes arrived; the next .*\); get toy"
    with pytest.raises(UserError, match=message):
        locate_in("", tmp_path, [archive], first_of)
    server.limit = 10_000
    folder = locate_in("", tmp_path, [archive], first_of)
    assert server.sent == [(200, 100), (206, len(server.content) - 100)]
    assert names(folder / "pictures") == ["a.jpg", "b.jpg"]
    assert not list((tmp_path / "downloads").iterdir())
    locate_in("", tmp_path, [archive], first_of)
    assert len(server.sent) == 2


def test_download_from_a_server_that_sends_the_whole(serve, tmp_path):
    server, archive = serve(limit=100, takes_ranges=False)
    with pytest.raises(UserError, match="bytes arrived"):
        locate_in("", tmp_path, [archive], first_of)
    server.limit = 10_000
    assert names(locate_in("", tmp_path, [archive], first_of)) == ["pictures"]


def test_download_that_was_complete_but_for_its_name(serve, tmp_path):
    server, archive = serve(limit=10_000)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{ZIPPED.name}.part").write_bytes(server.content)
    assert names(locate_in("", tmp_path, [archive], first_of)) == ["pictures"]
    assert server.sent == [(416, 0)]


def test_wrong_content_is_thrown_away(serve, tmp_path):
    _, archive = serve(limit=10_000, checksum="md5:00")
    with pytest.raises(UserError, match=r"pictures\.zip has the md5 \w{32} instead of 00"):
        locate_in("", tmp_path, [archive], first_of)
    assert not list((tmp_path / "downloads").iterdir())


def test_download_that_holds_something_else(serve, tmp_path):
    _, archive = serve(limit=10_000, checksum="")
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+/pictures\.zip: holds no Toy data any more; get toy"):
        locate_in("", tmp_path, [archive], lambda folders: None)
