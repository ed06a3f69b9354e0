"""Imported networks give the outputs that their systems gave for the same weights: no system needs to be here."""

from __future__ import annotations

import json

import golden_files
import pytest
from both_sides import drawn_arrays, our_output
from drawn_arrays import drawn_images
from parity_cases import CASES

# Float32, summed in another order through up to 150 layers; measured 2e-6 to 5e-5 (docs/parity.md).
TOLERANCE = 1e-4
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] if case.slow else []) for name, case in CASES.items()]


@pytest.mark.parametrize("name", PARAMS)
def test_outputs_are_the_peers(name, tmp_path):
    """By way of a file, whose layout is recognised."""
    case, golden = CASES[name], golden_files.read(name)
    output = our_output(case, drawn_arrays(case, golden.shapes), tmp_path, layout="")
    for size in case.sizes:
        assert golden_files.error(output(drawn_images(name, size)), golden.outputs[size], name, size) < TOLERANCE


def test_every_case_has_its_file():
    assert set(CASES) <= set(golden_files.golden_names()), "run python tests/parity/make_golden.py"


@pytest.mark.parametrize("name", golden_files.golden_names())
def test_files_are_small_and_say_what_they_are_of(name):
    path, golden = golden_files.FOLDER / f"{name}.npz", golden_files.read(name)
    assert path.stat().st_size < 40_000
    assert golden.versions
    assert json.dumps(golden.layout)
    if name in CASES:
        assert {CASES[name].package, "torch"} == set(golden.versions)
        assert set(golden.outputs) == set(CASES[name].sizes)
