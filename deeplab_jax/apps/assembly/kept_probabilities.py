"""A cache of a network's class probabilities: computed once, kept in a workdir, used many times."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence

import jax
import numpy as np
import tqdm
from jaxtyping import Float

from deeplab_jax.config import Config, to_dict
from deeplab_jax.files import whole, write_errors
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.types import Example, ExampleSource, Variables


@dataclasses.dataclass(frozen=True)
class KeptProbabilities:
    """Examples of a split, each with the network's probabilities."""

    source: ExampleSource
    indices: Sequence[int]  # of the examples
    paths: Sequence[pathlib.Path]  # of their probabilities

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Example, Float[np.ndarray, "h w c"]]:
        return self.source[self.indices[position]], np.load(self.paths[position]).astype(np.float32)


def digest_of_network(config: Config, variables: Variables) -> str:
    """A digest of all that the probabilities of an image depend on besides the image: weights, network, protocol."""
    digest = hashlib.blake2b(digest_size=8)
    model, inference = to_dict(config.model), to_dict(config.inference)
    del model["pretrained"]
    for name in ("crf", "batch_size", "measures", "protocol"):  # these do not affect the probabilities
        del inference[name]
    digest.update(json.dumps([model, inference], sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def open_folder(parent: pathlib.Path, name: str) -> pathlib.Path:
    """parent/name, created if necessary; other folders in `parent` are stale and removed.

    Raises:
      UserError: if it cannot be created.
    """
    with write_errors(parent):
        for other in parent.iterdir() if parent.is_dir() else ():
            if other.name != name:
                shutil.rmtree(other)
        (parent / name).mkdir(parents=True, exist_ok=True)
    return parent / name


def keep_probabilities(
    folder: pathlib.Path, predict: Predictor, source: ExampleSource, indices: Sequence[int]
) -> KeptProbabilities:
    """The probabilities of some examples, in float16; those already in the folder are not computed again.

    A file is named by the digest of image and label, so that changed examples get new files. float16 changes log p by
    0.0005, and by 0.006 at the 0.00001 to which a CRF clips p.

    Raises:
      UserError: if the folder cannot be written.
    """
    paths = []
    for index in tqdm.tqdm(indices, desc="network", unit="image", disable=None):
        example = source[index]
        digest = hashlib.blake2b(str(example.image.shape).encode(), digest_size=12)
        digest.update(example.image.tobytes())
        digest.update(example.label.tobytes())
        path = folder / f"{digest.hexdigest()}.npy"
        if not path.exists():
            probabilities = predict(example.image).astype(np.float16)
            with write_errors(path), whole(path) as unfinished:
                np.save(unfinished, probabilities)
        paths.append(path)
    return KeptProbabilities(source, indices, paths)
