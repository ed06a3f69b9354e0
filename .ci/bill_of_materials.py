"""Writes a bill of materials in CycloneDX form: every package of requirements.lock with its version and hashes.

    python .ci/bill_of_materials.py [LOCK] > bom.json

A package lists the hashes of all its files, of which one is installed.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from typing import Any

LOCK = pathlib.Path(__file__).resolve().parent.parent / "requirements.lock"


def bill_of_materials(lock: str) -> dict[str, Any]:
    """The bill as JSON values, from the text of a file of `pip install --require-hashes`."""
    entries = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "library", "name": "deeplab_jax"}},
        "components": [_component(entry) for entry in entries],
    }


def _component(entry: str) -> dict[str, Any]:
    name, version = entry.split()[0].split("==")
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
    url = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "purl": url,
        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
    }


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else LOCK
    print(json.dumps(bill_of_materials(path.read_text()), indent=1))
