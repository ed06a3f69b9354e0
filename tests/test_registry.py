"""Parts found by name, and errors that name the near ones."""

from __future__ import annotations

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
