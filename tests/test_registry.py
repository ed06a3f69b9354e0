"""Parts found by name, and errors that name the near ones."""

from __future__ import annotations

import sys

import pytest

from deeplab_jax import losses, metrics, ops, registry


def test_resolves_a_factory():
    factory = registry.resolve("backbones", "resnet.resnet50")
    assert registry.defaults(factory)["num_units"] == (3, 4, 6, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnett.resnet50", r"no module 'resnett' in deeplab_jax/backbones/; did you mean 'resnet'"),
        ("resnet.resnet5", r"no 'resnet5' in .*resnet\.py; did you mean .*'resnet50'"),
        ("resnet50", "must read 'module.factory'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_ones(name, words):
    with pytest.raises(ValueError, match=words):
        registry.resolve("backbones", name)


def test_a_wrong_argument_is_answered_with_the_near_ones():
    factory = registry.resolve("backbones", "resnet.resnet50")
    with pytest.raises(ValueError, match=r"takes no argument 'multigrid'; did you mean 'multi_grid'"):
        registry.check_arguments(factory, "resnet.resnet50", {"multigrid": (1, 2, 4)})


def test_factories_are_found_by_what_they_take():
    heads = registry.factories("heads", ("num_classes", "feature_info"))
    assert heads["v3plus"] == "v3plus.v3plus"
    assert heads["fcn8s"] == "fcn.fcn8s"
    assert not {"conv3x3", "connected_layers", "ASPPHead", "find_feature"} & set(heads)


def test_a_factory_imported_from_another_module_is_not_offered_twice():
    losses = registry.factories("losses", ("logits", "label", "class_weights"))
    assert losses["soft_tversky"] == "tversky.soft_tversky"  # which dice.py imports
    assert "tversky" not in losses  # the same function, as older configs spell it


def test_short_names_become_full_ones():
    assert registry.full_name("backbones", "resnet50", ("output_stride",)) == "resnet.resnet50"
    assert registry.full_name("backbones", "resnet.ResNet", ("output_stride",)) == "resnet.ResNet"
    with pytest.raises(ValueError, match=r"no 'resnt50' in deeplab_jax/backbones/; did you mean 'resnet50'"):
        registry.full_name("backbones", "resnt50", ("output_stride",))


@pytest.mark.parametrize("package", [losses, metrics, ops], ids=lambda package: package.__name__)
def test_every_public_name_of_a_package_is_there_and_a_wrong_one_is_answered(package):
    names = [name for name in dir(package) if not name.startswith("_")]
    assert names
    assert all(callable(getattr(package, name)) for name in names)
    with pytest.raises(AttributeError, match=f"no attribute '{names[0][:-1]}'; did you mean .*'{names[0]}'"):
        getattr(package, names[0][:-1])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder on Python's path with a package of someone else's."""
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("class Part:\n    def __init__(self, *, width=3): ...\n\ndef made(**rest): ...\n")
    (package / "broken.py").write_text("import os\n\nimport no_such_library\n")
    (package / "failing.py").write_text("\n\nraise RuntimeError('the disk\\nis full')\n")
    (package / "unreadable.py").write_text("def f(:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_package"]:
        del sys.modules[name]


def test_resolves_from_anywhere(elsewhere):
    part = registry.resolve("heads", "their_package.parts:Part")
    assert registry.defaults(part) == {"width": 3}
    registry.check_arguments(part, "their_package.parts:Part", {"width": 5})
    registry.check_arguments(registry.resolve("heads", "their_package.parts:made"), "made", {"anything": 1})
    assert registry.entry("their_package.data:open_mine", "open_dataset") == "their_package.data:open_mine"
    assert registry.entry("voc", "open_dataset") == "voc.open_dataset"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "their_pakage.parts:Part",
            r"^no module 'their_pakage' on Python's path .*; did you mean 'their_package'( or .*)?\?$",
        ),
        ("their_package.part:Part", r"^no module 'part' in their_package; did you mean 'parts'\?$"),
        ("their_package.parts:Prt", r"^no 'Prt' in .*their_package/parts\.py; did you mean 'Part'\?$"),
        (
            "their_package.broken:f",
            r"^cannot import 'their_package\.broken': .*broken\.py:3: ModuleNotFoundError: ",
        ),
        ("their_package.failing:f", r"^cannot import .*failing\.py:3: RuntimeError: the disk is full$"),
        ("their_package.unreadable:f", r"^cannot import .*unreadable\.py:1: SyntaxError: "),
        (":Part", "must read 'module.factory' .* or 'package.module:factory'"),
    ],
)
def test_what_is_wrong_elsewhere_is_said_in_one_line(elsewhere, name, words):
    with pytest.raises(ValueError, match=words):
        registry.resolve("heads", name)
    with pytest.raises(ValueError, match="'Part' takes no argument 'widht'; did you mean 'width'"):
        registry.check_arguments(registry.resolve("heads", "their_package.parts:Part"), "Part", {"widht": 1})
