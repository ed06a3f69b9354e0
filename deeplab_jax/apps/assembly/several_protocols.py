"""Scores one checkpoint under several evaluation protocols: scores_NAME.json for each, and protocols.json."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.devices import make_mesh
from deeplab_jax.apps.assembly.evaluation import score, write_evaluation
from deeplab_jax.apps.assembly.processes import explain_lost_process
from deeplab_jax.config import Config, InferenceConfig
from deeplab_jax.files import write_whole
from deeplab_jax.inference.protocols import NOT_DESCRIBED, find_protocol
from deeplab_jax.train.checkpoint import find_checkpoint
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate

# Fields of `inference` that are not part of a protocol and keep the config's values.
_KEPT = (*NOT_DESCRIBED, "compute_dtype")


def with_protocol(config: Config, name: str) -> Config:
    """The config with the protocol's settings; fields of `inference` that it does not set get their defaults.

    Raises:
      UserError: if there is no such protocol, or it does not work with the rest of the config.
    """
    try:
        protocol = find_protocol(name)
    except ValueError as error:
        raise UserError(f"--protocols: {error}") from None
    kept = {field: getattr(config.inference, field) for field in _KEPT}
    changed = copy.deepcopy(dataclasses.replace(config, inference=InferenceConfig(**kept, protocol=name)))
    for path, value in protocol.settings.items():
        *parents, field = path.split(".")
        part: Any = changed
        for parent in parents:
            part = getattr(part, parent)
        setattr(part, field, value)
    validate(changed)
    return changed


@explain_lost_process()
def evaluate_protocols(config: Config, workdir: pathlib.Path, checkpoint: str, names: str) -> None:
    """Scores the workdir's best checkpoint, or `checkpoint`, under each protocol of `names`, separated by commas.

    Raises:
      UserError: if a protocol or checkpoint does not exist, or the workdir cannot be written.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    configs = {name: with_protocol(config, name) for name in chosen}
    dataset = open_data.open_normalized(config, workdir)
    mesh = make_mesh(config)
    # All use the same weights: a protocol changes strides and rates, never a shape.
    path = find_checkpoint(pathlib.Path(checkpoint) if checkpoint else workdir)
    variables = network.load_variables(config, network.build(config, dataset.info), workdir, str(path), mesh)
    found: dict[str, Mapping[str, Any]] = {}
    for name, changed in configs.items():
        if jax.process_index() == 0:
            print(f"{name}: {find_protocol(name).source}", flush=True)
        evaluation, _ = score(changed, network.build(changed, dataset.info), dataset, mesh, variables)
        found[name] = evaluation.scores
        if jax.process_index() == 0:
            write_evaluation(workdir, evaluation, path, f"_{name}")
    if jax.process_index() == 0:
        write_whole(workdir / "protocols.json", json.dumps(summarize(found), indent=1) + "\n")
        print(format_side_by_side(found))
        print(f"wrote {workdir / 'protocols.json'} and scores_NAME.json of each")


def summarize(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of protocols.json: scores and sources by protocol name."""
    keys = ("mean_iou", "confidence_interval", "pixel_accuracy", "mean_accuracy", "num_images", "protocol", "speed")
    return {
        name: {
            **{key: scores[key] for key in keys if key in scores},
            "source": find_protocol(name).source,
            "note": find_protocol(name).note,
        }
        for name, scores in found.items()
    }


def format_side_by_side(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a column per protocol and a row per class present; means and the 95 % interval below."""
    widths = {name: max(len(name), len("0.1234-0.1234")) for name in found}
    class_names = list(next(iter(found.values()))["iou_per_class"])
    first = max(len("pixel accuracy"), *(len(name) for name in class_names))

    def line(title: str, cells: Mapping[str, str]) -> str:
        return "  ".join([f"{title:{first}}", *(f"{cells[name]:>{widths[name]}}" for name in found)])

    def interval(scores: Mapping[str, Any]) -> str:
        ends = scores["confidence_interval"]["mean_iou"]
        return f"{ends[0]:.4f}-{ends[1]:.4f}" if ends else "–"

    return "\n".join(
        [
            line("IoU", {name: name for name in found}),
            *(
                line(each, {name: _number(scores["iou_per_class"][each]) for name, scores in found.items()})
                for each in class_names
                if any(scores["iou_per_class"][each] is not None for scores in found.values())
            ),
            line("mean IoU", {name: _number(scores["mean_iou"]) for name, scores in found.items()}),
            line("95 % interval", {name: interval(scores) for name, scores in found.items()}),
            line("pixel accuracy", {name: _number(scores["pixel_accuracy"]) for name, scores in found.items()}),
            line(
                "images/s",
                {name: f"{scores['speed']['images_per_second']:.2f}" for name, scores in found.items()},
            ),
        ]
    )


def _number(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"
