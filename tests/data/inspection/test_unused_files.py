"""What lies in a data set's folder and is not used is listed by kind and place."""

from __future__ import annotations

from deeplab_jax.data.inspection.unused_files import find_unused


def test_files_are_listed_by_folder_and_kind(tmp_path):
    for name in ("images/a.jpg", "images/b.tga", "images/c.tga", "images/old/a.jpg", "list.csv", "images/._a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(b"")
    found = find_unused(tmp_path, {tmp_path / "images" / "a.jpg"})
    assert [finding.message for finding in found] == [
        f"{tmp_path}: 1 file of a kind that is not read: list.csv",
        f"{tmp_path / 'images'}: 2 files of a kind that is not read: b.tga, c.tga",
        f"{tmp_path / 'images' / 'old'}: 1 file not read: no sample has them: a.jpg",
    ]
    assert {(finding.kind, finding.severity) for finding in found} == {("unused_files", "note")}


def test_nothing_is_listed_where_all_is_used(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert find_unused(tmp_path, {tmp_path / "a.png"}) == []
