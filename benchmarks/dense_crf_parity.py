"""How close the CRF is to pydensecrf and to sums over all pairs of pixels; writes two tables of docs/crf.md.

    python benchmarks/dense_crf_parity.py [--photos=FOLDER] [--dry]

The photos and their unary terms are those of the published 257-pixel network (FOLDER/inputs/NAME.png and its logits in
FOLDER/outputs/NAME.npz), which are not in the repository; both are enlarged to the sizes below. 21 classes, 10
iterations. Needs pydensecrf2, which the project itself does not. A few minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import crf_page
import jax
import numpy as np
from dense_crf_cases import NUM_ITERATIONS, run_peer, versions
from PIL import Image

from benchmarks.tables import REPOSITORY
from deeplab_jax.ops.crf.mean_field import mean_field
from deeplab_jax.ops.crf.parameters import CRFParams, crf_preset, unary_from_probabilities
from deeplab_jax.ops.resize import resize_bilinear

PHOTOS = REPOSITORY.parent / "shared" / "weights" / "golden_257"
SETS = {
    "v2_vgg16, symmetric": dataclasses.replace(crf_preset("v2_vgg16").params, normalization="symmetric"),
    "v2_resnet101": crf_preset("v2_resnet101").params,
    "pydensecrf_readme": crf_preset("pydensecrf_readme").params,
    "crf_as_rnn": crf_preset("crf_as_rnn").params,
}
SIZES = {"host": (375, 500), "program": (257, 257)}
SMALL = (96, 128)  # where all pairs can be summed

_CAPACITY = 6 * (SIZES["program"][0] * SIZES["program"][1] + 1)  # enough for any photo
_in_program = jax.jit(
    functools.partial(mean_field, num_iterations=NUM_ITERATIONS, filtering="program", max_vertices=_CAPACITY)
)
_exactly = jax.jit(functools.partial(mean_field, num_iterations=NUM_ITERATIONS, filtering="exact"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=pathlib.Path, default=PHOTOS)
    arguments.add_argument("--dry", action="store_true", help="print the tables, write nothing")
    options = arguments.parse_args()
    names = sorted(path.stem for path in (options.photos / "inputs").glob("*.png"))
    photos = {
        size: [_photo(options.photos, name, size) for name in names] for size in (*SIZES.values(), SMALL)
    }  # (image, unary) each
    peer = {name: dict(_beside_peer(params, photos)) for name, params in SETS.items()}
    exact = {name: _beside_all_pairs(params, photos[SMALL][::2]) for name, params in SETS.items()}
    for name, results, lines in (
        ("dense_crf_parity", peer, _peer_table(peer, len(names))),
        ("dense_crf_exact", exact, _exact_table(exact)),
    ):
        if options.dry:
            print("\n".join(lines))
        else:
            crf_page.publish(name, {"rows": results, "versions": versions()}, lines)


def _photo(folder: pathlib.Path, name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A photo and log-probabilities, both resized."""
    image = Image.open(folder / "inputs" / f"{name}.png").convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    with np.load(folder / "outputs" / f"{name}.npz") as arrays:
        logits = arrays["logits_os8"]
    probabilities = jax.nn.softmax(resize_bilinear(logits[None], size, align_corners=True)[0])
    return np.asarray(image), np.asarray(unary_from_probabilities(probabilities))


def _beside_peer(params: CRFParams, photos: dict) -> Iterator[tuple[str, dict]]:
    """The worst photo's figures for lattices of the host and of the program."""
    for filtering, size in SIZES.items():
        differences, equal = [], []
        for image, unary in photos[size]:
            got = (
                mean_field(unary, image, params, num_iterations=NUM_ITERATIONS, filtering="host")
                if filtering == "host"
                else _in_program(unary, image, params)
            )
            want = run_peer(unary, image, params)[0]
            differences.append(float(np.abs(got - want).max()))
            equal.append(float((np.argmax(got, -1) == want.argmax(-1)).mean()))
        yield filtering, {"size": size, "largest difference": max(differences), "labels equal": min(equal)}


def _beside_all_pairs(params: CRFParams, photos: list) -> dict:
    """Means over photos: what the lattice changes, and what the CRF itself does."""
    rows = []
    for image, unary in photos:
        lattice = mean_field(unary, image, params, num_iterations=NUM_ITERATIONS, filtering="host")
        exact = _exactly(unary, image, params)
        labels = [np.argmax(values, -1) for values in (lattice, exact, unary)]
        rows.append(
            (
                np.abs(lattice - exact).mean(),
                np.abs(lattice - exact).max(),
                (labels[0] == labels[1]).mean(),
                (labels[1] != labels[2]).mean(),
            )
        )
    names = ("mean difference", "largest difference", "labels equal", "labels that the CRF changes")
    return {name: float(np.mean(values)) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _peer_table(results: dict, num_photos: int) -> list[str]:
    lines = [
        f"Worst of {num_photos} photos.",
        "",
        "| parameters | lattices | size | largest difference of a marginal | labels equal |",
        "|---|---|---|---|---|",
    ]
    for name, row in results.items():
        for filtering, values in row.items():
            height, width = values["size"]
            lines.append(
                f"| {name} | {filtering} | {width}x{height} | {values['largest difference']:.0e} "
                f"| {100 * values['labels equal']:.3f} % |"
            )
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [*lines, "", f"Environment: {about}."]


def _exact_table(results: dict) -> list[str]:
    lines = [
        f"{SMALL[1]}x{SMALL[0]} pixels, means over photos.",
        "",
        "| parameters | mean difference of marginals | largest | labels equal | labels that the CRF changes |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {name} | {row['mean difference']:.4f} | {row['largest difference']:.2f} | {row['labels equal']:.2%} "
        f"| {row['labels that the CRF changes']:.2%} |"
        for name, row in results.items()
    ]


if __name__ == "__main__":
    main()
