"""A first look at mutated files and requests, of which `benchmarks/fuzz.py` tries as many as one likes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import fuzz

HDF5 = b"\x89HDF"  # each is read in a process of its own, which takes a second


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_mutated_inputs_are_read_or_refused_in_one_line(kind, tmp_path):
    seeds, read = fuzz.KINDS[kind]
    (tmp_path / "seeds").mkdir()
    corpus = [seed for seed in seeds(tmp_path / "seeds") if not seed.startswith(HDF5)]
    rng, path = np.random.default_rng(0), tmp_path / fuzz.INPUT
    for seed in corpus:
        path.write_bytes(seed)
        assert not fuzz.attempt(read, path)
    for _ in range(18):
        path.write_bytes(fuzz.mutate(corpus[rng.integers(len(corpus))], rng))
        reason = fuzz.attempt(read, path)
        assert not reason, (reason, path.read_bytes())
