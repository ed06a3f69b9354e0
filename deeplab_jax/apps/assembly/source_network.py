"""The network of someone else's weights: what their config says of it, what is assumed, and the lines that say so."""

from __future__ import annotations

import dataclasses
from typing import Any

from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.weights_file import WeightsFile
from deeplab_jax.config import ModelConfig
from deeplab_jax.data.dataset import make_info
from deeplab_jax.data.datasets import ade20k, cityscapes, voc
from deeplab_jax.heads.aspp import RATES_OUTPUT_STRIDE, rates_in_cells
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.types import DATASET_NORMALIZATION, DatasetInfo, Normalization, UserError, WeightLayout
from deeplab_jax.weights.source_settings import SourceSettings

_RATES = "atrous_rates"
_GIVEN_AT = "rates_output_stride"
_SAME_RATES = ("smp", "torchvision")  # systems whose rates, in cells, are the same at each output stride
_MIDDLE = 127.5  # of a byte: images of other channels than RGB are brought to [-1, 1] where nothing else is said
_ACTIVATIONS = (
    "identity",
    "softmax",
    "softmax2d",
    "argmax",
    "argmax2d",
)  # with which the largest logit's class is right
BACKGROUND = "background"  # of a binary network
_UNKNOWN = "imported"  # name of a data set that is not known


