"""The only import by string: 'module.factory' inside one package of the house.

Adding a part is adding a file: nothing is registered by hand.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_ROOT = __package__


def resolve(package: str, name: str) -> Callable[..., Any]:
    """Returns the callable `name` = 'module.factory' of deeplab_jax.`package`.

    Raises:
      ValueError: when the module or the factory does not exist; the message
        lists the nearest names.
    """
    module_name, _, factory_name = name.rpartition(".")
    if not module_name:
        raise ValueError(f"'{name}' must read 'module.factory' (in {_folder(package)})")
    modules = module_names(package)
    if module_name not in modules:
        raise ValueError(f"no module '{module_name}' in {_folder(package)}{_near(module_name, modules)}")
    module = importlib.import_module(f"{_ROOT}.{package}.{module_name}")
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"no '{factory_name}' in {_folder(package)}{module_name}.py{_near(factory_name, public)}")
    return factory


def check_arguments(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError, with the nearest names, where `arguments` does not fit `function`."""
    accepted = inspect.signature(function).parameters
    for argument in arguments:
        if argument not in accepted:
            raise ValueError(f"'{name}' takes no argument '{argument}'{_near(argument, accepted)}")


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each argument of `function` that has one."""
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def module_names(package: str) -> list[str]:
    """The modules of deeplab_jax.`package`."""
    parent = importlib.import_module(f"{_ROOT}.{package}")
    return [module.name for module in pkgutil.iter_modules(parent.__path__)]


def _folder(package: str) -> str:
    return f"{_ROOT}/{package.replace('.', '/')}/"


def _near(name: str, candidates: Iterable[str]) -> str:
    candidates = sorted(candidates)
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else f"; there are {', '.join(candidates)}"
