"""The model card (README.md) of a weights folder: its network, its scores, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import deeplab_jax
from deeplab_jax.config import ModelConfig
from deeplab_jax.models.build import find_normalization
from deeplab_jax.types import DatasetInfo, PeerNetwork

MARK = "library_name: deeplab_jax"  # identifies our own cards by their header
NO_LICENSE = "unknown"

_LOAD_TORCH = """```python
import {module}
from safetensors.torch import load_file

network = {constructor}
network.load_state_dict(load_file("model.safetensors"), strict=True)
network.eval()
```

`model.safetensors` is the network's state dict; it needs neither this project nor JAX. {inputs}
"""
_LOAD_OURS = """```python
import deeplab_jax as dl

model = dl.load("{folder}")
mask = model.segment("photo.jpg")
```
"""
_BACKBONE_ALONE = """The folder holds only the backbone. To start a training run from it:
`--config.model.pretrained.source={folder}/model.safetensors --config.model.pretrained.layout={layout}`.
"""


def model_card(
    config: ModelConfig,
    info: DatasetInfo,
    scores: Mapping[str, Any] | None,
    *,
    folder: str,
    layout: str,
    peer: PeerNetwork | None = None,
    license_id: str = NO_LICENSE,
) -> str:
    """The card's text.

    Args:
      scores: content of scores.json; None: not evaluated.
      folder: name of the folder.
      layout: of the file's names, as which a bare backbone would be recognised.
      peer: the other system's network; None: the names are our own.
      license_id: of the weights, as hubs spell it ('apache-2.0').
    """
    is_whole = peer is None or "head" in peer.layout.model
    parts = [config.backbone.name, *([config.head.name] if is_whole else [])]
    lines = [
        "---",
        MARK,
        "pipeline_tag: image-segmentation",
        f"license: {license_id}",
        "tags:",
        "- semantic-segmentation",
    ]
    lines += ["- deeplab", "---", "", f"# {' and '.join(parts)}, {info.name}", ""]
    lines += _facts(config, info)
    lines += ["", "## Scores", "", *_score_lines(scores), "", "## Use", ""]
    if peer is not None:
        module = peer.constructor.partition("(")[0].rpartition(".")[0]
        lines.append(_LOAD_TORCH.format(module=module, constructor=peer.constructor, inputs=_inputs(config, info)))
    loading = _LOAD_OURS if is_whole else _BACKBONE_ALONE
    lines.append(loading.format(folder=folder, layout=layout))
    unknown = "Not stated: whoever publishes these weights fills in `license` above."
    lines += ["## License", "", unknown if license_id == NO_LICENSE else license_id, ""]
    lines.append(f"Written by deeplab_jax {deeplab_jax.__version__}.")
    return "\n".join(lines) + "\n"


def _facts(config: ModelConfig, info: DatasetInfo) -> list[str]:
    rows = {
        "backbone": _part(config.backbone.name, config.backbone.args),
        "head": _part(config.head.name, config.head.args),
        "output stride": config.output_stride,
        "resize": "aligned corners" if config.align_corners else "half-pixel",
        "images": f"{info.channels} channels of {info.dtype}" + " (RGB)" * info.is_rgb,
        "data set": info.name,
        "classes": f"{info.num_classes}: {', '.join(info.class_names)}",
        "ignored label": info.ignore_label,
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _part(name: str, args: Mapping[str, Any]) -> str:
    return " ".join([f"`{name}`", *(f"`{key}={value}`" for key, value in sorted(args.items()))])


def _score_lines(scores: Mapping[str, Any] | None) -> list[str]:
    if scores is None:
        return ["Not scored."]
    named = {name: scores.get(name) for name in ("mean_iou", "pixel_accuracy", "mean_accuracy")}
    values = ", ".join(f"{name} {value:.4f}" for name, value in named.items() if isinstance(value, (int, float)))
    protocol = json.dumps(scores.get("protocol", {}))
    step = f", at training step {scores['step']}" if "step" in scores else ""
    return [f"{values} on {scores.get('num_images')} images{step}.", "", f"Protocol: `{protocol}`"]


def _inputs(config: ModelConfig, info: DatasetInfo) -> str:
    """The normalization of the input, which other systems leave to the caller."""
    normalization = find_normalization(config, info)
    mean, std = list(normalization.mean), list(normalization.std)
    return f"It takes (pixel - {mean}) / {std}, pixels as they are stored{' (RGB, 0 to 255)' * info.is_rgb}."
