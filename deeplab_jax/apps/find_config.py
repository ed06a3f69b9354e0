"""Loads configs by name or path: the project's own, in a clone or a wheel, and the user's files."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType

from deeplab_jax.config import Config
from deeplab_jax.registry import near
from deeplab_jax.types import UserError

_HOUSE = pathlib.Path(__file__).resolve().parent.parent
# A wheel has the folder inside the package, a clone beside it.
FOLDER = next(path for path in (_HOUSE / "configs", _HOUSE.parent / "configs") if (path / "__init__.py").is_file())
_PACKAGE = "configs"  # the name by which config files import each other


def load_config(name_or_path: str) -> Config:
    """Loads a config.

    Args:
      name_or_path: one of the project's own, e.g. 'v3plus_voc', or the path of a file with `get_config() -> Config`;
        with ':ARGUMENT' appended, `get_config` is called with that argument.

    Raises:
      UserError: if there is no such config, or its file fails.
    """
    place, *argument = name_or_path.split(":", 1)
    path = _find(name_or_path, pathlib.Path(place).expanduser())
    with _own_configs():
        try:
            config = _load_module(path).get_config(*argument)
        except UserError:
            raise
        except Exception as error:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            place = f"{path}:{lines[-1]}" if lines else str(path)
            raise UserError(f"--config={name_or_path}: {place}: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(config, Config):
        raise UserError("--config: get_config() of the file must return a deeplab_jax.config.Config")
    return config


def config_names() -> list[str]:
    """Names of the project's own configs."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


def _find(name: str, path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path.resolve()
    if path.parent == pathlib.Path() and path.name.removesuffix(".py") in config_names():
        return FOLDER / f"{path.name.removesuffix('.py')}.py"
    known = [*map(str, path.parent.glob("*.py")), *config_names()]
    raise UserError(f"--config={name}: no such file{near(str(path), known)}")


def _load_module(path: pathlib.Path) -> ModuleType:
    if path.parent == FOLDER:
        return importlib.import_module(f"{_PACKAGE}.{path.stem}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the user's own parts may lie next to their config
    name = f"config_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: not a Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _own_configs() -> Iterator[None]:
    """Makes `import configs` find the project's folder; restores another package of that name afterwards."""
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _PACKAGE}
    if known and str(FOLDER) in map(str, getattr(known.get(_PACKAGE), "__path__", ())):
        yield
        return
    for name in known:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[_PACKAGE] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    try:
        yield
    finally:
        if known:
            for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
                del sys.modules[name]
            sys.modules.update(known)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
