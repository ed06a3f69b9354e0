"""The only import by string: 'module.factory' inside a package of the project, 'package.module:factory' from anywhere.

Adding a part means adding a file: nothing is registered by hand. Parts outside the project are found as `import` finds
them, on Python's path, to which the command line adds the folder of the config file.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

_ROOT = __package__


def resolve(package: str, name: str) -> Callable[..., Any]:
    """The callable `name`: 'module.factory' of deeplab_jax.`package`, or 'package.module:factory' from anywhere.

    Raises:
      ValueError: if the module or factory does not exist, with similar names; if importing a module from outside the
        project fails, with its own message and the line.
    """
    outside = ":" in name
    module_name, _, factory_name = name.rpartition(":" if outside else ".")
    if not module_name:
        raise ValueError(f"'{name}' must read 'module.factory' (in {_folder(package)}) or 'package.module:factory'")
    if outside:
        module = _import_outside(module_name)
        place = module.__file__ or module_name
    else:
        modules = module_names(package)
        if module_name not in modules:
            raise ValueError(f"no module '{module_name}' in {_folder(package)}{near(module_name, modules)}")
        module = importlib.import_module(f"{_ROOT}.{package}.{module_name}")
        place = f"{_folder(package)}{module_name}.py"
    factory: Any = module
    for part in factory_name.split("."):
        factory = getattr(factory, part, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"no '{factory_name}' in {place}{near(factory_name, public)}")
    return factory


def entry(name: str, factory: str) -> str:
    """The argument of `resolve` for a part named by its module; names with a colon already include their factory."""
    return name if ":" in name else f"{name}.{factory}"


def split_argument(package: str, name: str, factory: str) -> tuple[str, str]:
    """('module.factory', argument) of 'module:argument', if that factory of deeplab_jax.`package` takes a `name`.

    Other names are as `entry` returns them, with the argument ''.
    """
    module, _, argument = name.partition(":")
    if argument and module in module_names(package):
        found = resolve(package, f"{module}.{factory}")
        if "name" in inspect.signature(found).parameters:
            return f"{module}.{factory}", argument
    return entry(name, factory), ""


def check_arguments(function: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError, with similar names, if `function` does not accept `arguments`."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
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
    """Whether the module defines it: not imported, nor a function's second name, which is kept for older configs."""
    if inspect.isfunction(value) and value.__name__ != name:
        return False
    while isinstance(value, functools.partial):
        value = value.func
    return value.__module__.rpartition(".")[2] == module_name


def _import_outside(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(_not_found(error.name)) from None
        raise ValueError(_failure(name, error)) from error
    except Exception as error:  # the module may raise anything
        raise ValueError(_failure(name, error)) from error


def _not_found(name: str) -> str:
    parent, _, last = name.rpartition(".")
    path = getattr(sys.modules[parent], "__path__", []) if parent else None
    known = sorted({module.name for module in pkgutil.iter_modules(path)})  # a name may stand in several folders
    close = difflib.get_close_matches(last, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(each) for each in close)}?" if close else ""
    place = f"in {parent}" if parent else "on Python's path or beside the file of --config"
    return f"no module '{last}' {place}{hint}"


def _failure(name: str, error: Exception) -> str:
    """The message for a module that cannot be imported, with the innermost line outside `importlib`."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f"{f.filename}:{f.lineno}" for f in reversed(frames) if "importlib" not in f.filename), name)
    return f"cannot import '{name}': {place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _folder(package: str) -> str:
    return f"{_ROOT}/{package.replace('.', '/')}/"


def factories(package: str, arguments: Iterable[str]) -> dict[str, str]:
    """Short name -> 'module.factory' of all factories in deeplab_jax.`package`, sorted by name.

    Args:
      package: all of its modules are searched.
      arguments: that a callable must accept to be a factory. Classes go by the lower-case name that configs use.

    Raises:
      ValueError: if two modules define the same name.
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
    """'module.factory' for a short name of `factories`; a name with a dot or colon is returned unchanged.

    Raises:
      ValueError: if there is none; the message lists similar names.
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
    """A package's `__getattr__` and `__dir__` (PEP 562) for names that are imported on first access.

    Args:
      package: its full name.
      names: module inside the package -> names it defines; '' -> submodules and subpackages themselves.
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
    """The end of a message about an unknown `name`: similar names, or else all of them."""
    candidates = sorted(candidates)
    if close := difflib.get_close_matches(name, candidates, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there are {', '.join(candidates)}"
