"""Writes an HTML page about a run, report.html, or about two runs side by side, comparison.html."""

from __future__ import annotations

import pathlib

from deeplab_jax.apps.pages.comparison import compare
from deeplab_jax.apps.pages.run_report import report
from deeplab_jax.apps.request import Flag, Needs, Request

FLAGS = (Flag("compare", (), "two workdirs side by side, --compare DIR1 DIR2; needs neither config nor workdir", True),)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    if not request.flags["compare"]:
        report(request.config, request.workdir)
        return 0
    workdirs = [pathlib.Path(each).expanduser().absolute() for each in request.flags["compare"]]
    output = request.workdir if "workdir" in request.given else workdirs[-1]
    compare(workdirs, output, request.config.data if "config" in request.given else None)
    return 0
