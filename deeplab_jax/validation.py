"""What makes a config impossible, found before any device is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab_jax import registry
from deeplab_jax.config import (
    Config,
    CRFSearchConfig,
    DataConfig,
    ExportConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PartConfig,
    ServeConfig,
    TrainConfig,
)
from deeplab_jax.types import DATASET_NORMALIZATION, NORMALIZATIONS, UserError, bucket_size


def validate(config: Config) -> None:
    """Raises UserError at the first setting that cannot work, naming its field and the remedy."""
    layout = config.model.pretrained.layout
    for path, package, part in (
        ("model.backbone", "backbones", config.model.backbone),
        ("model.head", "heads", config.model.head),
        *([("model.auxiliary", "heads", config.model.auxiliary)] if config.model.auxiliary.name else []),
        *([("model.crf", "models", config.model.crf)] if config.model.crf.name else []),
        ("loss", "losses", PartConfig(config.loss.name, config.loss.args)),
        *((f"loss.added[{k}]", "losses", PartConfig(each.name, each.args)) for k, each in enumerate(config.loss.added)),
        ("data.dataset", "data.datasets", PartConfig(f"{config.data.dataset}.open_dataset")),
        *([("model.pretrained.layout", "weights.layouts", PartConfig(f"{layout}.recognize"))] if layout else []),
    ):
        try:
            registry.check_arguments(registry.resolve(package, part.name), part.name, part.args)
        except ValueError as error:
            raise UserError(f"config.{path}: {error}") from None
    _check_model(config.model)
    _check_data(config.data, config.model.output_stride)
    _check_loss(config.loss)
    _check_optimizer(config.optimizer)
    _check_train(config.train, config.data)
    _check_batch_norm(config)
    _check_inference(config.inference)
    _check_crf_search(config.crf_search)
    _check_export(config.export)
    _check_serve(config.serve)
    _require(config.mesh.data >= 0, "mesh.data", config.mesh.data, "a number of devices, or 0 for all")
    _require(config.mesh.space >= 1, "mesh.space", config.mesh.space, "a number of devices")


def doubts(config: Config) -> list[str]:
    """What works, but costs accuracy: one line for each such setting, with the field, the reason and the remedy.

    Resizing with aligned corners puts a map's last cell on the image's last pixel, where the network has put it only
    in images of output_stride * k + 1 pixels; in all others features and logits are stretched, by up to a cell.
    """
    if not config.model.align_corners:
        return []
    stride, inference = config.model.output_stride, config.inference
    reason = f"aligned corners stretch what the network sees there; at output stride {stride}"
    found = []
    for path, size in (
        ("inference.pad_to", inference.pad_to),
        ("inference.window", inference.window),
        ("export.size", config.export.size),
    ):
        better = bucket_size((size[0], size[1]), stride)
        if tuple(size) not in ((0, 0), better):
            found.append(f"config.{path}={tuple(size)}: {reason} {better} is the next size that stays in place")
    if inference.bucket % stride and inference.pad_to == (0, 0):
        bucket = -(-inference.bucket // stride) * stride
        found.append(f"config.inference.bucket={inference.bucket}: {reason} {bucket} gives sizes that stay in place")
    return found


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
        model.normalization in (*NORMALIZATIONS, DATASET_NORMALIZATION),
        "model.normalization",
        model.normalization,
        f"one of {', '.join((*NORMALIZATIONS, DATASET_NORMALIZATION))}",
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
        model.pretrained.stem in ("strict", "repeat"),
        "model.pretrained.stem",
        model.pretrained.stem,
        "strict or repeat",
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
    _require(0 < data.max_class_share <= 1, "data.max_class_share", data.max_class_share, "in (0, 1]")
    _require(data.crop_tries >= 1, "data.crop_tries", data.crop_tries, "at least 1")
    _require(0 <= data.copy_paste <= 1, "data.copy_paste", data.copy_paste, "a probability, in [0, 1]")
    _require(
        not (data.copy_paste and data.device_augmentation),
        "data.device_augmentation",
        data.device_augmentation,
        "False with data.copy_paste, which pastes on the host",
    )
    _require(data.prepared_form in ("files", "raw"), "data.prepared_form", data.prepared_form, "files or raw")
    _require(data.num_workers >= 0, "data.num_workers", data.num_workers, "0 (one for each core) or more")
    _require(data.prefetch >= 1, "data.prefetch", data.prefetch, "at least 1")
    _require(data.worker_timeout > 0, "data.worker_timeout", data.worker_timeout, "a number of seconds")


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
    _require(
        optimizer.name in ("sgd", "adamw", "lars", "lamb"), "optimizer.name", optimizer.name, "sgd, adamw, lars or lamb"
    )
    _require(
        optimizer.trust_coefficient > 0, "optimizer.trust_coefficient", optimizer.trust_coefficient, "a positive share"
    )
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
        group in (-1, 0) or (group > 0 and rows % group == 0),
        "model.batch_norm.group_size",
        group,
        f"0 (the whole batch), -1 (a device's) or a divisor of the {rows} images that go through the network at a time",
    )


def _check_export(export: ExportConfig) -> None:
    outputs, known = tuple(export.outputs), ("class_ids", "logits", "probabilities")
    _require(
        len(outputs) > 0 and len(set(outputs)) == len(outputs) and set(outputs) <= set(known),
        "export.outputs",
        outputs,
        f"one or more of {', '.join(known)}",
    )
    size = tuple(export.size)
    _require(
        size == (0, 0) or (len(size) == 2 and min(size) > 1),
        "export.size",
        size,
        "a (height, width), or (0, 0) for any",
    )


def _check_serve(serve: ServeConfig) -> None:
    for name in ("max_bytes", "max_pixels", "max_side", "max_requests", "max_connections", "max_shapes"):
        _require(getattr(serve, name) > 0, f"serve.{name}", getattr(serve, name), "at least 1")
    _require(serve.upload_seconds > 0, "serve.upload_seconds", serve.upload_seconds, "above 0")


def _check_inference(inference: InferenceConfig) -> None:
    _require(inference.batch_size > 0, "inference.batch_size", inference.batch_size, "at least 1")
    _require(
        len(inference.scales) > 0 and all(scale > 0 for scale in inference.scales),
        "inference.scales",
        inference.scales,
        "one or more positive factors",
    )
    for name, words in (
        ("fuse", ("mean", "max")),
        ("blend", ("smooth", "uniform")),
        ("compute_dtype", ("", "float32", "bfloat16")),
    ):
        value = getattr(inference, name)
        _require(value in words, f"inference.{name}", value, " or ".join(word or "''" for word in words))
    _require(inference.bucket > 0, "inference.bucket", inference.bucket, "at least 1")
    for name, otherwise in (("pad_to", "buckets"), ("window", "whole images"), ("center_crop", "whole images")):
        size = getattr(inference, name)
        is_size = all(axis > 0 for axis in size) or tuple(size) == (0, 0)
        _require(is_size, f"inference.{name}", size, f"(height, width), or (0, 0) for {otherwise}")
    _require(
        all(0 < step <= axis for step, axis in zip(inference.stride, inference.window, strict=True))
        or tuple(inference.stride) == (0, 0),
        "inference.stride",
        inference.stride,
        f"at most the window {inference.window}, so that no pixel is left out, or (0, 0) for two thirds of it",
    )
    _require(inference.resize_shorter >= 0, "inference.resize_shorter", inference.resize_shorter, "0 or more")
    _require(
        inference.resize_longer == 0 or inference.resize_longer >= inference.resize_shorter > 0,
        "inference.resize_longer",
        inference.resize_longer,
        "0, or at least inference.resize_shorter, which must be set",
    )
    around = inference.measures.trimap_around
    _require(around in ("auto", "void", "labels"), "inference.measures.trimap_around", around, "auto, void or labels")


def _check_crf_search(search: CRFSearchConfig) -> None:
    for name in ("bi_w", "bi_xy_std", "bi_rgb_std"):
        values = getattr(search, name)
        _require(
            len(values) > 0 and all(0 < value < float("inf") for value in values),
            f"crf_search.{name}",
            values,
            "one or more positive numbers",
        )
    _require(search.num_images >= 0, "crf_search.num_images", search.num_images, "0 (all) or more")
    _require(search.num_refinements >= 0, "crf_search.num_refinements", search.num_refinements, "0 or more")
    _require(search.pos_w >= 0, "crf_search.pos_w", search.pos_w, "0 or more")
    _require(search.pos_xy_std > 0, "crf_search.pos_xy_std", search.pos_xy_std, "positive")
    _require(search.num_iterations >= 1, "crf_search.num_iterations", search.num_iterations, "at least 1")
