"""From a config to the things every mode needs: data set, devices, network, loss, variables."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from deeplab_jax import registry
from deeplab_jax.apps.class_weights import class_weights
from deeplab_jax.apps.crf_settings import find_crf
from deeplab_jax.apps.files import write_whole
from deeplab_jax.apps.pixels import add_statistics, check_images, pad_pixel, read_info
from deeplab_jax.config import Config, LossConfig, differences, to_dict
from deeplab_jax.data.class_counts import ClassCounts
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.raw_copy import with_raw_copies
from deeplab_jax.inference.predictor import PredictorOptions
from deeplab_jax.inference.resizing import ResizeRule
from deeplab_jax.losses.combined import add_losses
from deeplab_jax.models.build import build_model
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.ops import mesh as meshes
from deeplab_jax.train import checkpoint as checkpoints
from deeplab_jax.train.state import Init, abstract_variables
from deeplab_jax.train.step import StepLoss
from deeplab_jax.types import DatasetInfo, Label, Logits, UserError, Variables

CONFIG_FILE = "config.json"  # inside a workdir
DATASET_FILE = "dataset.json"  # what prediction must know of the data set, so that it can do without it

# What a run may change when it is continued: neither the state nor the data of its later steps depends on it.
_FREE = (
    "inference.",
    "crf_search",
    "export",
    "serve",
    "mesh.",
    "model.pretrained.",
    "model.remat",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "data.num_workers",
    "data.prefetch",
    "data.worker_timeout",
    "data.prepared_dir",
    "data.prepared_form",
    "data.root",
)


def check_part(package: str, name: str, args: Mapping[str, Any]) -> None:
    """Looks a part up and binds its arguments, for `validate`; raises ValueError."""
    registry.check_arguments(registry.resolve(package, name), name, args)


def open_dataset(config: Config) -> Dataset:
    """The data set, prepared first where it has to be."""
    factory = registry.resolve("data.datasets", f"{config.data.dataset}.open_dataset")
    dataset = factory(config.data.root, config.data.prepared_dir)
    return with_raw_copies(dataset) if config.data.prepared_form == "raw" else dataset


def open_normalized(config: Config, workdir: pathlib.Path) -> Dataset:
    """As `open_dataset`; the data set also knows its channels' statistics where they are what images are normalised by.

    They are those that the workdir's run began with, where it has begun.
    """
    kept = workdir / DATASET_FILE if has_checkpoints(workdir) else None
    return add_statistics(open_dataset(config), config, kept)


def keep_info(info: DatasetInfo, workdir: pathlib.Path) -> None:
    """Writes what is known of the data set into the workdir."""
    write_whole(workdir / DATASET_FILE, json.dumps(dataclasses.asdict(info), indent=1) + "\n")


def find_info(config: Config, workdir: pathlib.Path) -> DatasetInfo:
    """What the workdir knows of its data set, or else the data set itself."""
    path = workdir / DATASET_FILE
    return read_info(path) if path.exists() else open_normalized(config, workdir).info


def make_mesh(config: Config, devices: Sequence[jax.Device] = ()) -> Mesh:
    """The devices of the run; `devices`, where it is only compiled for them.

    Raises:
      UserError: where there are fewer than asked for.
    """
    try:
        return meshes.make_mesh(config.mesh.data, config.mesh.space, devices)
    except ValueError as error:
        space = f", config.mesh.space={config.mesh.space}" if config.mesh.space > 1 else ""
        raise UserError(f"config.mesh.data={config.mesh.data}{space}: {error}; 0 takes all there are") from None


def check_batch(config: Config, mesh: Mesh) -> None:
    """Raises UserError where the training batch cannot be shared evenly."""
    rows, num_groups = config.data.batch_size // config.train.accumulation_steps, meshes.num_data(mesh)
    if rows % num_groups:
        most = max(count for count in range(1, num_groups + 1) if rows % count == 0)
        sharing = "devices" if num_groups == mesh.size else f"groups of {mesh.size // num_groups} devices"
        raise UserError(
            f"config.data.batch_size={config.data.batch_size}: {rows} images at a time do not divide over "
            f"{num_groups} {sharing}; change it, or set config.mesh.data={most}"
        )


def build(config: Config, info: DatasetInfo, mesh: Mesh | None = None) -> nn.Module:
    """The network for the classes of the data set.

    Args:
      config: its settings.
      info: of the data set.
      mesh: on which it will be trained: says how many images batch norm sees where each device is for itself.

    Raises:
      UserError: where config and data set disagree about their number, or a setting does not go with its images.
    """
    check_images(config, info)
    if config.model.num_classes not in (0, info.num_classes):
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}: data set {info.name} has {info.num_classes} "
            "classes; 0 takes the data set's"
        )
    model = config.model
    if model.batch_norm.group_size < 0 and mesh is not None:
        rows = config.data.batch_size // config.train.accumulation_steps // meshes.num_data(mesh)
        model = dataclasses.replace(model, batch_norm=dataclasses.replace(model.batch_norm, group_size=rows))
    return build_model(model, info)


def make_init(config: Config, model: nn.Module) -> Init:
    """key -> the network's variables; jitted, so that asking for their shapes and drawing them trace it once."""
    channels = len(model.normalization.mean) if isinstance(model, DeepLab) else 3
    images = jnp.zeros((1, *config.data.crop_size, channels), jnp.uint8)
    return jax.jit(lambda key: model.init(key, images, train=False))


