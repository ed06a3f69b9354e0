"""Parts found by name, and errors that name the near ones."""

from __future__ import annotations

import pytest

from deeplab_jax import registry


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
