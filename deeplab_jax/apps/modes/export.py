"""Writes a trained network as a file that runs without this project, and proves that it computes the same."""

from __future__ import annotations

import pathlib

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.export_check import find_check_images
from deeplab_jax.apps.assembly.exporting import find_format, write_program
from deeplab_jax.apps.request import CHECKPOINT, Flag, Needs, Request
from deeplab_jax.config import Config

FOLDER = "export"  # inside a workdir

FLAGS = (
    CHECKPOINT,
    Flag("format", "stablehlo", "modules of deeplab_jax/export/formats, separated by commas"),
    Flag("images", "", "to compare the file and the network on, as predict takes them; default: of the data set"),
    Flag("output", "", "folder of the results; default: WORKDIR/export"),
)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    flags = request.flags
    export(request.config, request.workdir, flags["checkpoint"], flags["format"], flags["images"], flags["output"])
    return 0


def export(
    config: Config, workdir: pathlib.Path, checkpoint: str, formats: str, images: str = "", output: str = ""
) -> None:
    """Writes the workdir's best checkpoint, or `checkpoint`, in each of `formats`, as `write_program` does.

    Args:
      config: the run's.
      workdir: of the run.
      checkpoint: path of another one; empty: the workdir's best.
      formats: names of modules of deeplab_jax/export/formats, separated by commas.
      images: to compare on, as `predict` takes them; empty: the first of the evaluation split.
      output: folder to write to; empty: the workdir's export/.

    Raises:
      UserError: as `write_program` does.
    """
    found = {name: find_format(name) for name in dict.fromkeys(formats.split(","))}
    info = open_data.find_info(config, workdir)
    folder = pathlib.Path(output).expanduser() if output else workdir / FOLDER
    samples = find_check_images(config, info, images)
    variables = network.load_variables(config, network.build(config, info), workdir, checkpoint)
    for name, file_format in found.items():
        path = folder / file_format.file_name
        print(f"{path}: {write_program(config, info, variables, name, path, samples)}")
