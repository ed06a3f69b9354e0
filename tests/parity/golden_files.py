"""Files of what a peer gave: its names and shapes, its version, and some of its outputs' values for each image size."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np
from drawn_arrays import sample_ids

FOLDER = pathlib.Path(__file__).resolve().parent / "golden"
NUM_SAMPLES = 1500


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Some values of an output map.

    Attributes:
      shape: of the whole map.
      std: over the whole map.
      values: those that `sample_ids` names.
    """

    shape: tuple[int, ...]
    std: float
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Golden:
    """One golden file.

    Attributes:
      layout: whose names these are here.
      what: the network, in words.
      versions: of the peer and of torch.
      shapes: name in the system's file -> shape.
      outputs: (height, width) of the images -> the peer's output.
    """

    layout: str
    what: str
    versions: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    outputs: Mapping[tuple[int, int], Sampled]


def golden_names() -> list[str]:
    """Of all golden files."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def sample(name: str, size: tuple[int, int], output: np.ndarray) -> Sampled:
    """What a golden file keeps of an output map."""
    ids = sample_ids(name, size, output.size, NUM_SAMPLES)
    return Sampled(output.shape, float(output.std()), output.reshape(-1)[ids])


def error(output: np.ndarray, golden: Sampled, name: str, size: tuple[int, int]) -> float:
    """The largest difference of the sampled values, over the golden map's spread."""
    assert output.shape == golden.shape
    return float(np.abs(sample(name, size, output).values - golden.values).max() / golden.std)


def write(name: str, golden: Golden) -> pathlib.Path:
    """Writes golden/NAME.npz."""
    about = dataclasses.asdict(golden) | {
        "outputs": [[size, output.shape, output.std] for size, output in golden.outputs.items()]
    }
    values = {"x".join(map(str, size)): output.values for size, output in golden.outputs.items()}
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, about=np.array(json.dumps(about)), **values)
    return path


def read(name: str) -> Golden:
    """Reads golden/NAME.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        about = json.loads(str(file["about"]))
        outputs = {
            tuple(size): Sampled(tuple(shape), std, file["x".join(map(str, size))])
            for size, shape, std in about["outputs"]
        }
    shapes = {key: tuple(shape) for key, shape in about["shapes"].items()}
    return Golden(**about | {"shapes": shapes, "outputs": outputs})
