"""The house's import rules, read off the syntax trees: arrows only point down."""

from __future__ import annotations

import ast
import collections
import pathlib
from collections.abc import Iterator

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
HOUSE = REPOSITORY / "deeplab_jax"
MODULES = sorted(path for path in HOUSE.rglob("*.py"))

# Part of the house -> parts that it may import, besides itself where it is named.
ALLOWED = {
    "types": set(),
    "files": {"types"},
    "palettes": set(),
    "registry": set(),
    "fields": {"types"},
    "canvas": {"types"},
    "config": {"data", "export", "inference", "losses", "models", "nn", "ops", "serving", "train"},  # their settings
    "validation": {"types", "canvas", "fields", "config", "registry", "losses"},  # the latter's settings
    "presets": {"types"},
    "ops": {"fields", "registry", "ops"},
    "nn": {"types", "fields", "ops", "nn"},
    "losses": {"types", "fields", "registry", "ops", "losses"},
    "metrics": {"types", "registry", "ops", "metrics"},
    "visualize": {"types", "palettes", "ops"},
    "backbones": {"types", "nn", "ops"},
    "heads": {"types", "nn", "ops"},
    "models": {"types", "fields", "registry", "nn", "ops", "models"},
    "data": {"types", "canvas", "fields", "files", "palettes", "registry", "data"},
    "weights": {"types", "presets", "weights"},
    "train": {"types", "fields", "files", "registry", "losses", "metrics", "ops", "train"},
    "hardware": {"types", "hardware"},
    "export": {"types", "canvas", "fields", "ops", "export"},
    "serving": {"types", "fields", "data", "visualize", "serving"},
    "inference": {"types", "canvas", "fields", "registry", "losses", "metrics", "ops", "inference"},
    "__init__": {"types", "registry", "config", "losses", "metrics", "ops", "model", "apps"},
    "__main__": {"hardware", "apps"},
    "model": {path.stem for path in HOUSE.iterdir()},
    "apps": {path.stem for path in HOUSE.iterdir()},
}
EXCEPTIONS = {
    ("heads/v3plus.py", "heads"),  # its encoder is v3's ASPP
    ("heads/auxiliary.py", "heads"),  # the same last layer
    ("heads/dpc.py", "heads"),  # likewise, and rates that are scaled as ASPP's
    ("heads/large_fov.py", "heads"),  # likewise
    ("heads/aspp_sum.py", "heads"),  # its branches are v1's connected layers
    ("heads/fcn.py", "heads"),  # likewise
}
# Longer than a page of the house should be -> why.
LONG_FILES: dict[str, str] = {}
MAX_LINES = 350


def relative(path: pathlib.Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def part_of(path: pathlib.Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> Iterator[str]:
    """Full names of all that a module imports, also within functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def house_imports(path: pathlib.Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("deeplab_jax.")}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_down(path):
    part = part_of(path)
    allowed = ALLOWED[part] | {name for file, name in EXCEPTIONS if file == relative(path)}
    assert house_imports(path) <= allowed


def test_the_door_and_its_rooms_open_without_importing():
    """What they offer is imported when it is asked for: at first they need the registry alone."""
    for name in ("__init__", "losses/__init__", "metrics/__init__", "ops/__init__"):
        house = [each for each in runtime_imports(HOUSE / f"{name}.py") if each.startswith("deeplab_jax")]
        assert house == ["deeplab_jax"], name
        assert "from deeplab_jax import registry\n" in (HOUSE / f"{name}.py").read_text()


def test_config_composes_settings_and_nothing_else():
    assert {name.rpartition(".")[0] for name in imports(HOUSE / "config.py") if name.startswith("deeplab_jax.")} == {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in MODULES if path.name == "settings.py"
    }


def test_settings_import_settings_and_the_ground_alone():
    for path in MODULES:
        if path.name == "settings.py":
            house = {name.rpartition(".")[0] for name in imports(path) if name.startswith("deeplab_jax.")}
            assert all(name.endswith((".canvas", ".fields", ".types", ".settings")) for name in house), relative(path)


def test_rules_name_every_part():
    assert {part_of(path) for path in MODULES} <= set(ALLOWED), "a new part needs its line in ALLOWED"


def test_a_forbidden_import_is_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from deeplab_jax.models import build\n    import deeplab_jax.apps.modes.train\n")
    assert house_imports(module) == {"models", "apps"}


def test_data_knows_no_jax():
    """Its workers must start in a second: neither jax nor what imports it, in any file of the NumPy world."""
    ground = ("data", "types", "canvas", "fields", "files", "palettes", "config", "registry")
    for path in MODULES:
        if part_of(path) not in ground and path.name != "settings.py":
            continue
        top_level = {name.split(".")[0] for name in runtime_imports(path)}
        assert not top_level & {"jax", "flax", "optax", "orbax", "clu"}, relative(path)


def runtime_imports(path: pathlib.Path) -> Iterator[str]:
    """As `imports`, without those under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_visualize_is_plain_numpy():
    assert not {name.split(".")[0] for name in imports(HOUSE / "visualize.py")} & {"jax", "flax"}


def test_only_resize_resizes():
    """`jax.image.resize` antialiases, and resizes channels if asked: ops/resize.py knows how not to."""
    for path in MODULES:
        if relative(path) != "ops/resize.py":
            attributes = {
                ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
            }
            assert not any(name.startswith("jax.image.") for name in attributes), relative(path)
            assert not any(name.startswith("jax.image") for name in imports(path)), relative(path)


def test_only_main_and_apps_import_apps():
    inside = {*(HOUSE / name for name in ("__init__.py", "__main__.py", "model.py")), *HOUSE.glob("apps/**/*.py")}
    for path in {*MODULES, *REPOSITORY.glob("configs/*.py")} - inside:
        assert "apps" not in house_imports(path), path.name


@pytest.mark.parametrize(
    "path",
    [*MODULES, *sorted(REPOSITORY.glob("configs/*.py")), REPOSITORY / "main.py"],
    ids=lambda path: path.relative_to(REPOSITORY).as_posix(),
)
def test_files_are_short_and_say_what_they_are(path):
    source = path.read_text()
    if not source:  # the mark of a package
        return
    assert ast.get_docstring(ast.parse(source)), "the first line says what the file is"
    num_lines = len(source.splitlines())
    assert num_lines <= MAX_LINES or str(path.relative_to(REPOSITORY)) in LONG_FILES, f"{num_lines} lines: split it"


def test_long_files_are_still_long():
    for name in LONG_FILES:
        assert len((REPOSITORY / name).read_text().splitlines()) > MAX_LINES


def test_nothing_is_called_utils():
    names = {part for path in MODULES for part in path.relative_to(HOUSE).with_suffix("").parts}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


# Folders whose files are called by what they are for, and file names that mean the same everywhere.
NAMED_BY_KIND = ("data/datasets", "weights/formats", "weights/layouts", "export/formats")
SAME_EVERYWHERE = {"__init__", "settings"}


def test_no_module_name_stands_twice():
    names = collections.Counter(
        path.stem for path in MODULES if path.stem not in SAME_EVERYWHERE and relative(path.parent) not in NAMED_BY_KIND
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_public_class_name_stands_twice():
    names = collections.Counter(
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []
