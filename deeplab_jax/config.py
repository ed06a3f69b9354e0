"""The one schema of an experiment: every setting, its default, its check.

A config file returns a `Config`; the command line overrides any field by its
dotted path. This module holds values only: `validate` is given the functions
that look parts up, so that it can refuse a wrong name before any device is
touched.
"""

# No `from __future__ import annotations` here: the command line reads the fields' types, which must not be strings.

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from deeplab_jax.types import NORMALIZATIONS, UserError


@dataclasses.dataclass(slots=True)
class PartConfig:
    """A part found by name: `args` are the keyword arguments of its factory."""

    name: str = ""  # 'module.factory'
    args: dict[str, Any] = field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class BatchNormConfig:
    """Batch normalisation, wherever the network has it (epsilon belongs to each part)."""

    decay: float = 0.9997  # weight of the OLD statistic (the papers' value)
    # Examples that share statistics, in batch order. 0: the whole global batch, over all
    # devices; batch_size / num_devices: each device for itself.
    group_size: int = 0
    frozen: bool = False  # normalise by the stored statistics in training too


@dataclasses.dataclass(slots=True)
class PretrainedConfig:
    """Weights to start from; with neither source nor layout, training starts from random ones."""

    source: str = ""  # path of the file
    layout: str = ""  # a module of weights/layouts, e.g. 'torchvision'; where set, training asks for a source
    # 'backbone': it alone; 'model': every array must be found; 'fitting': all that fit, the others are listed.
    scope: str = "backbone"
    calibration_batches: int = 8  # where the file has batch norm folded away: batches to re-estimate it


@dataclasses.dataclass(slots=True)
class ModelConfig:
    backbone: PartConfig = field(default_factory=lambda: PartConfig("resnet.resnet50"))
    head: PartConfig = field(default_factory=lambda: PartConfig("v3plus.v3plus"))
    auxiliary: PartConfig = field(default_factory=PartConfig)  # a second head, in training; no name: none
    # Sizes of the image that the network reads and fuses by maximum (v2); empty: the image alone.
    scales: tuple[float, ...] = ()
    num_classes: int = 0  # 0: the data set's
    output_stride: int = 16
    align_corners: bool = True  # how logits are resized: TensorFlow's way; torchvision: False
    upsample_in_training: bool = True  # False: the labels are shrunk to the logits' size (v1, v2)
    normalization: str = "imagenet"  # see types.NORMALIZATIONS
    compute_dtype: str = "float32"  # or 'bfloat16'; parameters, statistics and logits stay float32
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    pretrained: PretrainedConfig = field(default_factory=PretrainedConfig)


@dataclasses.dataclass(slots=True)
class DataConfig:
    dataset: str = "shapes"  # a module of deeplab_jax/data/datasets
    root: str = ""  # folder with the original files, for data sets that need one
    prepared_dir: str = ""  # where prepared data goes; '': ~/.cache/deeplab_jax
    train_split: str = "train"
    eval_split: str = "val"
    batch_size: int = 16  # images in a global step, over all devices
    crop_size: tuple[int, int] = (513, 513)  # (height, width), each output_stride * k + 1
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.0  # 0: any scale between the two
    flip: bool = True
    photometric: bool = False  # random brightness, contrast, saturation and hue
    num_workers: int = 0  # threads that make batches; 0: one for each CPU core
    prefetch: int = 2  # batches made ahead of the step


@dataclasses.dataclass(slots=True)
class AddedLoss:
    """A further loss; `LossConfig` says what the fields are."""

    name: str = ""
    factor: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class LossConfig:
    name: str = "cross_entropy.softmax_cross_entropy"  # in deeplab_jax/losses
    args: dict[str, Any] = field(default_factory=dict)  # its own arguments, as {"label_smoothing": 0.1}
    factor: float = 1.0  # of this loss, beside those of `added`
    added: tuple[AddedLoss, ...] = ()  # further losses; fields that they do not have are shared
    # A number per class; {class: number}, others 1; from the training split: 'balanced', 'effective_number'; (): all 1.
    class_weights: object = ()
    top_k_fraction: float = 1.0  # share of each image's pixels that count, hardest first
    top_k_ramp_steps: int = 0  # steps over which the share falls from 1 to top_k_fraction
    side_weight: float = 1.0  # of the loss of each side output: the auxiliary head's, those of model.scales


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
    name: str = "sgd"  # or 'adamw'
    learning_rate: float = 0.007
    schedule: str = "poly"  # or 'step' (v1)
    end_learning_rate: float = 0.0  # of the poly schedule
    poly_power: float = 0.9
    step_size: int = 2_000  # of the step schedule: steps between two drops
    step_factor: float = 0.1  # by which it drops
    warmup_steps: int = 0  # linear, from 0
    momentum: float = 0.9
    weight_decay: float = 4e-5  # on kernels only: never on batch norm, biases or depthwise kernels
    decay_depthwise: bool = False
    # Part of the parameters (regular expression on 'backbone/...' paths) -> factor on the
    # learning rate; the first that matches counts, else 1.
    learning_rate_multipliers: dict[str, float] = field(default_factory=dict)
    clip_norm: float = 0.0  # bound on the gradient's global norm; 0: none


