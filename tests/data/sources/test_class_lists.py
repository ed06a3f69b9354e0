"""Class names as people and annotation tools write them: learned right, or asked about."""

from __future__ import annotations

import json

import pytest

from deeplab_jax.data.sources.class_files import read_classes
from deeplab_jax.types import UserError

COLORS = ((0, 0, 0), (48, 112, 32))


@pytest.mark.parametrize(
    ("text", "names", "palette"),
    [
        ("background\ndisc\n", ("background", "disc"), None),
        ("bare ground 0 0 0\ndisc 48 112 32\n", ("bare ground", "disc"), COLORS),
        ("background,0,0,0\ndisc,48,112,32\n", ("background", "disc"), COLORS),
        ("0,0,0,background\n48,112,32,disc\n", ("background", "disc"), COLORS),
        ("0 background\n1 disc\n", ("background", "disc"), None),
        ("1: disc\n0: background\n", ("background", "disc"), None),
        ("0,background,0,0,0\n1,disc,48,112,32\n", ("background", "disc"), COLORS),
        ("disc;1\nbackground;0\n", ("background", "disc"), None),
        ("layer 1\nlayer 2\n", ("layer 1", "layer 2"), None),
        ("car\n2 wheeler\n", ("car", "2 wheeler"), None),
        ("__ignore__\n_background_\ncat\ntv/monitor\n", ("_background_", "cat", "tv/monitor"), None),
        ("# label:color_rgb:parts:actions\nbackground:0,0,0::\ndisc:48,112,32::\n", ("background", "disc"), COLORS),
        ("background:0,0,0::\ndisc:48,112,32:head,hand:run\n", ("background", "disc"), COLORS),
        ("# label:color_rgb:parts:actions\nbackground:::\ndisc:::\n", ("background", "disc"), None),
        ("name,r,g,b\nbackground,0,0,0\ndisc,48,112,32\n", ("background", "disc"), COLORS),
        ("Pixel Value, Class\n0, background\n1, disc\n", ("background", "disc"), None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines(tmp_path, text, names, palette, encoding):
    (tmp_path / "classes.txt").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    classes = read_classes(tmp_path)
    assert classes.names == names
    assert classes.has_palette == (palette is not None)
    assert classes.ignore_label == 255
    if palette:
        assert classes.palette == palette


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "# my classes\nbackground\ndisc\n",
            "its line '# my classes' looks like a comment or markup, not like a class",
        ),
        ("class\nbackground\ndisc\n", "its line 'class' looks like a heading, not like a class; take the line out"),
        ("Class names:\nbackground\n", "its line 'Class names:' looks like a heading"),
        ("id name\n0 background\n", "its line 'id name' looks like a heading"),
        ("names:\n", "its line 'names:' looks like a heading"),
        ("<xml>\n", "looks like a comment or markup"),
        ("background\n__ignore__\n", "looks like labelme's mark for ignored pixels, which belongs in the first line"),
        ("1 disc\n2 ring\n", "numbers its classes 1, 2; ids are counted from 0 without gaps: write a name for each"),
        ("background 0 0 0\ndisc\n", "must give all 2 classes a colour of three numbers from 0 to 255, or none"),
        ("a\na\n", "names the class 'a' more than once"),
    ],
)
def test_what_looks_like_no_class_is_asked_about(tmp_path, text, problem):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        read_classes(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/classes.txt: ")
    assert problem in str(caught.value)


def test_a_binary_file_is_no_list(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"background\nd\xe9sc\n")
    with pytest.raises(UserError, match=r"classes\.txt: is not UTF-8 text; save it as UTF-8, one class name per line"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        ["background", "disc"],
        {"0": "background", "1": "disc"},
        {"class_names": {"1": "disc", "0": "background"}},
        {"background": 0, "disc": 1},
        {"background": [0, 0, 0], "disc": [48, 112, 32]},
        {"id2label": {"0": "background", "1": "disc"}},
        {"classes": [{"title": "background", "color": "#000000"}, {"title": "disc", "color": "#307020"}]},
        {"categories": [{"id": 1, "name": "disc", "supercategory": "shape"}]},
        {"categories": [{"id": 1, "name": "disc"}, {"id": 0, "name": "background"}]},
    ],
)
def test_json(tmp_path, content):
    (tmp_path / "classes.json").write_text(json.dumps(content), encoding="utf-8-sig")
    classes = read_classes(tmp_path)
    assert classes.names == ("background", "disc")
    if classes.has_palette:
        assert classes.palette == COLORS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"categories": [{"id": 1, "name": "a"}, {"id": 5, "name": "b"}]}, "numbers its categories 1, 5, with gaps"),
        ({"1": "a", "2": "b"}, "numbers its classes 1, 2; ids must be 0 to 1 without gaps"),
        ({"title": "my data"}, 'has no list "class_names"'),
    ],
)
def test_json_that_leaves_ids_open(tmp_path, content, problem):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem):
        read_classes(tmp_path)


def test_a_tools_own_file_is_found_and_named(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, disc\n")
    assert read_classes(tmp_path).notes == ("classes are those of train/_classes.csv: background, disc",)
    (tmp_path / "labels.txt").write_text("background\nring\n")
    with pytest.raises(UserError, match=r"labels\.txt: and .*_classes\.csv name different classes; copy the right one"):
        read_classes(tmp_path)
    (tmp_path / "classes.txt").write_text("background\ndisc\n")
    assert read_classes(tmp_path).notes == ()
