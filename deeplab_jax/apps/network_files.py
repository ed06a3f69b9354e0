"""Reads and writes whole networks: workdirs, files of this project, and files with another system's names."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from deeplab_jax.apps.assembly import records
from deeplab_jax.apps.assembly.model_card import MARK, NO_LICENSE, model_card
from deeplab_jax.apps.assembly.network_metadata import KEY, OWN_LAYOUT, write_description
from deeplab_jax.apps.assembly.peer_network import find_peer, is_same, peer_arrays
from deeplab_jax.apps.assembly.published_weights import local_path
from deeplab_jax.apps.assembly.weights_file import fitting_layouts
from deeplab_jax.apps.import_weights import WEIGHTS_FILE, ReadOptions, read_weights
from deeplab_jax.config import ModelConfig
from deeplab_jax.files import whole, write_errors
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.train.checkpoint import find_checkpoint
from deeplab_jax.types import DatasetInfo, UserError
from deeplab_jax.weights.formats import safetensors_file
from deeplab_jax.weights.formats.read import FORMATS, read_arrays
from deeplab_jax.weights.source_settings import NOTHING_STATED, SourceSettings

SUFFIX = ".safetensors"
_LICENSE = re.compile(r"[A-Za-z0-9.+-]{1,60}")


class Network(NamedTuple):
    """A network with its weights and classes.

    Attributes:
      config: argument of `build_model`.
      info: its classes and images.
      variables: {'params', 'batch_stats'}, float32.
      notes: one line for each assumption about something that its file does not say.
      scores: content of scores.json; None: unknown.
      license_id: of the weights, as hubs spell it ('apache-2.0').
      inference: how images go through it.
    """

    config: ModelConfig
    info: DatasetInfo
    variables: dict[str, Any]
    notes: tuple[str, ...] = ()
    scores: Mapping[str, Any] | None = None
    license_id: str = NO_LICENSE
    inference: InferenceConfig = InferenceConfig()


def read_network(
    source: str, *, layout: str = "", part: str = "", strict: bool = False, chosen: SourceSettings = NOTHING_STATED
) -> Network:
    """The network in a file or folder, on the host.

    Args:
      source: a workdir, of which the best checkpoint is read; a result of `write_network`; a weights file in any
        format of weights/formats, or a folder of one; or a name, as `local_path` takes it.
      layout, part, strict, chosen: how to read a file of another system; see ReadOptions.

    Raises:
      UserError: if there is no such file, it is damaged, has another layout, or holds only a backbone.
    """
    path = pathlib.Path(local_path(source)).expanduser()
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():  # of a TensorFlow checkpoint
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=3)
        hint = f"did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else "name a file"
        raise UserError(f"{path}: no such file or folder; {hint}")
    found = read_weights(str(path), ReadOptions(layout, part, strict, chosen))
    scores = read_scores(path) if not found.notes else None
    return Network(found.config, found.info, found.variables, found.notes, scores, inference=found.inference)


def write_network(path: str | pathlib.Path, network: Network, *, layout: str = "") -> list[pathlib.Path]:
    """Writes a network so that it can be read back bit for bit, which is verified before the file is kept.

    Args:
      path: of a file that ends in '.safetensors'; otherwise of a folder, which gets 'model.safetensors' and a model
        card.
      layout: of the array names, one with a `peer`: the file is then the peer's state dict; '': our own names.

    Returns:
      The files that were written.

    Raises:
      UserError: if the layout's system has no such network, or the path cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    if not _LICENSE.fullmatch(network.license_id):
        raise UserError(f"license {network.license_id!r}: must be an identifier as hubs have it, e.g. apache-2.0")
    is_file = path.suffix == SUFFIX
    if not is_file and path.suffix in {suffix for known in FORMATS for suffix in known.suffixes}:
        raise UserError(f"{path}: networks are written as {SUFFIX} files; call it {path.with_suffix(SUFFIX).name}")
    file, card = (path, None) if is_file else (path / WEIGHTS_FILE, path / "README.md")
    if card is not None and card.exists() and MARK not in card.read_text(errors="replace"):
        raise UserError(f"{card}: is no model card of this project's, and would be lost; choose another folder")
    config = dataclasses.replace(network.config, num_classes=network.info.num_classes, task=network.info.task)
    peer = None if layout in ("", OWN_LAYOUT) else find_peer(config, network.info.channels, layout)
    flat = _flatten(network.variables)
    _check_finite(flat, path)
    arrays = flat if peer is None else peer_arrays(flat, peer)
    metadata = {} if peer is None else {"format": "pt"}
    if peer is None or "head" in peer.layout.model:
        metadata[KEY] = write_description(config, network.info, layout or OWN_LAYOUT, network.inference)
    with write_errors(file, "path"), whole(file) as unfinished:
        safetensors_file.write(unfinished, arrays, metadata)
        found = read_arrays(unfinished)
        if not (_equal(found, flat) if peer is None else is_same(found, flat, peer)):
            raise UserError(f"{file}: what was written is not what is read; the disk may be damaged")
    if card is None:
        return [file]
    known_as = fitting_layouts({name: array.shape for name, array in arrays.items()})[0]
    text = model_card(
        config,
        network.info,
        network.scores,
        folder=path.name,
        layout=known_as,
        peer=peer,
        license_id=network.license_id,
    )
    with write_errors(card, "path"), whole(card) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return [file, card]


def _check_finite(flat: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    for name, array in flat.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: '{name}' holds values that are not finite; take an earlier checkpoint")


def _equal(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def _flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our path -> array, float32."""
    wanted = {name: variables[name] for name in ("params", "batch_stats") if variables.get(name)}
    return {name: np.asarray(leaf, np.float32) for name, leaf in traverse_util.flatten_dict(wanted, sep="/").items()}


def read_scores(workdir: pathlib.Path, checkpoint: str = "") -> Mapping[str, Any] | None:
    """The content of a workdir's scores.json; None if there is none, or it is of another checkpoint.

    Args:
      checkpoint: whose scores are wanted; '': the best one's.

    Raises:
      UserError: if it cannot be read.
    """
    scores = records.read_object(workdir / "scores.json")
    if scores is None:
        return None
    if "checkpoint" not in scores:  # written before it was named: then it was the best, unless chosen by hand
        return None if checkpoint else scores
    wanted = find_checkpoint(pathlib.Path(checkpoint) if checkpoint else workdir)
    return scores if (workdir / str(scores["checkpoint"])).resolve() == wanted.resolve() else None
