"""Opens anyone's weights: finds the network among a file's arrays, whatever it is wrapped in, and its layout."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from deeplab_jax import registry
from deeplab_jax.apps.assembly import open_data
from deeplab_jax.apps.assembly.network_metadata import KEY, OWN_LAYOUT, Description, read_description
from deeplab_jax.apps.assembly.published_weights import local_path
from deeplab_jax.apps.assembly.workdir import CONFIG_FILE
from deeplab_jax.config import PretrainedConfig, from_dict, to_dict
from deeplab_jax.inference.settings import InferenceConfig
from deeplab_jax.models.build import hashable
from deeplab_jax.train.checkpoint import FOLDER, restore_variables
from deeplab_jax.types import ArrayShapes, DatasetInfo, UserError, WeightLayout
from deeplab_jax.weights.formats.contents import Contents
from deeplab_jax.weights.formats.read import read_contents, read_metadata
from deeplab_jax.weights.known_networks import OTHER_FORM, identify
from deeplab_jax.weights.prefixes import prefix_levels, roots, under, without_wrappers
from deeplab_jax.weights.source_settings import NOTHING_STATED, SourceSettings, read_source_settings

_LAYOUTS = "weights.layouts"
_MAX_LISTED = 6  # names of what was left out


class WeightsFile(NamedTuple):
    """A file's network: its arrays, the layout of their names, and what else the file says.

    Attributes:
      arrays: by the names of the layout, without the wrappers'.
      layout_name: a module of weights/layouts.
      layout: of the arrays.
      info: of its classes, if the file has one.
      settings: what it says of the network beside its arrays.
      notes: a line for what was taken out of the file, and one for what was left.
      left_out: the first components of names outside the network -> how many have it.
      inference: how images are padded for it; for another system's not at all, as its image pooling and its
        convolutions would see the padding.
    """

    arrays: Mapping[str, np.ndarray]
    layout_name: str
    layout: WeightLayout
    info: DatasetInfo | None = None
    settings: SourceSettings = NOTHING_STATED
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = {}
    inference: InferenceConfig = InferenceConfig(bucket=1)


class _Place(NamedTuple):
    """Where in a file a network is."""

    prefix: str
    layout_name: str
    layout: WeightLayout


def read_file(path: str, layout_name: str, *, part: str = "") -> WeightsFile:
    """Reads a file or workdir of the named layout; '' detects the layout.

    Args:
      path: as `local_path` takes it.
      part: dotted keys or prefix of the network, in a file with several ('model_ema'); '': it is found.

    Raises:
      UserError: if it cannot be read, has another layout, or holds several networks.
    """
    path = local_path(path)
    folder = pathlib.Path(path)
    if (folder / FOLDER).is_dir() and layout_name in ("", OWN_LAYOUT):
        return _read_own(folder)
    known = registry.module_names(_LAYOUTS)
    if layout_name and ":" not in layout_name and layout_name not in known:
        raise UserError(f"layout '{layout_name}': there are {', '.join(known)}")
    contents = read_contents(path, follow=not part)
    description = read_metadata(path).get(KEY)
    if description is not None:
        return _read_described(path, layout_name, contents.arrays, read_description(description, path))
    named, removed = without_wrappers(contents.arrays)
    arrays = _part_of(named, part, path) if part else named
    # An empty array has no place in a network, and may claim any number of classes.
    shapes = {name: array.shape for name, array in arrays.items() if array.size}
    place = _find_place(path, shapes, layout_name)
    if place.layout_name == OWN_LAYOUT:
        raise UserError(
            f"{path}: has this project's names without the metadata that say of which network they are; write it with "
            "Model.save, or from its workdir with --mode=export --format=safetensors"
        )
    left_out = roots(name for name in arrays if not name.startswith(place.prefix))
    notes = (*_taken(contents, removed, part, place.prefix), *say_left_out(left_out))
    settings = read_source_settings(contents.settings, contents.origin)
    if settings.foreign:
        raise UserError(f"{path}: {settings.foreign} (its {settings.origin}); its arrays are those of another network")
    found, layout = under(arrays, place.prefix), place.layout
    if settings.strided_conv and _has_bottlenecks(layout.model["backbone"]["name"]):
        layout = dataclasses.replace(layout, model=_with_stride(layout.model, settings.strided_conv))
        notes += (f"its bottlenecks take their stride in {settings.strided_conv}, as its {settings.origin} has it",)
    if settings.is_rgb:  # whatever the system usually reads
        rules = tuple(rule._replace(transform=rule.transform.removesuffix("+bgr")) for rule in layout.rules)
        layout = dataclasses.replace(layout, rules=rules)
    return WeightsFile(found, place.layout_name, layout, None, settings, notes, left_out)


def _has_bottlenecks(backbone: str) -> bool:
    return backbone.startswith("resnet.") and not backbone.startswith(("resnet.resnet18", "resnet.resnet34"))


def _with_stride(model: Mapping[str, Any], conv: str) -> dict[str, Any]:
    backbone = model["backbone"]
    return {**model, "backbone": {**backbone, "args": {**backbone["args"], "strided_conv": conv}}}


def fitting_layouts(shapes: ArrayShapes) -> list[str]:
    """The layouts that these names fit."""
    return [place.layout_name for place in _fitting(shapes, "", registry.module_names(_LAYOUTS), [])]


def find_layout(path: str, shapes: ArrayShapes) -> WeightLayout:
    """The layout of the network among these names, at whatever prefix.

    Raises:
      UserError: if there is none, or more than one; it says what the file is, where that is known.
    """
    return _find_place(path, shapes, "").layout


def say_left_out(left_out: Mapping[str, int]) -> tuple[str, ...]:
    """A line that lists what of a file is not used, if anything is."""
    if not left_out:
        return ()
    listed = [f"{name} ({count} arrays)" if count > 1 else name for name, count in left_out.items()]
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return (f"left out, as no part of the network: {', '.join(listed[:_MAX_LISTED])}{more}",)


def _taken(contents: Contents, removed: str, part: str, prefix: str) -> tuple[str, ...]:
    """A line for what was taken of a file that holds more than plain names."""
    where = ".".join(each.strip("./") for each in (contents.taken, part, prefix) if each)
    line = f"its weights are those of '{where}'" if where else ""
    if removed:
        line = f"{line}, " * bool(line) + f"names are read without '{removed}'"
    if contents.others:
        others = " and ".join(f"'{other}'" for other in contents.others)
        line += f"; it holds {others} too, which --part={contents.others[0]} takes instead"
    return (line,) if line else ()


def _part_of(arrays: Mapping[str, np.ndarray], part: str, path: str) -> Mapping[str, np.ndarray]:
    found = under(arrays, f"{part.strip('.')}.")
    if not found:
        raise UserError(f"{path}: holds nothing under '{part}'; there are {', '.join(list(roots(arrays))[:20])}")
    return found


def _find_place(path: str, shapes: ArrayShapes, layout_name: str) -> _Place:
    """The network of the file: at the shortest prefix where a layout fits.

    Raises:
      UserError: if there is none, or more than one; it says what the file is, where that is known.
    """
    reasons: list[str] = []
    wanted = [layout_name] if layout_name else registry.module_names(_LAYOUTS)
    for prefixes in prefix_levels(shapes):
        found = [place for prefix in prefixes for place in _fitting(under(shapes, prefix), prefix, wanted, reasons)]
        if found:
            return _only(path, found)
        for prefix in prefixes if not layout_name else ():
            if known := identify(under(shapes, prefix)):
                why = [f" ({each})" for each in reasons if known.endswith(OTHER_FORM) and _is_telling(each, shapes)]
                raise UserError(f"{path}: this is {known}{''.join(why[:1])}")
    if layout_name:
        fitting = sorted({place.layout_name for place in _all_places(shapes)})
        hint = f"its names are those of layout {' or '.join(fitting)}" if fitting else "no layout here knows it"
        raise UserError(f"{path}: not of layout '{layout_name}' ({reasons[0]}); {hint}")
    telling = [reason for reason in reasons if _is_telling(reason, shapes)]
    if nearest := telling[:1] or _nearest(reasons, shapes):
        raise UserError(f"{path}: no layout fits its names; the nearest is {nearest[0]}")
    known_layouts = ", ".join(registry.module_names(_LAYOUTS))
    raise UserError(f"{path}: no layout fits its names; say which with --layout=NAME, one of {known_layouts}")


def _nearest(reasons: Sequence[str], shapes: ArrayShapes) -> list[str]:
    """The reason that misses a name whose beginning, of most components and at least two, the file has."""
    beginnings = {name.rsplit(".", depth)[0] for name in shapes for depth in range(1, name.count(".") + 1)}
    shared = {
        reason: max((part.count(".") + 1 for part in _beginnings(reason) if part in beginnings), default=0)
        for reason in reasons
        if not reason.startswith(OWN_LAYOUT)
    }
    best = max(shared, key=lambda reason: shared[reason], default="")
    return [best] if shared.get(best, 0) > 1 else []


def _beginnings(reason: str) -> Iterator[str]:
    for name in re.findall("'([^']+)'", reason):
        parts = name.split(".")
        yield from (".".join(parts[:depth]) for depth in range(1, len(parts)))


def _is_telling(reason: str, shapes: ArrayShapes) -> bool:
    """Whether it names what the file has, not what it lacks."""
    if reason.startswith(OWN_LAYOUT):
        return False
    quoted = [each.rstrip(".") for each in re.findall("'([^']+)'", reason)]
    return any(name.startswith(each) for each in quoted for name in shapes)


def _only(path: str, found: Sequence[_Place]) -> _Place:
    """The one network; whole ones count before backbones.

    Raises:
      UserError: if there are several.
    """
    whole = [place for place in found if "head" in place.layout.model] or list(found)
    if len(whole) == 1:
        return whole[0]
    prefixes = list(dict.fromkeys(place.prefix for place in whole))
    if len(prefixes) > 1:
        names = ", ".join(f"'{prefix.rstrip('./')}'" for prefix in prefixes)
        first = prefixes[0].rstrip("./")
        raise UserError(f"{path}: holds {len(prefixes)} networks, {names}; say which with --part, e.g. --part={first}")
    layouts = ", ".join(place.layout_name for place in whole)
    raise UserError(f"{path}: several layouts fit ({layouts}); say which with --layout=NAME")


def _all_places(shapes: ArrayShapes) -> Iterator[_Place]:
    for prefixes in prefix_levels(shapes):
        for prefix in prefixes:
            yield from _fitting(under(shapes, prefix), prefix, registry.module_names(_LAYOUTS), [])


def _fitting(shapes: ArrayShapes, prefix: str, layouts: Sequence[str], reasons: list[str]) -> list[_Place]:
    """The layouts that fit these names; why the others do not is appended to `reasons`."""
    found = []
    for name in layouts:
        try:
            found.append(_Place(prefix, name, _recognize(name, shapes)))
        except ValueError as error:
            reasons.append(f"{name}: {error}" if len(layouts) > 1 else str(error))
    return found


def _read_described(
    path: str, layout_name: str, arrays: Mapping[str, np.ndarray], description: Description
) -> WeightsFile:
    """A file whose metadata describe its network."""
    if layout_name not in ("", description.layout):
        raise UserError(f"{path}: not of layout '{layout_name}'; it says that it is of '{description.layout}'")
    try:
        layout = _recognize(description.layout, {name: array.shape for name, array in arrays.items()})
    except ValueError as error:
        raise UserError(f"{path}: says that it is of layout '{description.layout}', but {error}") from None
    layout = dataclasses.replace(layout, model=to_dict(description.config))
    return WeightsFile(arrays, description.layout, layout, description.info, inference=description.inference)


def _read_own(workdir: pathlib.Path) -> WeightsFile:
    """The best checkpoint of another run of this project, and its network's config."""
    variables = restore_variables(workdir)
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}
    layout = _recognize(OWN_LAYOUT, {name: array.shape for name, array in arrays.items()})
    path = workdir / CONFIG_FILE
    try:
        config = from_dict(hashable(json.loads(path.read_text())))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): config.model.pretrained.source wants a workdir") from None
    info = open_data.find_info(config, workdir)
    model = dataclasses.replace(
        config.model, num_classes=info.num_classes, task=info.task, pretrained=PretrainedConfig()
    )
    return WeightsFile(arrays, OWN_LAYOUT, dataclasses.replace(layout, model=to_dict(model)), info)


def _recognize(layout_name: str, shapes: ArrayShapes) -> WeightLayout:
    """The layout; a whole network of one output is a binary one, of which the background is the other class."""
    try:
        layout: WeightLayout = registry.resolve(_LAYOUTS, registry.entry(layout_name, "recognize"))(shapes)
    except IndexError:  # layouts index into shapes, of which a file may have any
        raise ValueError("an array has fewer axes than the layout's") from None
    num_outputs = layout.model.get("num_classes")
    if not num_outputs:
        return layout
    task = {"task": "binary", "num_classes": 2} if num_outputs == 1 else {"task": "multiclass"}
    return dataclasses.replace(layout, model={**layout.model, **task})
