"""The command line: flags -> config -> one mode.

python main.py --config=configs/quickstart.py --workdir=DIR [--mode=MODE] [--config.model.output_stride=8 ...]
"""

from __future__ import annotations

import os
import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from deeplab_jax.config import Config, validate
from deeplab_jax.types import UserError

MODES = ("train", "evaluate", "predict", "report")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file; --config.field=value overrides one field.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run: checkpoints, curves, scores, report.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "evaluate, predict: another checkpoint than the workdir's best.")
_IMAGES = flags.DEFINE_string("images", "", "predict: a file, several (comma separated), a glob or a folder.")
_OUTPUT = flags.DEFINE_string("output", "", "predict: folder of the results; default: workdir/predictions.")


def main(argv: list[str]) -> int:
    """Runs one mode; returns the exit status: 0 on success, 2 on a user's mistake."""
    logging.set_verbosity(logging.FATAL)  # what matters is raised; the libraries' talk would bury it
    try:
        config = _parse(argv)
        return _run(_MODE.value, config, pathlib.Path(_WORKDIR.value).expanduser().absolute())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parse(argv: list[str]) -> Config:
    """Reads the flags; whatever absl and ml_collections find wrong with them becomes a UserError."""
    try:
        rest = flags.FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(_one_line(error)) from error
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}': flags look like --name=value; see python main.py --help")
    for flag in (_CONFIG, _WORKDIR):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing: python main.py --config=configs/quickstart.py --workdir=DIR")
    if not isinstance(_CONFIG.value, Config):
        raise UserError("--config: get_config() of the file must return a deeplab_jax.config.Config")
    return _CONFIG.value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _run(mode: str, config: Config, workdir: pathlib.Path) -> int:
    """Imports what the mode needs, and nothing before the flags are known to be good."""
    from deeplab_jax.apps import assemble

    validate(config, assemble.check_part)
    _keep_compilations()
    if mode == "train":
        from deeplab_jax.apps.train import train

        return train(config, workdir)
    if mode == "evaluate":
        from deeplab_jax.apps.evaluate import evaluate

        evaluate(config, workdir, _CHECKPOINT.value)
    elif mode == "predict":
        from deeplab_jax.apps.predict import predict

        predict(config, workdir, _CHECKPOINT.value, _IMAGES.value, _OUTPUT.value)
    elif mode == "report":
        from deeplab_jax.apps.report import report

        report(config, workdir)
    return 0


def _keep_compilations() -> None:
    """Compiled programs survive the process; JAX_COMPILATION_CACHE_DIR says where, if set."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "deeplab_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
