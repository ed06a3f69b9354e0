"""The pinned dependencies are those that are asked for, in a version that is allowed, with hashes."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
LOCK = (REPOSITORY / "requirements.lock").read_text()
PINNED = {
    canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.+]+)", LOCK, re.MULTILINE)
}
ASKED = [
    Requirement(line)
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("requirement", ASKED, ids=lambda requirement: requirement.name)
def test_what_is_asked_for_is_pinned(requirement):
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_version_has_hashes():
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINNED)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_bill_of_materials_lists_what_is_pinned():
    made = subprocess.run(
        [sys.executable, REPOSITORY / ".ci" / "bill_of_materials.py"], capture_output=True, text=True, check=True
    )
    bill = json.loads(made.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert {canonicalize_name(each["name"]): each["version"] for each in bill["components"]} == PINNED
    assert sum(len(each["hashes"]) for each in bill["components"]) == LOCK.count("--hash=sha256:")
