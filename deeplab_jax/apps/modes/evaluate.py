"""Evaluates a checkpoint on whole images at their original size: scores.json, per_image.json and a table."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.devices import make_mesh
from deeplab_jax.apps.assembly.evaluation import score, write_evaluation
from deeplab_jax.apps.assembly.kept_threshold import keep_threshold
from deeplab_jax.apps.assembly.processes import explain_lost_process, join_processes
from deeplab_jax.apps.assembly.several_protocols import evaluate_protocols
from deeplab_jax.apps.pages.score_table import collapse_warning, format_table
from deeplab_jax.apps.request import CHECKPOINT, PROCESSES, Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.train.checkpoint import find_checkpoint

FLAGS = (
    CHECKPOINT,
    Flag("protocols", "", "names in deeplab_jax/inference/protocols.py, separated by commas, scored side by side"),
    *PROCESSES,
)
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    flags = request.flags
    join_processes(flags["coordinator"], flags["num_processes"], flags["process_id"], preemptible=False)
    if flags["protocols"]:
        evaluate_protocols(request.config, request.workdir, flags["checkpoint"], flags["protocols"])
    else:
        evaluate(request.config, request.workdir, flags["checkpoint"])
    return 0


@explain_lost_process()
def evaluate(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> dict[str, Any]:
    """Scores the workdir's best checkpoint, or `checkpoint`, on the evaluation split.

    Returns:
      The content of scores.json.

    Raises:
      UserError: if there is no checkpoint, or the workdir cannot be written.
    """
    dataset = open_data.open_normalized(config, workdir)
    mesh = make_mesh(config)
    model = network.build(config, dataset.info)
    path = find_checkpoint(pathlib.Path(checkpoint) if checkpoint else workdir)
    variables = network.load_variables(config, model, workdir, str(path), mesh)
    evaluation, seconds = score(config, model, dataset, mesh, variables)
    scores: dict[str, Any] = dict(evaluation.scores)
    if jax.process_index() == 0:
        scores = write_evaluation(workdir, evaluation, path)
        print(format_table(evaluation.scores))
        if found := evaluation.scores.get("best_threshold"):
            print(_keep(found, config, workdir, checkpoint))
        if warning := collapse_warning(evaluation.scores):
            print(f"warning: {warning}")
        print(
            f"{evaluation.num_images} images in {seconds:.1f} s ({evaluation.num_images / seconds:.1f} images/s, "
            f"compilation included); wrote {workdir / 'scores.json'}"
        )
    return scores


def _keep(found: Mapping[str, Any], config: Config, workdir: pathlib.Path, checkpoint: str) -> str:
    """Keeps the threshold for the workdir's best checkpoint; returns what becomes of it, in one line."""
    if checkpoint:
        return "the threshold is not kept: --checkpoint names other weights than the workdir's best"
    given = "; leave config.inference.threshold out to use it" if config.inference.threshold else ""
    return f"the threshold is kept in {keep_threshold(workdir, found)}, for all that predicts with this workdir{given}"
