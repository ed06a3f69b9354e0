"""Runs one case on both sides: the peer with drawn weights, and the network that import makes of the same weights."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from drawn_arrays import drawn_weight
from flax import linen as nn
from parity_cases import Case, Peer
from torch_peers import import_peer, to_torch

from deeplab_jax import registry
from deeplab_jax.apps.import_weights import import_checkpoint, model_config, pretrained_variables
from deeplab_jax.config import ModelConfig, PretrainedConfig
from deeplab_jax.models.build import build_model
from deeplab_jax.types import ArrayShapes, WeightLayout

Output = Callable[[np.ndarray], np.ndarray]  # uint8 images [1, h, w, 3] -> float32 map [1, h2, w2, c]

# Compiles in half the time, to the same sums.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# What a backbone without a head of its own is built with; nothing of it is compared.
_ANY_HEAD = {"name": "aspp.aspp", "args": {"atrous_rates": (), "aspp_channels": 8}}


def recognized(layout: str, shapes: ArrayShapes) -> WeightLayout:
    """The named layout's answer to these names; ValueError where they are not its own."""
    return registry.resolve("weights.layouts", f"{layout}.recognize")(shapes)


def peer_shapes(peer: Peer) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the peer's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in peer.module.state_dict().items()}


def drawn_arrays(case: Case, shapes: ArrayShapes) -> dict[str, np.ndarray]:
    """The weights of a case."""
    return {
        name: drawn_weight(name, tuple(shape), case.damped, case.gain)
        for name, shape in shapes.items()
        if not (case.left_out and re.fullmatch(case.left_out, name))
    }


def peer_output(case: Case, peer: Peer, arrays: Mapping[str, np.ndarray]) -> Output:
    """The peer with these weights, as a function of images."""
    torch = import_peer("torch")
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    peer.module.load_state_dict(state, strict=not case.left_out)
    peer.module.eval().requires_grad_(False)
    mean, std = (np.float32(values) for values in case.normalization)

    def output(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            y = peer.forward(to_torch((images.astype(np.float32) / 255 - mean) / std))
        return y.numpy().transpose(0, 2, 3, 1)

    return output


def our_output(case: Case, arrays: Mapping[str, np.ndarray], folder: pathlib.Path, layout: str) -> Output:
    """What a user gets who writes these weights to a file and imports it.

    Args:
      case: the network.
      arrays: its weights, by the system's names.
      folder: for the file.
      layout: as given to the import; '' to have it recognised.
    """
    path = folder / "weights.npz"
    np.savez(path, **arrays)
    if case.output != "features":
        config, variables = import_checkpoint(str(path), layout=layout)
        return model_output(case.output, build_model(config), variables)
    fields = recognized(layout or case.layout, {name: array.shape for name, array in arrays.items()}).model
    config = backbone_config(fields, PretrainedConfig(source=str(path), layout=layout))
    model = build_model(config)
    variables, report, _ = pretrained_variables(config, empty_variables(model))
    assert report.is_complete, str(report)
    return model_output(case.output, model, variables)


def backbone_config(fields: Mapping[str, Any], pretrained: PretrainedConfig) -> ModelConfig:
    """A network around the backbone that a file without a head is for."""
    config = model_config({**fields, "head": _ANY_HEAD, "num_classes": 2, "output_stride": 32})
    return dataclasses.replace(config, pretrained=pretrained)


def empty_variables(model: nn.Module, dtype: Any = np.float32) -> dict[str, Any]:
    """Zeros in the shapes of the network's variables."""
    images = jnp.zeros((1, 65, 65, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return {"batch_stats": {}} | jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), dict(shapes))


def model_output(output: str, model: nn.Module, variables: Mapping[str, Any]) -> Output:
    """The network as a function of images; `output` as in Case."""

    def forward(network: Any, images: jax.Array) -> jax.Array:
        if output == "logits":
            return network(images)
        if output == "scores":
            return network.scores(network.normalize(images), train=False)
        features = network.backbone(network.normalize(images), train=False)
        if output == "features":
            return features[network.backbone.feature_info[-1].name]
        size = images.shape[1], images.shape[2]
        logits = [head(features, train=False) for head in (network.head, network.auxiliary)]
        return jnp.concatenate([network.at_size(each, size, train=False) for each in logits], axis=-1)

    apply = jax.jit(lambda variables, images: model.apply(variables, images, method=forward), compiler_options=_QUICK)
    return lambda images: np.asarray(apply(variables, images))


def output_by_parts(output: str, model: nn.Module, variables: Mapping[str, Any]) -> Output:
    """As `model_output`; networks that share a backbone or a head share its program."""

    def apply(part: str, inputs: Any) -> Any:
        own = {collection: tree[part] for collection, tree in variables.items() if part in tree}
        return _apply_part(getattr(model, part), own, inputs)

    def forward(images: np.ndarray) -> np.ndarray:
        features = apply("backbone", model.normalize(jnp.asarray(images)))
        if output == "features":
            return np.asarray(features[model.backbone.feature_info[-1].name])
        parts = ("head", "auxiliary") if output == "logits_and_auxiliary" else ("head",)
        size = images.shape[1], images.shape[2]
        logits = [model.at_size(apply(part, features), size, train=False) for part in parts]
        return np.concatenate(logits, axis=-1)

    return forward


@functools.partial(jax.jit, static_argnums=0, compiler_options=_QUICK)
def _apply_part(part: nn.Module, variables: Mapping[str, Any], inputs: Any) -> Any:
    return part.apply(variables, inputs, train=False)