def make_loss(config: LossConfig, info: DatasetInfo, counts: Callable[[], ClassCounts] | None = None) -> StepLoss:
    """(logits, label, step) -> (sum, weight), with the share of hard pixels ramped down over the first steps.

    Args:
      config: its settings.
      info: of the data set.
      counts: of the training split; must be given where the class weights are to follow from them.

    Raises:
      UserError: where there are not as many class weights as classes, or a loss does not take what it is given.
    """
    weights = class_weights(config.class_weights, info, counts)
    parts = [(config.factor, config.name, config.args), *((each.factor, each.name, each.args) for each in config.added)]
    losses = [(factor, _bind(name, args, config, info, weights)) for factor, name, args in parts]

    def step_loss(logits: Logits, label: Label, step: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        fraction: Any = config.top_k_fraction
        if config.top_k_ramp_steps and config.top_k_fraction < 1:
            progress = jnp.minimum(step / config.top_k_ramp_steps, 1.0)
            fraction = 1.0 - (1.0 - config.top_k_fraction) * progress
        terms = [(factor, functools.partial(loss, fraction=fraction)) for factor, loss in losses]
        return add_losses(terms)(logits, label)

    return step_loss


def _bind(
    name: str, args: Mapping[str, Any], config: LossConfig, info: DatasetInfo, weights: tuple[float, ...] | None
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """(logits, label, fraction) -> (sum, weight) of one loss, tried out on shapes."""
    loss = registry.resolve("losses", name)
    mines = "top_k_fraction" in registry.defaults(loss)
    if config.top_k_fraction < 1 and not mines and name == config.name:
        raise UserError(
            f"config.loss.top_k_fraction={config.top_k_fraction}: '{name}' mines no hard pixels; set it to 1"
        )
    taken = sorted({"logits", "label", "ignore_label", "class_weights", "top_k_fraction"} & set(args))
    if taken:
        raise UserError(f"config.loss: the args of '{name}' must not hold '{taken[0]}', which is set by other fields")

    def bound(logits: Logits, label: Label, fraction: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        mining = {"top_k_fraction": fraction} if mines else {}
        return loss(logits, label, ignore_label=info.ignore_label, class_weights=weights, **mining, **args)

    logits = jax.ShapeDtypeStruct((1, 2, 2, info.num_classes), jnp.float32)
    label = jax.ShapeDtypeStruct((1, 2, 2), jnp.int32)
    try:
        jax.eval_shape(functools.partial(bound, fraction=config.top_k_fraction), logits, label)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.loss: '{name}': {' '.join(str(error).split())}; correct its args") from None
    return bound


def predictor_options(config: Config, info: DatasetInfo | None = None) -> PredictorOptions:
    """How the config wants an image of a data set (None: RGB bytes) to go through the network."""
    inference = config.inference
    return PredictorOptions(
        scales=tuple(inference.scales),
        flip=inference.flip,
        fuse=inference.fuse,
        window=inference.window,
        stride=inference.stride,
        blend=inference.blend,
        align_corners=config.model.align_corners,
        pad_to=inference.pad_to,
        bucket=inference.bucket,
        pad_pixel=pad_pixel(config, info),
        resize=resize_rule(config),
        crf=find_crf(config.inference.crf),
    )


def resize_rule(config: Config) -> ResizeRule | None:
    """How the config wants images resized before all else; None where not at all."""
    inference = config.inference
    if not inference.resize_shorter:
        return None
    return ResizeRule(inference.resize_shorter, inference.resize_longer, inference.resize_antialias)


def for_inference(config: Config) -> Config:
    """The config with the network computed in the precision that is wanted for inference."""
    if not config.inference.compute_dtype:
        return config
    model = dataclasses.replace(config.model, compute_dtype=config.inference.compute_dtype)
    return dataclasses.replace(config, model=model)


def load_variables(
    config: Config, model: nn.Module, workdir: pathlib.Path, checkpoint: str = "", mesh: Mesh | None = None
) -> Variables:
    """The workdir's best variables, or those of `checkpoint`, on the devices of `mesh` (None: the first one).

    Raises:
      UserError: where there is no checkpoint, or it holds another network.
    """
    target = abstract_variables(make_init(config, model), mesh or meshes.make_mesh(1))
    return checkpoints.load_variables(pathlib.Path(checkpoint) if checkpoint else workdir, target)


def open_workdir(config: Config, workdir: pathlib.Path) -> None:
    """Makes the workdir this config's: creates it where missing, and writes config.json.

    Raises:
      UserError: where it cannot be written, or holds checkpoints of another config.
    """
    path = workdir / CONFIG_FILE
    wanted = json.loads(json.dumps(to_dict(config)))
    if path.exists() and has_checkpoints(workdir):
        _check_same_config(path, wanted)
    if jax.process_index() != 0:
        return
    write_whole(path, json.dumps(wanted, indent=1) + "\n")


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether the workdir holds anything that a new run could spoil."""
    folder = workdir / checkpoints.FOLDER
    return folder.is_dir() and any(folder.iterdir())


def _with_defaults(old: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it would have been written had today's fields been known."""
    filled = {**defaults, **old}
    for name, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(filled[name], Mapping):
            filled[name] = _with_defaults(filled[name], value)
    return filled


def _check_same_config(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    try:
        changes = differences(_with_defaults(json.loads(path.read_text()), to_dict(Config())), wanted)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; choose another --workdir") from None
    changes = [change for change in changes if not change.startswith(_FREE)]
    if changes:
        raise UserError(f"{path.parent} holds a run of another config ({'; '.join(changes)}): choose a new --workdir")
