"""The built-in data set: 480 + 96 scenes rendered by the project itself, so that the demo needs no download."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib

import cv2
import numpy as np

from deeplab_jax.data.dataset import Dataset, make_info
from deeplab_jax.data.sources import rendering
from deeplab_jax.data.sources.file_dataset import require_split
from deeplab_jax.data.sources.prepare import PreparedSource, Record, make_record, prepare

IMAGE_SIZE = (128, 160)
_SEED = 2018
_JPEG_QUALITY = 92

INFO = dataclasses.replace(make_info("shapes", rendering.CLASS_NAMES), splits={"train": 480, "val": 96})


def open_dataset(root: str, prepared_dir: str) -> Dataset:
    """Opens the rendered scenes, after rendering them if necessary; `root` is unused, there are no original files."""
    del root

    def open_split(split: str) -> PreparedSource:
        require_split(INFO, split)
        return prepare(
            INFO,
            split,
            num_records=INFO.splits[split],
            make_record=functools.partial(_render, split),
            fingerprint=_fingerprint(),
            prepared_dir=prepared_dir,
        )

    return Dataset(INFO, functools.cache(open_split))


def _render(split: str, index: int) -> Record:
    rng = np.random.default_rng([_SEED, list(INFO.splits).index(split), index])
    image, label = rendering.render_scene(rng, IMAGE_SIZE)
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return make_record(f"{split}_{index:03d}", jpeg, label, INFO)


def _fingerprint() -> str:
    """A fingerprint of the rendering code."""
    code = b"".join(pathlib.Path(path).read_bytes() for path in (rendering.__file__, __file__))
    return hashlib.sha256(code).hexdigest()[:16]
