"""Writes dense_crf_golden.npz: what pydensecrf makes of a small made-up photo, with the version that made it.

pip install pydensecrf2
python tests/ops/crf/make_dense_crf_golden.py
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

from dense_crf_peer import CASES, GOLDEN, draw_photo, run_peer


def main() -> None:
    rng = np.random.default_rng(0)
    arrays = {"version": np.array(f"pydensecrf2 {importlib.metadata.version('pydensecrf2')}")}
    for name, (size, params) in CASES.items():
        image, unary = draw_photo(rng, *size)
        arrays |= {
            f"{name}/image": image,
            f"{name}/unary": unary,
            f"{name}/marginals": run_peer(unary, image, params),
        }
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size / 1024:.0f} KB, {arrays['version']}")


if __name__ == "__main__":
    main()
