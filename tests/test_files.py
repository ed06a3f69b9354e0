"""Files and folders that appear whole, or stay what they were."""

from __future__ import annotations

import pytest

from deeplab_jax.files import whole, write_errors, write_whole
from deeplab_jax.types import UserError


def test_a_file_appears_at_the_end_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "scores.json"
    write_whole(path, "old")
    with whole(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.name == path.name  # writers that go by the ending see the right one
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_where_the_writing_fails_the_old_file_stays(tmp_path):
    path = tmp_path / "scores.json"
    write_whole(path, "old")

    def fail():
        with whole(path) as unfinished:
            unfinished.write_text("half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_another_process_made_first_stays(tmp_path):
    path = tmp_path / "copy"
    with whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "ours").touch()
        path.mkdir()
        (path / "theirs").touch()
    assert [file.name for file in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_file_and_the_option(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "scores.json"
    with pytest.raises(UserError, match=r"cannot write .*scores\.json: Not a directory; .* another --workdir"):
        write_whole(path, "")
    with pytest.raises(UserError, match="another --output"), write_errors(path, "--output"), whole(path):
        pass
