"""The only import by string: 'module.factory' inside one package of the house.

Adding a part is adding a file: nothing is registered by hand.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        raise ValueError(f"no module '{module_name}' in {_folder(package)}{near(module_name, modules)}")
    module = importlib.import_module(f"{_ROOT}.{package}.{module_name}")
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"no '{factory_name}' in {_folder(package)}{module_name}.py{near(factory_name, public)}")
    return factory


def check_arguments(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError, with the nearest names, where `arguments` does not fit `function`."""
    accepted = inspect.signature(function).parameters
    for argument in arguments:
        if argument not in accepted:
            raise ValueError(f"'{name}' takes no argument '{argument}'{near(argument, accepted)}")


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each argument of `function` that has one."""
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def module_names(package: str) -> list[str]:
    """The modules of deeplab_jax.`package`."""
    parent = importlib.import_module(f"{_ROOT}.{package}")
    return [module.name for module in pkgutil.iter_modules(parent.__path__)]


def _is_its_own(value: Any, name: str, module_name: str) -> bool:
    """Whether the module made it: imported it is another's, and a function's second name is for older configs."""
    if inspect.isfunction(value) and value.__name__ != name:
        return False
    while isinstance(value, functools.partial):
        value = value.func
    return value.__module__.rpartition(".")[2] == module_name


def _folder(package: str) -> str:
    return f"{_ROOT}/{package.replace('.', '/')}/"


def factories(package: str, arguments: Iterable[str]) -> dict[str, str]:
    """Short name -> 'module.factory' of all that deeplab_jax.`package` offers as factories, sorted by name.

    Args:
      package: in which every module is looked through.
      arguments: which a callable must take to be one. Classes count by the name that configs use, in small letters.

    Raises:
      ValueError: where two modules offer the same name.
    """
    found: dict[str, str] = {}
    for module_name in module_names(package):
        for name, value in vars(importlib.import_module(f"{_ROOT}.{package}.{module_name}")).items():
            if name.startswith("_") or name != name.lower() or not callable(value):
                continue
            if _is_its_own(value, name, module_name) and set(arguments) <= set(inspect.signature(value).parameters):
                if name in found:
                    raise ValueError(f"{_folder(package)}: '{found[name]}' and '{module_name}.{name}' share a name")
                found[name] = f"{module_name}.{name}"
    return dict(sorted(found.items()))


def full_name(package: str, name: str, arguments: Iterable[str]) -> str:
    """'module.factory' for a short name of `factories`; what holds a dot or a colon is returned as it is.

    Raises:
      ValueError: where there is none; the message lists the nearest names.
    """
    if "." in name or ":" in name:
        return name
    known = factories(package, arguments)
    if name not in known:
        raise ValueError(f"no '{name}' in {_folder(package)}{near(name, known)}")
    return known[name]


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562) for names that are imported when they are first asked for.

    Args:
      package: its full name.
      names: module inside the package -> names that it has; '' -> modules and packages that are names themselves.
    """
    places = {name: f"{package}.{module}".rstrip(".") for module, group in names.items() for name in group}

    def find(name: str) -> Any:
        if name not in places:
            hint = "" if name.startswith("_") else near(name, places)
            raise AttributeError(f"module '{package}' has no attribute '{name}'{hint}")
        if places[name] == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted({*places, *(name for name in vars(sys.modules[package]) if name.startswith("__"))})


def near(name: str, candidates: Iterable[str]) -> str:
    """How a message about an unknown `name` goes on: with those it may have meant, or else with all there are."""
    candidates = sorted(candidates)
    close = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else f"; there are {', '.join(candidates)}"
