"""Folders that were made to trip a reader: each gets one line, when it is opened, checked or read, and none hangs."""

from __future__ import annotations

import json
import os
import struct

import pytest
from made_files import CLASS_NAMES, write_folder

from deeplab_jax.data.datasets import folder
from deeplab_jax.data.inspection.linter import lint_dataset
from deeplab_jax.types import UserError


def classes(**content):
    return lambda root: write_json(root, json.dumps({"class_names": CLASS_NAMES} | content))


def text(content):
    return lambda root: write_json(root, content)


def write_json(root, content):
    (root / "classes.json").write_text(content)


def entry(line):
    return lambda root: (root / "splits" / "train.txt").write_text(f"{line}\n")


def instead(inside, make):
    def change(root):
        (root / inside).unlink()
        make(root / inside)

    return change


def link_to(target):
    return lambda path: path.symlink_to(target)


def without_rows(path):
    """A TIFF of 0 x 30 pixels."""
    tags = [(256, 30), (257, 0), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 0)]
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + listed + bytes(4))


CASES = {
    "FIFO for an image": (instead("images/a.png", os.mkfifo), "a device or a pipe"),
    "FIFO for a mask": (instead("masks/a.png", os.mkfifo), "a device or a pipe"),
    "FIFO for a list": (instead("splits/train.txt", os.mkfifo), "a device or a pipe"),
    "endless image": (instead("images/a.png", link_to("/dev/zero")), "a device or a pipe"),
    "endless list": (instead("splits/train.txt", link_to("/dev/zero")), "a device or a pipe"),
    "endless file in a list": (entry("/dev/zero /dev/zero"), "a device or a pipe"),
    "a link to itself": (instead("masks/a.png", link_to("a.png")), "does not exist"),
    "a list that links to itself": (instead("splits/train.txt", link_to("train.txt")), "Too many levels"),
    "a list that is a folder": (instead("splits/train.txt", lambda path: path.mkdir()), "Is a directory"),
    "no rows": (instead("images/a.png", without_rows), "has no pixels"),
    "a name of 5,000 letters": (entry("a" * 5000), "entry of 5,000 letters"),
    "a mask of 5,000 letters": (entry("images/a.png " + "b" * 5000), "entry of 5,000 letters"),
    "a path of 2,500 folders": (entry("a/" * 2500 + "b"), "entry of 5,001 letters"),
    "ignore_label 1.0": (classes(ignore_label=1.0), "ignore_label=1.0"),
    "ignore_label true": (classes(ignore_label=True), "ignore_label=True"),
    "palette 5": (classes(palette=5), "a colour of three numbers"),
    "channels true": (classes(channels=True), "channels=True"),
    "mask_palette []": (classes(mask_palette=[]), "mask_palette="),
    "mask_page true": (classes(mask_page=True), "mask_page=True"),
    "half a letter": (classes(class_names=["a", "\ud800", "c"]), "no valid JSON"),
    "nested": (text("[" * 100_000), "no valid JSON"),
    "a number of 5,000 digits": (text('{"ignore_label": ' + "9" * 5000 + "}"), "no valid JSON"),
}


def open_and_read(root, tmp_path):
    """All that is said; in one line each."""
    dataset = folder.open_dataset(str(root), str(tmp_path / "prepared"))
    found = lint_dataset(dataset, train_split="train", eval_split="val", num_workers=1).findings
    try:
        dataset.open_split("train")
    except UserError as error:
        return [*(each.message for each in found), str(error)]
    return [each.message for each in found]


@pytest.mark.parametrize("case", CASES)
def test_one_line(tmp_path, case):
    change, said = CASES[case]
    root = write_folder(tmp_path / "data", ["a", "b", "c"], {"train": ["a", "b"], "val": ["c"]})
    change(root)
    try:
        lines = open_and_read(root, tmp_path)
    except UserError as error:
        lines = [str(error)]
    assert any(said in line for line in lines), lines
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_links_that_lead_in_a_circle_or_out_are_not_followed(tmp_path, target):
    root = write_folder(tmp_path / "data", ["a", "b", "c"], {"train": ["a", "b"], "val": ["c"]})
    (root / "images" / "again").symlink_to(target)
    assert open_and_read(root, tmp_path) == []
