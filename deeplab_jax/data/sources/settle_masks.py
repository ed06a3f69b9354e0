"""Decides what a folder's masks mean, from its classes file and the masks themselves: task, classes and legend.

What 255 stands for cannot be told from one mask: it is the usual ignore label, and the usual value of the object in
binary masks. With 0 and 255 alone in the masks of two classes it is the object; beside 1 it is ignored. What remains
open is refused.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deeplab_jax.data.sources.class_files import Classes
from deeplab_jax.data.sources.legend import MISSING, TRUE, Legend, color_code, name_of
from deeplab_jax.data.sources.mask_declaration import IGNORED, MaskDeclaration, meaning_of
from deeplab_jax.data.sources.mask_survey import MaskSurvey, survey_masks
from deeplab_jax.data.sources.samples import ReadCodes, Sample
from deeplab_jax.types import UserError

_BACKGROUND, _OBJECT = "background", "object"
_WHITE = 255
_MAX_SPELLED = 12  # classes in a proposed map


class SettledMasks(NamedTuple):
    """What a folder's masks mean."""

    classes: Classes
    task: str
    legend: Legend
    notes: tuple[str, ...]
    read_codes: ReadCodes | None = None  # None: a mask is a file of one value at each pixel


def settle_masks(
    folder: pathlib.Path, classes: Classes, told: MaskDeclaration, splits: Mapping[str, Sequence[Sample]]
) -> SettledMasks:
    """Task, classes and legend of a folder of masks with one value at each pixel.

    Args:
      classes: as declared; without names if there is no classes file.
      told: what else is declared.

    Raises:
      UserError: if the masks can be understood in several ways, or contradict the declaration.
    """
    if told.task == "binary" and len(classes.names) > 2:
        raise UserError(
            f'{folder}: has {len(classes.names)} classes and "task": "binary", which is one object and its background; '
            "name these two, or leave the task out"
        )
    single = len(classes.names) < 2
    if single and told.task == "multiclass":
        raise UserError(
            f'{folder}: has the class {", ".join(classes.names)} alone, which as "multiclass" every pixel would '
            'be: name the background too, before it, or write "task": "binary" into classes.json'
        )
    classes = _with_background(classes) if single else classes
    if told.values is not None or told.threshold is not None:
        return _as_told(classes, told, single)
    survey = survey_masks(splits, lambda seen: _is_settled(seen, len(classes.names)), page=told.page)
    reading = _read_two(folder, classes, told, survey, single) if len(classes.names) == 2 else _Reading(told.task)
    legend = _legend(classes, told, reading.object_value)
    legend = dataclasses.replace(legend, hint=_hint(classes, legend, survey))
    return SettledMasks(classes, reading.task or "multiclass", legend, (*reading.notes, *_notes_on_form(survey)))


class _Reading(NamedTuple):
    task: str
    object_value: int = 1  # the value of the second class
    notes: tuple[str, ...] = ()


def _read_two(
    folder: pathlib.Path, classes: Classes, told: MaskDeclaration, survey: MaskSurvey, single: bool
) -> _Reading:
    """How the masks of a background and an object, or of any two classes, tell one from the other."""
    name, values = classes.names[1], survey.values
    task = told.task or ("binary" if single else "")
    if told.has_palette and survey.kinds["colors"]:
        return _Reading(task, 1, (f"binary: the colour of '{name}'",) if task == "binary" and not told.task else ())
    if single and not values <= {0, 1, _WHITE, TRUE, classes.ignore_label}:
        raise UserError(_strange_values(folder, classes, survey))
    if single and not told.task and not values & {1, _WHITE, TRUE}:
        raise UserError(
            f"{folder}: its masks hold nothing but {_listed(values) or 'no value'} ({survey.where}), so '{name}' "
            "cannot be told from the background; check that they were labelled"
        )
    if 1 in values and _WHITE in values and not told.has_ignore and not survey.together(1, _WHITE):
        raise UserError(
            f"{folder}: some masks hold 0 and 1, others 0 and 255, none both 1 and 255: write into classes.json "
            f'"values": {{"0": "{classes.names[0]}", "1": "{name}", "255": "{name}"}} if 255 is \'{name}\' there, or '
            '"ignore_label": 255 if it is to be ignored'
        )
    ignores_white = classes.ignore_label == _WHITE and (1 in values or told.has_ignore)
    if _WHITE in values and not ignores_white and values <= {0, _WHITE, TRUE, classes.ignore_label}:
        if told.task == "multiclass":
            raise UserError(
                f"{folder}: its masks hold {_listed(values)} alone ({survey.where}), and classes.json two classes and "
                f'"task": "multiclass": write "values": {{"0": "{classes.names[0]}", "255": "{name}"}} if 255 is '
                f"'{name}', or \"ignore_label\": 255 if it is to be ignored"
            )
        return _Reading("binary", _WHITE, (f"binary: {_listed(values)} {survey.where}; 255 is '{name}'",))
    if TRUE in values and 1 not in values and not told.task:
        return _Reading("binary", 1, (f"binary: masks of one bit; those set are '{name}'",))
    if task == "binary" and not told.task:
        ignored = "; 255 is ignored" if _WHITE in values else ""
        return _Reading("binary", 1, (f"binary: {_listed(values)} {survey.where}; 1 is '{name}'{ignored}",))
    if ignores_white and _WHITE in values and not told.has_ignore:
        return _Reading(task, 1, (f"255 is ignored: the masks hold it beside the class ids {_listed(values - {255})}",))
    return _Reading(task)


