"""What `import deeplab_jax` offers beside networks: to train, score and export them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from typing import Any

from deeplab_jax import registry
from deeplab_jax.apps.assembly.export_check import made_up_images
from deeplab_jax.apps.assembly.exporting import FORMATS, write_program
from deeplab_jax.apps.assembly.kept_threshold import with_kept_threshold
from deeplab_jax.apps.find_config import load_config
from deeplab_jax.apps.import_weights import adopt_model
from deeplab_jax.apps.listing import list_layouts
from deeplab_jax.apps.modes import evaluate as evaluating
from deeplab_jax.apps.modes import train as training
from deeplab_jax.config import Config
from deeplab_jax.model import Model, load
from deeplab_jax.types import UserError
from deeplab_jax.validation import validate

_OWN_FILE = "safetensors"  # a format of export that is a way of saving


def train(config: Config | str | os.PathLike[str], workdir: str | os.PathLike[str]) -> Model:
    """Trains, evaluates and checkpoints, as `--mode=train` does; on the same workdir it goes on where it stopped.

    Args:
      config: a config, the name of one of the project's own ('v3plus_voc'), or the path of a config's file.
      workdir: the folder of the run: checkpoints, curves, scores, report.

    Returns:
      The best checkpoint, as `load(workdir)` gives it.

    Raises:
      UserError: for a config or data that cannot work, and a workdir that holds another run.
      KeyboardInterrupt: after Ctrl-C, when the last step is saved.

    Example (`config` is one of two steps):
      >>> import deeplab_jax as dl
      >>> model = dl.train(config, workdir)  # doctest: +ELLIPSIS
      data set ...
      >>> model.classes
      ('dark', 'bright')
    """
    config, folder = _opened(config, workdir)
    if training.train(config, folder):
        raise KeyboardInterrupt
    return load(folder)


def evaluate(config: Config | str | os.PathLike[str], workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Scores the workdir's best checkpoint on the evaluation split, as `--mode=evaluate` does.

    Args:
      config: as for `train`.
      workdir: of the run; scores.json and per_image.json are written there.

    Returns:
      What scores.json has: 'mean_iou', 'iou_per_class', 'pixel_accuracy', 'confusion', 'protocol', ...

    Raises:
      UserError: where there is no checkpoint, or the data cannot be read.

    Example (`workdir` is the one that `train` filled):
      >>> import deeplab_jax as dl
      >>> scores = dl.evaluate(config, workdir)  # doctest: +ELLIPSIS
      class ...
      >>> sorted(scores["iou_per_class"])
      ['bright', 'dark']
    """
    config, folder = _opened(config, workdir)
    config, said = with_kept_threshold(config, folder)
    if said:
        print(said, file=sys.stderr)
    return evaluating.evaluate(config, folder)


def export(model: Model, file_format: str, path: str | os.PathLike[str], **settings: Any) -> pathlib.Path:
    """Writes a network as a file that runs without this project, or with another system's names.

    Programs are read back and compared with the network, on rendered scenes, before they are kept; a .json beside the
    file says what its users must know.

    Args:
      model: to write.
      file_format: a program's ('stablehlo', 'onnx', 'saved_model', 'tflite'); or 'safetensors', or a layout of
        `list_layouts()`, which `Model.save` writes.
      path: of the file.
      **settings: of `config.export`, for programs: `outputs`, and the `size` at which they compute.

    Raises:
      ValueError: for a format or a setting that does not exist.
      UserError: where a package is missing, or the format cannot hold the network.

    Example:
      >>> import tempfile
      >>> import deeplab_jax as dl
      >>> small = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
      >>> model = dl.create("v3plus", backbone="mobilenet_v2", num_classes=3, head_args=small)
      >>> dl.export(model, "safetensors", tempfile.mkdtemp() + "/model.safetensors").name
      'model.safetensors'
    """
    programs, saved = registry.module_names(FORMATS), (_OWN_FILE, *list_layouts())
    if file_format not in (*programs, *saved):
        raise ValueError(f"no format '{file_format}'{registry.near(file_format, (*programs, *saved))}")
    if file_format not in programs:
        return model.save(path, layout="" if file_format == _OWN_FILE else file_format)[0]
    known = [field.name for field in dataclasses.fields(model.config.export)]
    for name in settings:
        if name not in known:
            raise ValueError(f"no export setting '{name}'{registry.near(name, known)}")
    config = dataclasses.replace(model.config, export=dataclasses.replace(model.config.export, **settings))
    try:
        validate(config)
    except UserError as error:
        raise ValueError(str(error)) from None
    target = pathlib.Path(path).expanduser()
    write_program(config, model.info, model.variables, file_format, target, made_up_images(model.info))
    return target


def _opened(config: Config | str | os.PathLike[str], workdir: str | os.PathLike[str]) -> tuple[Config, pathlib.Path]:
    """The config, of the network that the workdir holds where it was imported, and the folder."""
    folder = pathlib.Path(workdir).expanduser().absolute()
    given = config if isinstance(config, Config) else load_config(str(config))
    adopted = adopt_model(given, folder, {})
    validate(adopted)
    return adopted, folder
