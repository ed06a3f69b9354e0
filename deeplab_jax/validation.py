"""Validation of configs before any device is touched: rules that span several fields.

The range of a single field is declared with the field, in the settings.py of the part that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deeplab_jax import registry
from deeplab_jax.canvas import make_canvas
from deeplab_jax.config import Config, PartConfig
from deeplab_jax.fields import check, shown
from deeplab_jax.losses.settings import CROSS_ENTROPIES
from deeplab_jax.types import UserError

_PAPERS_CROP = 513  # pixels, for which DeepLab v3's rates were chosen


def validate(config: Config) -> None:
    """Raises UserError at the first setting that cannot work, naming its field and the remedy."""
    check(config, "config")
    for path, package, part in parts_of(config):
        try:
            registry.check_arguments(registry.resolve(package, part.name), part.name, part.args)
        except ValueError as error:
            raise UserError(f"config.{path}: {' '.join(str(error).split())}") from None
    _check_model(config)
    _check_data(config)
    _check_inference(config)


def warnings_for(config: Config, *, training: bool = False) -> list[str]:
    """One line for each setting that works but costs accuracy, with the field, the reason and the remedy."""
    sizes = _stretched_sizes(config, training=training)
    return [*sizes, *(_untrained_rates(config) if training else ())]


def _stretched_sizes(config: Config, *, training: bool) -> Iterator[str]:
    """Sizes at which aligned corners move features.

    Resizing with aligned corners puts a feature map's last cell on the image's last pixel, where the network has it
    only for images of output_stride * k + 1 pixels; in all others features and logits are stretched by up to a cell.
    """
    if not config.model.align_corners:
        return
    stride, inference = config.model.output_stride, config.inference
    reason = f"aligned corners stretch what the network sees there; at output stride {stride}"
    for path, size in (
        ("data.crop_size", config.data.crop_size if training else (0, 0)),
        ("inference.pad_to", inference.pad_to),
        ("inference.window", inference.window),
        ("export.size", config.export.size),
    ):
        better = make_canvas((0, 0), stride).around(size)
        if size not in ((0, 0), better):
            yield f"config.{path}={size}: {reason} {better} is the next size that stays in place"
    if inference.bucket % stride and inference.pad_to == (0, 0) and not inference.at_own_size:
        bucket = -(-inference.bucket // stride) * stride
        yield f"config.inference.bucket={inference.bucket}: {reason} {bucket} gives sizes that stay in place"


def _untrained_rates(config: Config) -> Iterator[str]:
    """ASPP's rates that reach beyond the features of a crop, if larger images are evaluated.

    The outer weights of such a branch meet zeros alone in training, and on a larger image they count as they were drawn
    (1706.05587, sec. 3.3, has the same of large rates, where it makes a 3x3 filter a 1x1 filter).
    """
    model, crop, pad_to = config.model, config.data.crop_size, config.inference.pad_to
    known = registry.defaults(registry.resolve("heads", model.head.name)) | model.head.args
    rates, given_at = known.get("atrous_rates", ()), known.get("rates_output_stride", 0) or model.output_stride
    num_cells = -(-min(crop) // model.output_stride)
    largest = max(rates, default=0) * given_at // model.output_stride
    if largest < num_cells or (pad_to != (0, 0) and pad_to[0] <= crop[0] and pad_to[1] <= crop[1]):
        return
    better = tuple(max(1, round(rate * min(crop) / _PAPERS_CROP)) for rate in rates)
    yield (
        f"config.model.head.args.atrous_rates={tuple(rates)}: a crop of {crop[0]}x{crop[1]} has features of "
        f"{num_cells} cells, which a rate of {largest} reaches beyond: its outer weights are not trained, and disturb "
        f"larger images; {better} covers as much of the crop as the papers' rates do"
    )


def parts_of(config: Config) -> Iterator[tuple[str, str, PartConfig]]:
    """(field, package, part) of everything that is looked up by name."""
    model, loss = config.model, config.loss
    yield "model.backbone", "backbones", model.backbone
    yield "model.head", "heads", model.head
    if model.auxiliary.name:
        yield "model.auxiliary", "heads", model.auxiliary
    if model.crf.name:
        yield "model.crf", "models", model.crf
    yield "loss", "losses", PartConfig(loss.name or _cross_entropy(config), loss.args)
    for position, each in enumerate(loss.added):
        yield f"loss.added[{position}]", "losses", PartConfig(each.name, each.args)
    for position, part in enumerate(config.data.augment):
        yield f"data.augment[{position}]", "data.augment", part
    dataset, name = registry.split_argument("data.datasets", config.data.dataset, "open_dataset")
    yield "data.dataset", "data.datasets", PartConfig(dataset, {"name": name} if name else {})
    if model.pretrained.layout:
        yield (
            "model.pretrained.layout",
            "weights.layouts",
            PartConfig(registry.entry(model.pretrained.layout, "recognize")),
        )


def _cross_entropy(config: Config) -> str:
    """The task's; while the task is not known, the one that takes the arguments."""
    names = [CROSS_ENTROPIES[config.data.task]] if config.data.task else sorted(set(CROSS_ENTROPIES.values()))[::-1]
    accepted = (registry.defaults(registry.resolve("losses", name)) for name in names)
    return next(
        (name for name, known in zip(names, accepted, strict=True) if config.loss.args.keys() <= known.keys()), names[0]
    )


def _require(condition: bool, path: str, value: Any, wanted: str) -> None:
    if not condition:
        raise UserError(f"config.{path}={shown(value)}: must be {wanted}")


def _check_model(config: Config) -> None:
    start, group = config.model.pretrained, config.model.batch_norm.group_size
    _require(
        bool(start.layout) or not start.source,
        "model.pretrained.layout",
        start.layout,
        "the name of the source's layout",
    )
    rows = config.data.batch_size // config.train.accumulation_steps
    _require(
        group <= 0 or rows % group == 0,
        "model.batch_norm.group_size",
        group,
        f"0 (the whole batch), -1 (a device's) or a divisor of the {rows} images that go through the network at a time",
    )


def _check_data(config: Config) -> None:
    data, stride, slices = config.data, config.model.output_stride, config.train.accumulation_steps
    _require(
        min(data.crop_size) >= stride,
        "data.crop_size",
        data.crop_size,
        f"(height, width), each at least the output stride {stride}",
    )
    _require(data.min_scale <= data.max_scale, "data.min_scale", data.min_scale, "in (0, data.max_scale]")
    _require(
        not (data.copy_paste and data.device_augmentation),
        "data.device_augmentation",
        data.device_augmentation,
        "False with data.copy_paste, which pastes on the host",
    )
    _require(
        not (data.augment and data.device_augmentation),
        "data.device_augmentation",
        data.device_augmentation,
        "False with data.augment, which works on the host's crops",
    )
    _require(
        data.batch_size % slices == 0,
        "train.accumulation_steps",
        slices,
        f"a divisor of data.batch_size={data.batch_size}",
    )


def _check_inference(config: Config) -> None:
    window, stride = config.inference.window, config.inference.stride
    shorter, longer = config.inference.resize_shorter, config.inference.resize_longer
    _require(
        stride == (0, 0) or all(step <= axis for step, axis in zip(stride, window, strict=True)),
        "inference.stride",
        stride,
        f"at most the window {window}, so that no pixel is left out, or (0, 0) for two thirds of it",
    )
    _require(
        longer == 0 or longer >= shorter > 0,
        "inference.resize_longer",
        longer,
        "0, or at least inference.resize_shorter, which must be set",
    )