def with_settings(layout: WeightLayout, known: SourceSettings, layout_name: str, path: str) -> dict[str, Any]:
    """A layout's model with what is known of the network beside its arrays.

    Rates follow the system's rule, also where the output stride changes later.

    Raises:
      UserError: where the rates are none that a network here can have at its stride.
    """
    model, changed = layout.model, dict(layout.model)
    if known.ported and layout.ported:
        backbone = model["backbone"]
        changed["backbone"] = {**backbone, "args": {**backbone["args"], **layout.ported}}
    stride = known.output_stride or model["output_stride"]
    arguments = model["head"]["args"]
    given, is_same = arguments.get(_RATES, ()), layout_name in _SAME_RATES
    given_at = 0 if is_same else arguments.get(_GIVEN_AT, RATES_OUTPUT_STRIDE)
    rates = known.atrous_rates or rates_in_cells(arguments, model["output_stride"])
    if rates and (known.atrous_rates or is_same):
        if len(given) != len(rates):
            raise UserError(f"{path}: atrous rates {rates}: its head has {len(given)} atrous branches")
        if given_at and any(rate * stride % given_at for rate in rates):
            raise UserError(f"{path}: atrous rates {rates} at output stride {stride}: must be even at 8")
        spelled = tuple(rate * stride // given_at for rate in rates) if given_at else rates
        changed["head"] = {**model["head"], "args": {**arguments, _RATES: spelled, _GIVEN_AT: given_at}}
    changed["output_stride"] = stride
    if known.align_corners is not None:
        changed["align_corners"] = known.align_corners
    if known.normalization:
        is_named = isinstance(known.normalization, str)
        changed["normalization"] = known.normalization if is_named else DATASET_NORMALIZATION
    return changed


def describe(config: ModelConfig, file: WeightsFile, known: SourceSettings) -> tuple[ModelConfig, DatasetInfo]:
    """The config, and the classes of the network: the file's own, those that its config names, or the likely ones."""
    if file.info is not None:
        return config, file.info
    names = known.class_names
    if config.task == "binary" and len(names) == 1:
        names = (BACKGROUND, *names)
    if len(names) == config.num_classes:
        info = dataclasses.replace(make_info(_UNKNOWN, names), task=config.task or "multiclass")
    else:
        info = assumed_info(config)
    if isinstance(known.normalization, Normalization):
        info = dataclasses.replace(info, channel_mean=known.normalization.mean, channel_std=known.normalization.std)
    if known.ignore_label is not None:
        info = dataclasses.replace(info, ignore_label=known.ignore_label)
    return config, info


def for_channels(
    config: ModelConfig, info: DatasetInfo, channels: int, known: SourceSettings
) -> tuple[ModelConfig, DatasetInfo]:
    """Both for images of other channels than RGB, brought to [-1, 1] where their statistics are not known."""
    stated = known.normalization
    if not isinstance(stated, Normalization) or len(stated.mean) != channels:
        stated = Normalization((_MIDDLE,) * channels, (_MIDDLE,) * channels)
    info = dataclasses.replace(info, channels=channels, channel_mean=stated.mean, channel_std=stated.std)
    return dataclasses.replace(config, normalization=DATASET_NORMALIZATION), info


def assumed_info(config: ModelConfig) -> DatasetInfo:
    """The classes of a file without class names: those of the data set with the same number, else numbered ones."""
    num_classes = config.num_classes
    if config.task == "binary":
        return dataclasses.replace(make_info(_UNKNOWN, (BACKGROUND, "object")), task="binary")
    for known in (voc.INFO, cityscapes.INFO, ade20k.INFO):
        if known.num_classes == num_classes:
            return known
    return open_data.numbered_classes(_UNKNOWN, num_classes)


def say_read(settings: SourceSettings, chosen: SourceSettings) -> tuple[str, ...]:
    """A line with what the file's config says, without what was chosen instead."""
    said = {
        "output_stride": f"output stride {settings.output_stride}",
        "atrous_rates": f"atrous rates {settings.atrous_rates}",
        "normalization": "normalization",
        "class_names": f"{len(settings.class_names)} class names",
        "ignore_label": f"ignored label {settings.ignore_label}",
        "ported": "a backbone ported from TensorFlow",
    }
    listed = [words for name, words in said.items() if getattr(settings, name) and not getattr(chosen, name)]
    return (f"{_listed(listed)}: as its {settings.origin} has them",) if listed else ()


def say_outputs(config: ModelConfig, known: SourceSettings) -> tuple[str, ...]:
    """A line where the logits are not those of classes that exclude one another."""
    if config.task == "binary":
        return ("its one output is one logit, of the object: a pixel is the object's where its sigmoid is above 0.5",)
    if known.activation and known.activation not in _ACTIVATIONS:
        return (f"its activation '{known.activation}' is not applied: segment takes the class of the largest logit",)
    return ()


def say_assumed(
    config: ModelConfig, info: DatasetInfo, known: SourceSettings, layout: str, *, has_port: bool = False
) -> tuple[str, ...]:
    """A line with what nothing says, as the layout's system has it by default, and the flags that change it.

    Args:
      has_port: whether its backbone may be one ported from TensorFlow, by the arrays alone.
    """
    scaled = rates_in_cells(config.head.args, config.output_stride)
    assumed: dict[str, str] = {}
    if not known.output_stride:
        assumed["output_stride"] = f"output stride {config.output_stride}"
    if scaled and not known.atrous_rates:
        assumed["atrous_rates"] = f"atrous rates {scaled} at it"
    if not known.normalization:
        is_own = config.normalization == DATASET_NORMALIZATION
        assumed["normalization"] = (
            f"pixels of {info.channels} channels brought to [-1, 1]"
            if is_own
            else f"normalization '{config.normalization}'"
        )
    if known.align_corners is None:
        assumed["align_corners"] = (
            f"resizing with {'aligned corners' if config.align_corners else 'half-pixel centres'}"
        )
    if has_port and known.ported is None:
        assumed["ported"] = "a backbone of timm's own, not one ported from TensorFlow ('tf_...')"
    classes = ""
    if info.class_names != known.class_names:
        names = "numbers without names" if info.name == _UNKNOWN else f"those of {info.name}"
        if info.task == "binary":
            names = f"{' and '.join(info.class_names)}, of which its one output is the latter's"
        classes = f"its {info.num_classes} classes are taken to be {names}"
    if not assumed:
        return (f"{classes}: the file does not say",) if classes else ()
    flags = _listed([f"--{name}" for name in assumed])
    verb = "are" if len(assumed) > 1 else "is"
    line = f"{_listed(list(assumed.values()))} {verb} assumed, as {layout} has them: the file does not say ({flags})"
    return (f"{line}; {classes}" if classes else line,)


def say_own_size(inference: InferenceConfig) -> tuple[str, ...]:
    """A line where images are not padded, with what that costs."""
    if not inference.at_own_size:
        return ()
    line = "images are computed at their own size, whose padding its image pooling would see: each size is compiled for"
    return (f"{line} (inference.bucket=64 pads them, and changes masks)",)


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
