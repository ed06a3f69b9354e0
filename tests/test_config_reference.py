"""docs/config.md is what its command makes of the settings."""

from __future__ import annotations

import pathlib
import runpy

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


def test_the_page_of_settings_is_of_this_version():
    reference = runpy.run_path(str(DOCS / "make_config_reference.py"))["reference"]
    remedy = "python docs/make_config_reference.py --output=docs/config.md"
    assert (DOCS / "config.md").read_text() == reference(), remedy
