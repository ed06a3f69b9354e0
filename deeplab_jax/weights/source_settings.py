"""What only a config knows of a network, since its arrays do not show it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deeplab_jax.types import NORMALIZATIONS, Normalization

# What each system calls it: segmentation_models.pytorch; transformers; the rest.
_OUTPUT_STRIDE = ("encoder_output_stride", "output_stride")
_ATROUS_RATES = ("decoder_atrous_rates", "atrous_rates")
_CLASS_NAMES = ("id2label", "class_names", "CLASSES", "classes")
_BACKBONE = ("encoder_name", "architecture")
_PORTED = re.compile(r"(tu-|timm-)?tf_|timm-mobilenetv3")
_ANTI_ALIASED = re.compile(r"(?:tu-|timm-)?((?:eca|se)?resne[tx]+(?:aa|blur)\w*)")
_STRIDED_CONV1 = "downsample_in_bottleneck"  # transformers' ResNet
_MEAN, _STD = ("image_mean", "mean"), ("image_std", "std")
_IGNORE_LABEL = ("semantic_loss_ignore_index", "ignore_index")
_PROCESSOR = ("image_processor_type", "feature_extractor_type")  # transformers: images are divided by 255
_NESTED = ("model", "model_kwargs", "dataset_meta", "pretrained_cfg")  # where they are one level deeper
_OUTPUT_STRIDES = (8, 16, 32)
_MAX_RATE, _MAX_RATES = 1024, 16
_BYTE = 255.0
_TOLERANCE = 1e-3  # of a mean or deviation, of 255: they are written with three digits


@dataclasses.dataclass(frozen=True, slots=True)
class SourceSettings:
    """What is known of a network beside its arrays; empty fields are not.

    Attributes:
      output_stride: of the backbone.
      atrous_rates: of ASPP's branches at that stride, as the source spells them.
      normalization: a key of NORMALIZATIONS, or the means and deviations themselves, for pixels in [0, 255].
      align_corners: how it resizes.
      class_names: in the order of its classes.
      activation: after its logits, as the source calls it.
      ignore_label: of the labels it was trained with.
      is_rgb: False: it reads BGR.
      ported: whether its backbone is timm's port from TensorFlow ('tf_...').
      strided_conv: a ResNet's convolution that carries the stride, 'conv1' where a config says so.
      foreign: what of the network is not here, in words, though its arrays fit.
      origin: what says so: 'config.json', 'hyper_parameters', 'flags'.
    """

    output_stride: int = 0
    atrous_rates: tuple[int, ...] = ()
    normalization: str | Normalization = ""
    align_corners: bool | None = None
    class_names: tuple[str, ...] = ()
    activation: str = ""
    ignore_label: int | None = None
    is_rgb: bool | None = None
    ported: bool | None = None
    strided_conv: str = ""
    foreign: str = ""
    origin: str = ""

    def over(self, other: SourceSettings) -> SourceSettings:
        """These, and the other's where these say nothing."""
        mine = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        stated: dict[str, Any] = {name: value for name, value in mine.items() if value or value is False}
        return dataclasses.replace(other, **stated)


NOTHING_STATED = SourceSettings()


def read_source_settings(stated: Mapping[str, Any], origin: str) -> SourceSettings:
    """Reads what a config states; whatever is not of the expected kind is passed over."""
    stride = _find(stated, _OUTPUT_STRIDE, lambda value: value in _OUTPUT_STRIDES and type(value) is int)
    rates = _find(stated, _ATROUS_RATES, _are_rates)
    names = _find(stated, _CLASS_NAMES, lambda value: bool(_names(value)))
    activation = _find(stated, ("activation",), lambda value: isinstance(value, str))
    flipped = _find(stated, ("do_flip_channel_order",), lambda value: isinstance(value, bool))
    backbone = _find(stated, _BACKBONE, lambda value: isinstance(value, str))
    found = SourceSettings(
        output_stride=stride or 0,
        atrous_rates=tuple(rates or ()),
        normalization=_normalization(stated),
        class_names=_names(names),
        activation=activation or "",
        ignore_label=_find(stated, _IGNORE_LABEL, lambda value: type(value) is int and 0 <= value < 2**16),
        is_rgb=None if flipped is None else not flipped,
        ported=None if backbone is None else bool(_PORTED.match(backbone)),
        strided_conv="conv1" if stated.get(_STRIDED_CONV1) is True else "",
        foreign=_foreign(stated, backbone or ""),
    )
    return found if found == NOTHING_STATED else dataclasses.replace(found, origin=origin)


def _find(stated: Mapping[str, Any], keys: tuple[str, ...], fits: Callable[[Any], bool]) -> Any:
    """The value of the first key that has a fitting one; None if none has."""
    return next((each[key] for each in _levels(stated) for key in keys if key in each and fits(each[key])), None)


def _levels(stated: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield stated
    yield from (stated[key] for key in _NESTED if isinstance(stated.get(key), Mapping))


def _foreign(stated: Mapping[str, Any], backbone: str) -> str:
    """What no array shows of a ResNet that is not here; '' if nothing is said."""
    if match := _ANTI_ALIASED.match(backbone):
        return f"{match[1]} averages or blurs where it takes strides"
    if stated.get("downsample_in_first_stage") is True:
        return "downsample_in_first_stage is true: there is no ResNet that takes a stride in its first stage"
    return ""


def _are_rates(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and 0 < len(value) <= _MAX_RATES
    return is_list and all(type(rate) is int and 0 < rate <= _MAX_RATE for rate in value)


def _names(value: Any) -> tuple[str, ...]:
    """Class names from a list, or from {'0': 'background', ...} without gaps."""
    if isinstance(value, Mapping):
        numbered = {int(key): name for key, name in value.items() if str(key).isdecimal()}
        value = [numbered.get(class_id) for class_id in range(len(value))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value) if len(set(value)) == len(value) else ()


def _normalization(stated: Mapping[str, Any]) -> str | Normalization:
    """Of means and deviations for pixels in [0, 1], as all of these systems write them; '' where there are none."""
    if any(key in stated for key in _PROCESSOR) and not stated.get("do_normalize"):
        return "zero_to_one" if stated.get("do_rescale", True) else ""  # whatever means it lists
    mean, std = (_find(stated, keys, _are_numbers) for keys in (_MEAN, _STD))
    if mean is None or std is None or len(mean) != len(std) or not all(value > 0 for value in std):
        return ""
    scaled = Normalization(tuple(_BYTE * value for value in mean), tuple(_BYTE * value for value in std))
    known = (name for name, normalization in NORMALIZATIONS.items() if _is_close(scaled, normalization))
    return next(known, scaled)


def _are_numbers(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) > 0
    return is_list and all(type(each) in (int, float) and abs(each) <= 1 for each in value)


def _is_close(first: Normalization, second: Normalization) -> bool:
    pairs = zip((*first.mean, *first.std), (*second.mean, *second.std), strict=False)
    same_length = len(first.mean) == len(second.mean)
    return same_length and all(abs(one - other) <= _BYTE * _TOLERANCE for one, other in pairs)
