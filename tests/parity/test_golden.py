"""Imported networks give the outputs that their systems gave for the same weights: no system needs to be here."""

from __future__ import annotations

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


def test_every_case_has_its_file_and_every_file_its_case():
    assert set(golden_files.golden_names()) == set(CASES), "run python tests/parity/make_golden.py"


@pytest.mark.parametrize("name", CASES)
def test_files_are_small_and_of_their_case(name):
    case, golden = CASES[name], golden_files.read(name)
    assert (golden_files.FOLDER / f"{name}.npz").stat().st_size < 40_000
    assert golden.layout == case.layout
    assert set(golden.versions) == {case.package, "torch"}
    assert set(golden.outputs) == set(case.sizes)
