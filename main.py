"""The command line: flags -> config -> one mode.

python main.py --config=configs/quickstart.py --workdir=DIR [--mode=MODE] [--config.model.output_stride=8 ...]
"""

from __future__ import annotations

import dataclasses
import difflib
import logging as stdlib_logging
import os
import pathlib
import sys
from collections.abc import Iterable

from absl import app, flags, logging
from ml_collections import config_flags

from deeplab_jax.config import Config
from deeplab_jax.hardware.allocator import restart_with_allocator
from deeplab_jax.types import UserError
from deeplab_jax.validation import doubts, validate

MODES = (
    "train", "evaluate", "predict", "import", "export", "serve", "crf-search", "report", "lint", "compile", "benchmark",
)  # fmt: skip

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file; --config.field=value overrides one field.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run: checkpoints, curves, scores, report.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "evaluate, predict, crf-search: another checkpoint than the best.")
_IMAGES = flags.DEFINE_string("images", "", "predict: a file, several (comma separated), a glob or a folder.")
_SOURCE = flags.DEFINE_string("source", "", "import: the file with someone else's weights.")
_LAYOUT = flags.DEFINE_string("layout", "", "import: whose names it uses, e.g. torchvision; default: recognised.")
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "predict, export: folder of the results; default: workdir/predictions, workdir/export. "
    "lint: new folder for converted masks.",
)
_FORMAT = flags.DEFINE_string(
    "format", "stablehlo", "export: modules of deeplab_jax/export/formats, separated by commas."
)
_PROTOCOLS = flags.DEFINE_string(
    "protocols", "", "evaluate: names in deeplab_jax/inference/protocols.py, separated by commas, scored side by side."
)
_SUBMISSION = flags.DEFINE_string(
    "submission", "", "predict: an archive for a benchmark's server instead: voc_comp5, voc_comp6 or cityscapes."
)
_COMPARE = flags.DEFINE_string(
    "compare",
    "",
    "report: two workdirs to put side by side, --compare DIR1 DIR2; needs neither --config nor --workdir.",
)
_PORT = flags.DEFINE_integer("port", 8080, "serve: where the page is; 0: any port that is free.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "compile: chips that need not be there, as v5e:4x4, v4:2x2x1, h100:8.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "train, evaluate in several processes: HOST:PORT of process 0; default: as the cluster says."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes there are; goes with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0; goes with --coordinator.")


def main(argv: list[str]) -> int:
    """Runs one mode; returns the exit status: 0 on success, 1 where lint finds errors, 2 on a user's mistake."""
    _quiet()
    try:
        rest = _parse(argv)
        workdir = pathlib.Path(_WORKDIR.value).expanduser().absolute()
        if _COMPARE.value:
            return _compare([_COMPARE.value, *rest], workdir if _WORKDIR.value else None)
        return _run(_MODE.value, _find_config(rest), workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _quiet() -> None:
    """What matters is raised; the talk of the libraries, and of their threads when a disk is full, would bury it."""
    logging.set_verbosity(logging.FATAL)
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    sys.unraisablehook = lambda _: None


def _parse(argv: list[str]) -> list[str]:
    """Reads the flags; whatever absl and ml_collections find wrong with them becomes a UserError. Returns the rest."""
    app.define_help_flags()
    flags.FLAGS.set_gnu_getopt(True)  # flags may follow what is none
    _check_overrides(argv)
    try:
        return flags.FLAGS(argv)[1:]
    except KeyError as error:
        raise UserError(f"no key {error} to override in the config: a new key goes into the config file") from error
    except (flags.Error, AttributeError, OSError, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _find_config(rest: list[str]) -> Config:
    """The config of the command line, which must have left no rest."""
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}': flags look like --name=value; see python main.py --help")
    if not flags.FLAGS["config"].present or not _WORKDIR.value:
        raise UserError("give --config and --workdir: python main.py --config=configs/quickstart.py --workdir=DIR")
    if not isinstance(_CONFIG.value, Config):
        raise UserError("--config: get_config() of the file must return a deeplab_jax.config.Config")
    return _CONFIG.value


def _check_overrides(argv: list[str]) -> None:
    """Raises UserError where a config file or an overridden field does not exist, with the near names."""
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        path = pathlib.Path(value.partition(":")[0])  # FILE, or FILE:ARGUMENT
        if name == "config" and not path.is_file():
            raise UserError(f"--config={value}: no such file{_near(str(path), map(str, path.parent.glob('*.py')))}")
        known: object = Config()
        for position, field in enumerate(parts := name.split(".")[1:] if name.startswith("config.") else []):
            if not dataclasses.is_dataclass(known):
                break  # the keys of a dictionary belong to the part they are for
            names = [each.name for each in dataclasses.fields(known)]
            if field not in names:
                place = ".".join(["config", *parts[:position]])
                raise UserError(f"--{name}: {place} has no field '{field}'{_near(field, names)}")
            known = getattr(known, field)


def _near(name: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _compare(directories: list[str], workdir: pathlib.Path | None) -> int:
    """Puts two workdirs side by side, in `workdir` or else in the second of them."""
    from deeplab_jax.apps.pages.comparison import compare

    if _MODE.value != "report":
        raise UserError(f"--compare: goes with --mode=report, not with --mode={_MODE.value}")
    paths = [pathlib.Path(each).expanduser().absolute() for name in directories for each in name.split(",")]
    _keep_compilations()
    compare(paths, workdir or paths[-1], _CONFIG.value.data if flags.FLAGS["config"].present else None)
    return 0


def _run(mode: str, config: Config, workdir: pathlib.Path) -> int:
    """Imports what the mode needs, and nothing before the flags are known to be good."""
    from deeplab_jax.apps import import_weights

    validate(config)
    if mode == "lint":
        from deeplab_jax.apps.modes.lint import lint

        return lint(config, workdir, _OUTPUT.value)
    if mode == "compile":
        from deeplab_jax.apps.modes.compile import compile_for

        compile_for(config, workdir, _TOPOLOGY.value)
        return 0
    _keep_compilations()
    if mode in ("train", "evaluate"):
        from deeplab_jax.apps.assembly.processes import join_processes

        who = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        join_processes(*who, preemptible=mode == "train")
    elif _COORDINATOR.value:
        raise UserError(f"--coordinator: mode {mode} runs in one process; only train and evaluate run in several")
    if mode == "import":
        import_weights.import_weights(config, workdir, _SOURCE.value, _LAYOUT.value)
        return 0
    config = import_weights.adopt_model(config, workdir, config_flags.get_override_values(flags.FLAGS["config"]))
    validate(config)
    for doubt in doubts(config) if mode != "report" else ():
        print(f"warning: {doubt}", file=sys.stderr)
    if mode == "train":
        from deeplab_jax.apps.modes.train import train

        return train(config, workdir)
    if mode == "evaluate" and _PROTOCOLS.value:
        from deeplab_jax.apps.assembly.several_protocols import evaluate_protocols

        evaluate_protocols(config, workdir, _CHECKPOINT.value, _PROTOCOLS.value)
    elif mode == "evaluate":
        from deeplab_jax.apps.modes.evaluate import evaluate

        evaluate(config, workdir, _CHECKPOINT.value)
    elif mode == "predict":
        from deeplab_jax.apps.modes.predict import predict

        predict(config, workdir, _CHECKPOINT.value, _IMAGES.value, _OUTPUT.value, _SUBMISSION.value)
    elif mode == "export":
        from deeplab_jax.apps.modes.export import export

        export(config, workdir, _CHECKPOINT.value, _FORMAT.value, _IMAGES.value, _OUTPUT.value)
    elif mode == "serve":
        from deeplab_jax.apps.modes.serve import serve

        serve(config, workdir, _CHECKPOINT.value, _PORT.value)
    elif mode == "crf-search":
        from deeplab_jax.apps.modes.crf_search import crf_search

        crf_search(config, workdir, _CHECKPOINT.value)
    elif mode == "report":
        from deeplab_jax.apps.pages.run_report import report

        report(config, workdir)
    elif mode == "benchmark":
        from deeplab_jax.apps.modes.benchmark import benchmark

        benchmark(config, workdir)
    return 0


def _keep_compilations() -> None:
    """Compiled programs survive the process; JAX_COMPILATION_CACHE_DIR says where, if set."""
    import jax

    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # the default, 1, leaves small ones out
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "deeplab_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


if __name__ == "__main__":
    restart_with_allocator()
    status = main(sys.argv)
    sys.stdout.flush()
    if status:
        os._exit(status)  # a save that failed leaves threads behind that would hold the process for five minutes