@dataclasses.dataclass(slots=True)
class TrainConfig:
    num_steps: int = 30_000
    accumulation_steps: int = 1  # slices of the batch, one after the other, before one update
    ema_decay: float = 0.0  # weight of the OLD average; 0: no average is kept
    max_nonfinite_steps: int = 3  # consecutive skipped updates before the run is stopped
    log_every: int = 50
    eval_every: int = 1_000
    checkpoint_every: int = 1_000
    keep_checkpoints: int = 2  # newest ones kept beside the best


@dataclasses.dataclass(slots=True)
class InferenceConfig:
    batch_size: int = 8
    scales: tuple[float, ...] = (1.0,)  # class probabilities are averaged over them
    flip: bool = False  # and over the mirrored image
    # Images are padded (bottom, right) to this (height, width); (0, 0): each axis up to the next
    # multiple of `bucket`, plus 1, which bounds the number of compilations.
    pad_to: tuple[int, int] = (0, 0)
    bucket: int = 64


@dataclasses.dataclass(slots=True)
class MeshConfig:
    data: int = 0  # devices that share the batch; 0: all


@dataclasses.dataclass(slots=True)
class Config:
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


CheckPart = Callable[[str, str, Mapping[str, Any]], None]  # (package, name, args); raises ValueError


def validate(config: Config, check_part: CheckPart) -> None:
    """Raises UserError at the first setting that cannot work, naming its field and the remedy.

    Args:
      config: the experiment.
      check_part: looks a part up and binds its arguments, without building it.
    """
    layout = config.model.pretrained.layout
    for path, package, part in (
        ("model.backbone", "backbones", config.model.backbone),
        ("model.head", "heads", config.model.head),
        *([("model.auxiliary", "heads", config.model.auxiliary)] if config.model.auxiliary.name else []),
        ("loss", "losses", PartConfig(config.loss.name, config.loss.args)),
        *((f"loss.added[{k}]", "losses", PartConfig(each.name, each.args)) for k, each in enumerate(config.loss.added)),
        ("data.dataset", "data.datasets", PartConfig(f"{config.data.dataset}.open_dataset")),
        *([("model.pretrained.layout", "weights.layouts", PartConfig(f"{layout}.recognize"))] if layout else []),
    ):
        try:
            check_part(package, part.name, part.args)
        except ValueError as error:
            raise UserError(f"config.{path}: {error}") from None
    _check_model(config.model)
    _check_data(config.data, config.model.output_stride)
    _check_loss(config.loss)
    _check_optimizer(config.optimizer)
    _check_train(config.train, config.data)
    _check_batch_norm(config)
    _check_inference(config.inference)
    _require(config.mesh.data >= 0, "mesh.data", config.mesh.data, "a number of devices, or 0 for all")


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain nested dicts, ready for JSON."""
    return dataclasses.asdict(config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths whose values differ, each as 'path: old -> new'; inputs as `to_dict` gives them."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif _plain(before) != _plain(after):
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _require(condition: bool, path: str, value: Any, wanted: str) -> None:
    if not condition:
        raise UserError(f"config.{path}={value!r}: must be {wanted}")


def _check_model(model: ModelConfig) -> None:
    _require(
        model.output_stride in (8, 16, 32, 64, 128, 256),
        "model.output_stride",
        model.output_stride,
        "8, 16 or 32 (or up to 256 with cascaded blocks)",
    )
    _require(all(s > 0 for s in model.scales), "model.scales", model.scales, "positive factors")
    _require(model.num_classes >= 0, "model.num_classes", model.num_classes, "0 (the data set's) or more")
    _require(
        model.normalization in NORMALIZATIONS,
        "model.normalization",
        model.normalization,
        f"one of {', '.join(NORMALIZATIONS)}",
    )
    _require(
        model.compute_dtype in ("float32", "bfloat16"),
        "model.compute_dtype",
        model.compute_dtype,
        "float32 or bfloat16",
    )
    _require(0 <= model.batch_norm.decay < 1, "model.batch_norm.decay", model.batch_norm.decay, "in [0, 1)")
    _require(
        bool(model.pretrained.layout) or not model.pretrained.source,
        "model.pretrained.layout",
        model.pretrained.layout,
        "the name of the source's layout",
    )
    _require(
        model.pretrained.scope in ("backbone", "model", "fitting"),
        "model.pretrained.scope",
        model.pretrained.scope,
        "backbone, model or fitting",
    )
    _require(
        model.pretrained.calibration_batches > 0,
        "model.pretrained.calibration_batches",
        model.pretrained.calibration_batches,
        "at least 1",
    )


def _check_data(data: DataConfig, stride: int) -> None:
    for axis, size in zip(("height", "width"), data.crop_size, strict=True):
        lower = max(size - 1, stride) // stride * stride + 1
        _require(
            size % stride == 1 and size > stride,
            "data.crop_size",
            data.crop_size,
            f"output_stride * k + 1 on each axis; nearest {axis} for output stride {stride}: "
            f"{lower} or {lower + stride}",
        )
    _require(data.batch_size > 0, "data.batch_size", data.batch_size, "at least 1")
    _require(0 < data.min_scale <= data.max_scale, "data.min_scale", data.min_scale, "in (0, data.max_scale]")
    _require(data.scale_step >= 0, "data.scale_step", data.scale_step, "0 (continuous) or a positive step")
    _require(data.num_workers >= 0, "data.num_workers", data.num_workers, "0 (one for each core) or more")
    _require(data.prefetch >= 1, "data.prefetch", data.prefetch, "at least 1")


def _check_loss(loss: LossConfig) -> None:
    _require(0 < loss.top_k_fraction <= 1, "loss.top_k_fraction", loss.top_k_fraction, "in (0, 1]")
    _require(loss.top_k_ramp_steps >= 0, "loss.top_k_ramp_steps", loss.top_k_ramp_steps, "0 or more")
    _require(loss.side_weight >= 0, "loss.side_weight", loss.side_weight, "0 or more")
    factors = [loss.factor, *(each.factor for each in loss.added)]
    _require(all(factor > 0 for factor in factors), "loss.factor", factors, "positive, and so that of each added loss")
    weights = loss.class_weights
    if not isinstance(weights, str) or weights not in ("", "balanced", "effective_number"):
        numbers = list(weights.values()) if isinstance(weights, Mapping) else weights
        _require(
            isinstance(numbers, (list, tuple))
            and all(isinstance(w, (int, float)) and 0 <= w < float("inf") for w in numbers),
            "loss.class_weights",
            weights,
            "numbers that are not negative, one per class or by its name, or balanced or effective_number",
        )


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    _require(optimizer.name in ("sgd", "adamw"), "optimizer.name", optimizer.name, "sgd or adamw")
    _require(optimizer.schedule in ("poly", "step"), "optimizer.schedule", optimizer.schedule, "poly or step")
    _require(optimizer.step_size > 0, "optimizer.step_size", optimizer.step_size, "at least 1")
    _require(optimizer.step_factor > 0, "optimizer.step_factor", optimizer.step_factor, "positive")
    _require(optimizer.learning_rate > 0, "optimizer.learning_rate", optimizer.learning_rate, "positive")
    _require(optimizer.weight_decay >= 0, "optimizer.weight_decay", optimizer.weight_decay, "0 or more")
    _require(0 <= optimizer.momentum < 1, "optimizer.momentum", optimizer.momentum, "in [0, 1)")
    _require(optimizer.clip_norm >= 0, "optimizer.clip_norm", optimizer.clip_norm, "0 (no bound) or positive")


def _check_train(train: TrainConfig, data: DataConfig) -> None:
    for name in ("num_steps", "log_every", "eval_every", "checkpoint_every", "keep_checkpoints", "max_nonfinite_steps"):
        _require(getattr(train, name) > 0, f"train.{name}", getattr(train, name), "at least 1")
    _require(0 <= train.ema_decay < 1, "train.ema_decay", train.ema_decay, "in [0, 1)")
    _require(
        train.accumulation_steps > 0 and data.batch_size % train.accumulation_steps == 0,
        "train.accumulation_steps",
        train.accumulation_steps,
        f"a divisor of data.batch_size={data.batch_size}",
    )


def _check_batch_norm(config: Config) -> None:
    group = config.model.batch_norm.group_size
    rows = config.data.batch_size // config.train.accumulation_steps
    _require(
        group >= 0 and (group == 0 or rows % group == 0),
        "model.batch_norm.group_size",
        group,
        f"0 (the whole batch) or a divisor of the {rows} images that go through the network at a time",
    )


def _check_inference(inference: InferenceConfig) -> None:
    _require(inference.batch_size > 0, "inference.batch_size", inference.batch_size, "at least 1")
    _require(
        len(inference.scales) > 0 and all(scale > 0 for scale in inference.scales),
        "inference.scales",
        inference.scales,
        "one or more positive factors",
    )
    _require(inference.bucket > 0, "inference.bucket", inference.bucket, "at least 1")
    _require(
        all(size > 0 for size in inference.pad_to) or inference.pad_to == (0, 0),
        "inference.pad_to",
        inference.pad_to,
        "(height, width), or (0, 0) for buckets",
    )
