"""Exports a trained network: a file that runs without this project, or its weights, with our names or a peer's."""

from __future__ import annotations

import pathlib
import sys

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.export_check import find_check_images
from deeplab_jax.apps.assembly.exporting import find_format, write_program
from deeplab_jax.apps.assembly.model_card import NO_LICENSE
from deeplab_jax.apps.assembly.peer_network import writable_layouts
from deeplab_jax.apps.import_weights import WEIGHTS_FILE
from deeplab_jax.apps.network_files import Network, read_scores, write_network
from deeplab_jax.apps.request import CHECKPOINT, Flag, Needs, Request
from deeplab_jax.config import Config

FOLDER = "export"  # inside a workdir
_OWN_WEIGHTS = "safetensors"

FLAGS = (
    CHECKPOINT,
    Flag(
        "format",
        "stablehlo",
        "modules of deeplab_jax/export/formats; of the weights safetensors, torchvision, smp, timm; comma separated",
    ),
    Flag("images", "", "to compare the file and the network on, as predict takes them; default: of the data set"),
    Flag("output", "", "folder of the results; default: WORKDIR/export"),
    Flag("license", NO_LICENSE, "of the weights, for their model card, as hubs spell it, e.g. apache-2.0"),
)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    flags = request.flags
    places = {name: flags[name] for name in ("images", "output")}
    export(request.config, request.workdir, flags["checkpoint"], flags["format"], **places, license_id=flags["license"])
    return 0


def export(
    config: Config,
    workdir: pathlib.Path,
    checkpoint: str,
    formats: str,
    images: str = "",
    output: str = "",
    license_id: str = NO_LICENSE,
) -> None:
    """Writes the workdir's best checkpoint, or `checkpoint`, in each of `formats`.

    Programs are written by `write_program`, weights by `write_network`: 'safetensors' with our names, and the layouts
    that have a `peer`, each as a folder with a model card.

    Args:
      formats: names of modules of deeplab_jax/export/formats, or of weights; separated by commas.
      images: to compare on, as in `predict`; '': the first of the evaluation split.
      output: folder to write to; '': the workdir's export/.
      license_id: of the weights, for their model card.

    Raises:
      UserError: from `write_program` and `write_network`.
    """
    weights = {_OWN_WEIGHTS: "", **{layout: layout for layout in writable_layouts()}}
    names = dict.fromkeys(formats.split(","))
    found = {name: find_format(name) for name in names if name not in weights}
    info = open_data.find_info(config, workdir)
    folder = pathlib.Path(output).expanduser() if output else workdir / FOLDER
    variables = network.load_variables(config, network.build(config, info), workdir, checkpoint)
    scores = read_scores(workdir, checkpoint)
    if scores is None and (workdir / "scores.json").is_file() and set(names) & set(weights) - {_OWN_WEIGHTS}:
        print(
            "the model card quotes no scores: scores.json is not of this checkpoint (--mode=evaluate writes its own)",
            file=sys.stderr,
        )
    for name in [name for name in names if name in weights]:
        path = folder / (WEIGHTS_FILE if name == _OWN_WEIGHTS else name)
        trained = Network(
            config.model, info, dict(variables), scores=scores, license_id=license_id, inference=config.inference
        )
        for file in write_network(path, trained, layout=weights[name]):
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    samples = find_check_images(config, info, images) if found else {}
    for name, file_format in found.items():
        path = folder / file_format.file_name
        print(f"{path}: {write_program(config, info, variables, name, path, samples)}")
