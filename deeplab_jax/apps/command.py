"""The command line: flags -> config -> one mode. The modes are the modules of apps/modes, each with its own flags."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging as stdlib_logging
import os
import pathlib
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from absl import flags, logging
from ml_collections import config_flags

from deeplab_jax import registry
from deeplab_jax.apps.find_config import load_config
from deeplab_jax.apps.request import Flag, Mode, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.files import write_whole
from deeplab_jax.types import UserError
from deeplab_jax.validation import parts_of, validate, warnings_for

CRASH_FILE = "crash.txt"  # inside a workdir
_MODES = "apps.modes"
_COMMON = (
    Flag("config", "", "a config of the project by name, or a file; default: that of the workdir's run"),
    Flag("workdir", "", "folder of the run: checkpoints, curves, scores, report"),
    Flag("mode", "train", "what to do"),
)


def main(argv: Sequence[str]) -> int:
    """Runs one mode.

    Returns:
      The exit status: 0 on success, 1 if lint finds errors or on an unexpected error, 2 on a user's mistake, 130 on
      SIGINT, 141 if the output pipe is closed.
    """
    _quiet()
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow other arguments
    try:
        return _run(argv, values)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, e.g. `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        place = _keep_traceback(values)
        print(f"error: {type(error).__name__}: {textwrap.shorten(str(error), 400)}; {place}", file=sys.stderr)
        return 1


def mode_names() -> list[str]:
    """The modes, as the command line spells them."""
    return [_spelled(module) for module in registry.module_names(_MODES)]


def find_mode(name: str) -> Mode:
    """The module of a mode; importing it takes seconds."""
    (module,) = (module for module in registry.module_names(_MODES) if _spelled(module) == name)
    return cast(Mode, importlib.import_module(f"deeplab_jax.{_MODES}.{module}"))


def help_text(command: str) -> str:
    """The usage line, and the modes with their flags."""
    lines = [f"{command} --config=NAME-OR-FILE --workdir=DIR [--mode=MODE] [--config.FIELD=VALUE ...]", ""]
    lines += [*_describe(_COMMON), "", "modes:"]
    for name in mode_names():
        mode = find_mode(name)
        lines += ["", f"{name}: {(mode.__doc__ or '').splitlines()[0]}", *_describe(mode.FLAGS)]
    return "\n".join(lines)


def _run(argv: Sequence[str], values: flags.FlagValues) -> int:
    _define(_COMMON, values)
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    with _mistakes():
        rest = values(argv, known_only=True)
    if values["help"].value:
        command = pathlib.Path(argv[0]).name
        command = {"main.py": "python main.py", "__main__.py": "python -m deeplab_jax"}.get(command, command)
        sys.stdout.write(help_text(command) + "\n")
        return 0
    name, given = str(values["mode"].value), frozenset(flag.name for flag in _COMMON if values[flag.name].value)
    if name not in mode_names():
        raise UserError(f"--mode={name}: no such mode{registry.near(name, mode_names())}")
    workdir = pathlib.Path(str(values["workdir"].value)).expanduser().absolute()
    config, overrides = _find_config(values, workdir), dict[str, Any]()
    if config is not None:
        config, overrides, rest = _override(config, values, rest)
        validate(config)  # before the mode is imported, which takes longer
    mode = find_mode(name)
    own = _parse(name, mode, values, rest)
    if config is None or "workdir" not in given:
        if not any(flag.suffices and own[flag.name] for flag in mode.FLAGS):
            raise UserError("give --config and --workdir, or the --workdir of a run; --help says more")
    else:
        adopted = None if "config" not in given else overrides
        config = _prepare(config, workdir, mode.NEEDS, own.get("checkpoint", ""), adopted)
    _keep_compilations()
    return mode.run(Request(config or Config(), workdir, own, given, frozenset(overrides)))


def _find_config(values: flags.FlagValues, workdir: pathlib.Path) -> Config | None:
    """The config of --config, else that of the workdir's run; None if there is neither."""
    if values["config"].value:
        return load_config(values["config"].value)
    if not values["workdir"].value:
        return None
    from deeplab_jax.apps.assembly.trained import read_config

    config = read_config(workdir)
    if config is not None:
        print(f"config: {workdir / 'config.json'}", file=sys.stderr)
    return config


def _override(
    config: Config, values: flags.FlagValues, arguments: Sequence[str]
) -> tuple[Config, dict[str, Any], list[str]]:
    """(config with the --config.FIELD=VALUE overrides, the overrides by dotted path, remaining arguments)."""
    _check_fields(config, arguments)
    _admit_arguments(config, arguments)
    delattr(values, "config")
    with _mistakes():
        holder = config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=list(arguments))
        rest = values(arguments, known_only=True)
    return holder.value, config_flags.get_override_values(values["config"]), rest


def _check_fields(config: Config, arguments: Sequence[str]) -> None:
    """Raises UserError, with similar names, if an overridden field does not exist."""
    for argument in arguments[1:]:
        name = argument.lstrip("-").partition("=")[0]
        known: object = config
        for position, field in enumerate(parts := name.split(".")[1:] if name.startswith("config.") else []):
            if not dataclasses.is_dataclass(known):
                break  # keys of a dictionary are checked with the part that they are for
            names = [each.name for each in dataclasses.fields(known)]
            if field not in names:
                place = ".".join(["config", *parts[:position]])
                raise UserError(f"--{name}: {place} has no field '{field}'{registry.near(field, names)}")
            known = getattr(known, field)