def _as_told(classes: Classes, told: MaskDeclaration, single: bool) -> SettledMasks:
    """Masks whose values are declared one by one, or which are soft."""
    task = told.task or ("binary" if single or told.threshold is not None else "multiclass")
    if told.threshold is not None and len(classes.names) != 2:
        raise UserError(
            f'classes.json: has "threshold", which tells one object from its background, and {len(classes.names)} '
            "classes; leave it out"
        )
    if told.values is None:
        return SettledMasks(classes, task, _legend(classes, told, 1), ())
    meaning = meaning_of(told.values, classes.names, classes.ignore_label)
    meaning[MISSING] = classes.ignore_label
    if len(classes.names) == 2 and 1 in meaning.values():
        meaning.setdefault(TRUE, 1)
    hint = 'add it to "values" in classes.json, or correct the mask'
    return SettledMasks(
        classes,
        task,
        dataclasses.replace(_legend(classes, told, 1), meaning=meaning, hint=hint, ignore_is_assumed=False),
        (),
    )


def _legend(classes: Classes, told: MaskDeclaration, object_value: int) -> Legend:
    """The legend of class ids (of two classes: 0 and `object_value`), and of the classes' colours if they are given."""
    num_classes, ignore_label = len(classes.names), classes.ignore_label
    if num_classes == 2:
        meaning = {0: 0, object_value: 1, TRUE: 1}
    else:
        meaning = {class_id: class_id for class_id in range(num_classes)}
    colors = {color_code(color): class_id for class_id, color in enumerate(classes.palette)}
    meaning |= {MISSING: ignore_label}
    meaning.setdefault(ignore_label, ignore_label)
    if told.has_palette or told.by_color:
        meaning |= colors
    return Legend(meaning, ignore_label, told.threshold, told.by_color, colors, not told.has_ignore, told.page)


def _with_background(classes: Classes) -> Classes:
    """The class of one object, and what is not that object before it."""
    name = classes.names[0] if classes.names else _OBJECT
    color = classes.palette[0] if classes.has_palette else (128, 0, 0)
    ground = (0, 0, 0) if color != (0, 0, 0) else (255, 255, 255)
    background = _BACKGROUND if name != _BACKGROUND else "not " + _BACKGROUND
    return classes._replace(names=(background, name), palette=(ground, color))


def _is_settled(survey: MaskSurvey, num_classes: int) -> bool:
    """Whether the masks look like class ids, whatever the others hold."""
    values = survey.values
    if num_classes == 2:
        return survey.together(1, _WHITE)
    return bool(values & set(range(1, num_classes))) and values <= {*range(num_classes), _WHITE}


def _notes_on_form(survey: MaskSurvey) -> tuple[str, ...]:
    if not survey.kinds["alpha"]:
        return ()
    example, count = survey.examples["alpha"].name, survey.kinds["alpha"]
    return (
        f"{count} of {len(survey.codes)} masks are read from their alpha channel, all else in them is blank: {example}",
    )


def _hint(classes: Classes, legend: Legend, survey: MaskSurvey) -> str:
    """The remedy for values that are no class, if a pattern shows; it is shown only with such values."""
    if not survey.values - set(legend.meaning):
        return legend.hint
    values = sorted(value for value in survey.values if value < TRUE)
    if any(value not in range(0x10000) for value in values):
        return 'give each class its colour: "palette": [[r, g, b], ...] in classes.json, or correct the mask'
    names, ignore_label = classes.names, classes.ignore_label
    without = [value for value in values if value != ignore_label]
    if len(values) == len(names):
        return f"if these are the classes in order, {_proposal(dict(zip(values, names, strict=True)), names)}"
    if len(without) == len(names):
        proposed = {**dict(zip(without, names, strict=True)), ignore_label: IGNORED}
        return f"if these are the classes in order, {_proposal(proposed, names)}"
    if without and without[-1] == len(names) and set(without) <= set(range(len(names) + 1)):
        proposed = {0: IGNORED, **{class_id + 1: name for class_id, name in enumerate(names)}}
        return (
            f"if ids start at 1 and 0 is unlabelled, {_proposal(proposed, names)}; if 0 is a class too, name it first"
        )
    return legend.hint


def _proposal(values: Mapping[int, str], names: Sequence[str]) -> str:
    if len(names) > _MAX_SPELLED:
        parts = [f'"{value}": {json.dumps(meant)}' for value, meant in values.items()]
        return f'write "values": {{{", ".join(parts[:2])}, ..., {parts[-1]}}} into classes.json'
    content = {"class_names": list(names), "values": {str(value): meant for value, meant in values.items()}}
    return f"write classes.json: {json.dumps(content)}"


def _strange_values(folder: pathlib.Path, classes: Classes, survey: MaskSurvey) -> str:
    return (
        f"{folder}: its masks hold {_listed(survey.values)} ({survey.where}): more than an object and its background; "
        "write the class names, in the order of their ids, into classes.txt, or what each value means into "
        f'classes.json: {{"class_names": [...], "values": {{"0": "{classes.names[0]}", ...}}}}'
    )


def _listed(values: frozenset[int]) -> str:
    words = [name_of(value) for value in sorted(values)]
    words = [*words[:8], f"{len(words) - 8} more"] if len(words) > 9 else words
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
