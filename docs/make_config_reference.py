"""Makes docs/config.md, a table of all settings, from the settings.py of the parts and the comments in them.

python docs/make_config_reference.py --output=docs/config.md
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pathlib
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from deeplab_jax.config import Config, PartConfig

_HEAD = """# All settings

Made by `python docs/make_config_reference.py --output=docs/config.md` from the `settings.py` of the parts. Each can be
set on the command line, `--config.inference.flip=true`; a value out of range is refused, with the range.
"""
_FIELD = re.compile(r"    (\w+): ")


def comments_of(settings: type) -> dict[str, str]:
    """What the source says of each field: the comment lines above it, and the comment behind it."""
    found: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for line in inspect.getsource(settings).splitlines():
        _, _, comment = line.partition("  # ")
        if line.strip().startswith("# "):
            above.append(line.strip().removeprefix("# "))
            continue
        if match := _FIELD.match(line):
            name = match[1]
            found[name] = " ".join(above)
            above = []
        elif not line.startswith("     ") and line != "    )":
            name, above = "", []
        if name and comment and not comment.startswith(("noqa", "type:")):
            found[name] = f"{found[name]} {comment.partition('  # ')[0]}".strip()
    return found


def rows_of(settings: Any, path: str) -> Iterator[str]:
    """A table of the fields of `settings`, then those of the settings in it."""
    cls = type(settings)
    module = cls.__module__.replace(".", "/")
    yield f"\n## {path}\n\n{first_line(cls)} [`{module}.py`](../{module}.py)\n"
    yield "| setting | default | valid | |\n|---|---|---|---|"
    nested: list[tuple[Any, str]] = []
    for each in dataclasses.fields(cls):
        value, text = getattr(settings, each.name), comments_of(cls)[each.name]
        if isinstance(value, PartConfig):
            yield f"| `{each.name}.name` | `{value.name!r}` | a part, by name | {escape(text)} |"
            yield f"| `{each.name}.args` | `{value.args!r}` | keyword arguments of its factory | |"
        elif dataclasses.is_dataclass(value):
            nested.append((value, f"{path}.{each.name}"))
        else:
            valid = each.metadata.get("words") or name_of(each.type)
            yield f"| `{each.name}` | `{value!r}` | {escape(valid)} | {escape(text)} |"
    for value, inside in nested:
        yield from rows_of(value, inside)


def first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def name_of(kind: Any) -> str:
    if origin := typing.get_origin(kind):
        return f"{origin.__name__} of {', '.join(name_of(each) for each in typing.get_args(kind) if each is not ...)}"
    return str(getattr(kind, "__name__", kind))


def escape(text: str) -> str:
    return text.replace("|", "\\|")


def reference() -> str:
    """The page."""
    return "\n".join([_HEAD.rstrip(), *rows_of(Config(), "config")]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.parse_args().output.write_text(reference())