def _admit_arguments(config: Config, arguments: Sequence[str]) -> None:
    """Adds the defaults of arguments that the command line sets and the config does not: absl needs a type."""
    given = {
        name.lstrip("-").removeprefix("config."): value for name, _, value in (a.partition("=") for a in arguments)
    }
    for path, package, part in parts_of(config):
        for name in given:
            holder, _, key = name.rpartition(".args.")
            if holder != path or key in part.args:
                continue
            chosen = given.get(f"{path}.name", part.name)
            with _mistakes():
                factory = registry.resolve(package, chosen)
                registry.check_arguments(factory, chosen, {key: None})
            if (default := registry.defaults(factory).get(key)) is not None:
                part.args[key] = default


def _parse(mode_name: str, mode: Mode, values: flags.FlagValues, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the mode's own flags.

    Raises:
      UserError: for a flag of other modes, naming them, and for arguments that belong to no flag.
    """
    _define(mode.FLAGS, values)
    try:
        with _mistakes():
            _, *words = values(arguments)
    except flags.UnrecognizedFlagError as error:
        readers = [name for name in mode_names() if error.flagname in {flag.name for flag in find_mode(name).FLAGS}]
        if readers:
            modes = " or ".join(readers)
            raise UserError(f"--{error.flagname}: goes with --mode={modes}, not with --mode={mode_name}") from None
        raise UserError(" ".join(str(error).split())) from None
    found = {flag.name: values[flag.name].value for flag in mode.FLAGS}
    for value in found.values():
        if isinstance(value, list) and value:  # --compare DIR1 DIR2
            value += words
            words = []
    if words:
        raise UserError(f"unexpected argument '{words[0]}': flags look like --name=value; see --help")
    return found


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    """Turns errors of absl and ml_collections about flags into UserError."""
    try:
        yield
    except flags.UnrecognizedFlagError:
        raise
    except KeyError as error:
        raise UserError(f"no key {error} to override in the config: a new key goes into the config file") from error
    except (flags.Error, AttributeError, OSError, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _define(own: Iterable[Flag], values: flags.FlagValues) -> None:
    """Defines flags in absl, each with the type of its default."""
    for flag in own:
        if isinstance(flag.default, int):
            flags.DEFINE_integer(flag.name, flag.default, flag.help, flag_values=values)
        elif isinstance(flag.default, tuple):
            flags.DEFINE_list(flag.name, list(flag.default), flag.help, flag_values=values)
        else:
            flags.DEFINE_string(flag.name, flag.default, flag.help, flag_values=values)


def _prepare(
    config: Config, workdir: pathlib.Path, needs: Needs, checkpoint: str, overrides: Mapping[str, Any] | None
) -> Config:
    """The config with the network of the workdir, as far as the mode needs it.

    Args:
      checkpoint: whose weights are used; '': the workdir's.
      overrides: settings from the command line, by dotted path; None if the config is the workdir's own.
    """
    if needs < Needs.NETWORK:
        return config
    from deeplab_jax.apps.assembly.kept_threshold import with_kept_threshold
    from deeplab_jax.apps.assembly.trained import check_trained
    from deeplab_jax.apps.import_weights import adopt_model

    notes = []
    if overrides is not None:
        given, config = config, adopt_model(config, workdir, overrides)
        if config.model != given.model:
            notes.append(f"config.model is that of the network imported into {workdir}, not the config file's")
    validate(config)
    if needs >= Needs.WEIGHTS:
        notes += check_trained(config, workdir, checkpoint)
        if not checkpoint:
            config, said = with_kept_threshold(config, workdir)
            notes += [said] if said else []
    for line in (*notes, *(f"warning: {warning}" for warning in warnings_for(config, training=needs < Needs.WEIGHTS))):
        print(line, file=sys.stderr)
    return config


def _keep_compilations() -> None:
    """Enables JAX's persistent compilation cache; JAX_COMPILATION_CACHE_DIR overrides its folder."""
    import jax

    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # the default, 1, skips small programs
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path.home() / ".cache" / "deeplab_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def _quiet() -> None:
    """Silences the libraries, and their threads on a full disk: they would bury the error, which is raised anyway."""
    logging.set_verbosity(logging.FATAL)
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: the name of a file need not be text


def _keep_traceback(values: flags.FlagValues) -> str:
    """Writes the current traceback to the workdir, or prints it; returns where it is."""
    text = traceback.format_exc()
    if (name := values["workdir"].value) and (workdir := pathlib.Path(name).expanduser().absolute()).is_dir():
        with contextlib.suppress(UserError):
            write_whole(workdir / CRASH_FILE, text)
            return f"the traceback is in {workdir / CRASH_FILE}"
    print(text, file=sys.stderr)
    return "the traceback is above"


def _spelled(module: str) -> str:
    return module.strip("_").replace("_", "-")


def _describe(own: Iterable[Flag]) -> Iterator[str]:
    for flag in own:
        default = f" [{flag.default}]" if flag.default not in ("", 0, -1, ()) else ""
        yield f"    --{flag.name:14} {flag.help}{default}"
