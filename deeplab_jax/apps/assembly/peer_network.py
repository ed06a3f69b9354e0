"""The equivalent of a network in another system: its settings there, and its arrays under that system's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_jax import registry
from deeplab_jax.config import ModelConfig, to_dict
from deeplab_jax.models.build import hashable
from deeplab_jax.types import PeerNetwork, UserError
from deeplab_jax.weights.names import TORCH_COUNTERS
from deeplab_jax.weights.rules import load_pretrained, names_of

_LAYOUTS = "weights.layouts"
_OF_TRAINING = ("dropout", "logits_stddev")  # arguments of parts that do not affect inference
_OF_OTHER_PARTS = ("low_level_tap",)  # arguments of a backbone that only affect the head


def writable_layouts() -> tuple[str, ...]:
    """Names of the layouts that networks can be written in."""
    names = registry.module_names(_LAYOUTS)
    return tuple(name for name in names if _has_peer(name))


def find_peer(config: ModelConfig, channels: int, layout: str) -> PeerNetwork:
    """The network of the layout's system that computes the same as ours with these settings.

    Args:
      config: of the network, with the number of classes set.
      channels: of the images.
      layout: one of `writable_layouts`.

    Raises:
      UserError: if there is none; names the first setting that the other system does not support.
    """
    if layout not in (writable := writable_layouts()):
        raise UserError(f"layout '{layout}': networks can be written as {', '.join(writable)}, or with our own names")
    remedy = "write it with our own names instead (no layout; --format=safetensors)"
    try:
        outputs = {"num_classes": 1} if config.task == "binary" else {}
        peer: PeerNetwork = registry.resolve(_LAYOUTS, f"{layout}.peer")({**to_dict(config), **outputs}, channels)
    except ValueError as error:
        raise UserError(f"layout '{layout}': no network there has {error}; {remedy}") from None
    for field, ours, theirs in _differences(config, peer.layout.model):
        raise UserError(f"layout '{layout}': model.{field} is {ours!r} here and {theirs!r} there; {remedy}")
    return peer


def peer_arrays(flat: Mapping[str, np.ndarray], peer: PeerNetwork) -> dict[str, np.ndarray]:
    """The state dict of the peer.

    Args:
      flat: our path -> array; arrays of parts that the peer lacks are left out.
      peer: from `find_peer`.

    Raises:
      ValueError: if an array has no place in it.
    """
    arrays = names_of(parts_of(flat, peer), peer.layout.rules)
    if TORCH_COUNTERS in peer.layout.ignored:  # batch counters, which torch stores and none of these networks reads
        suffix = ".running_mean"
        norms = [name.removesuffix(suffix) for name in arrays if name.endswith(suffix)]
        arrays |= {f"{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    return arrays


def parts_of(flat: Mapping[str, np.ndarray], peer: PeerNetwork) -> dict[str, np.ndarray]:
    """Our arrays that the peer has a part for: only the backbone's if it has no head."""
    is_whole = "head" in peer.layout.model
    return {path: array for path, array in flat.items() if is_whole or path.split("/")[1] == "backbone"}


def is_same(arrays: Mapping[str, np.ndarray], flat: Mapping[str, np.ndarray], peer: PeerNetwork) -> bool:
    """Whether the peer's arrays, imported by its layout's rules, equal ours bit for bit."""
    wanted = parts_of(flat, peer)
    zeros = {path: np.broadcast_to(np.zeros((), array.dtype), array.shape) for path, array in wanted.items()}
    found, report = load_pretrained(arrays, peer.layout.rules, zeros, skip=peer.layout.ignored)
    return report.is_complete and all(np.array_equal(found[path], array) for path, array in wanted.items())


def _has_peer(layout: str) -> bool:
    try:
        return callable(registry.resolve(_LAYOUTS, f"{layout}.peer"))
    except ValueError:
        return False


def _differences(config: ModelConfig, model: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(setting, ours, theirs) for every setting with which the layout's `model` would compute something else."""
    free = _OF_TRAINING if "head" in model else (*_OF_TRAINING, *_OF_OTHER_PARTS)
    for kind in ("backbone", "head", "auxiliary") if "head" in model else ("backbone",):
        ours, theirs = getattr(config, kind), model.get(kind, {"name": "", "args": {}})
        if ours.name != theirs["name"]:
            yield f"{kind}.name", ours.name, theirs["name"]
        elif ours.name:
            package = "backbones" if kind == "backbone" else "heads"
            defaults = registry.defaults(registry.resolve(package, ours.name))
            for name in sorted({*ours.args, *theirs["args"]} - set(free)):
                here, there = (hashable(args.get(name, defaults.get(name))) for args in (ours.args, theirs["args"]))
                if here != there:
                    yield f"{kind}.args.{name}", here, there
    theirs = {"output_stride": config.output_stride, **model}
    for name in ("output_stride", "align_corners") if "head" in model else ():
        if getattr(config, name) != theirs[name]:
            yield name, getattr(config, name), theirs[name]
    if "head" in model and config.scales:
        yield "scales", config.scales, ()
    if "head" in model and config.crf.name:
        yield "crf.name", config.crf.name, ""
