"""Prefixes of wrappers: which are taken off anywhere, and which may lead to a network."""

from __future__ import annotations

import pytest

from deeplab_jax.weights.prefixes import prefix_levels, roots, under, without_wrappers


@pytest.mark.parametrize(
    ("names", "renamed", "removed"),
    [
        (["a.w", "b.w"], ["a.w", "b.w"], ""),
        (["module.a.w", "module.b.w"], ["a.w", "b.w"], "module."),
        (["module.module.a.w"], ["a.w"], "module.module."),
        (["_orig_mod.module.a.w", "n_averaged"], ["a.w", "n_averaged"], "_orig_mod.module."),
        (["a._orig_mod.w", "_fsdp_wrapped_module.b.w"], ["a.w", "b.w"], "_orig_mod."),
        (["module.a.w", "a.w"], ["module.a.w", "a.w"], ""),  # which would become one
        (["submodule.a.w", "module_list.w"], ["submodule.a.w", "module_list.w"], ""),
    ],
)
def test_components_of_wrappers(names, renamed, removed):
    found, word = without_wrappers(dict.fromkeys(names, 0))
    assert (list(found), word) == (renamed, removed)


def test_levels_go_from_the_shortest_prefix_on():
    names = [f"model.net.layer{index}.w" for index in range(9)] + [f"ema/{index}" for index in range(9)] + ["loss.w"]
    assert list(prefix_levels(names)) == [("",), ("model.", "ema/"), ("model.net.",)]


def test_what_is_under_a_prefix_and_beside_it():
    assert under({"net.a": 1, "network.a": 2}, "net.") == {"a": 1}
    assert roots(["net.a", "net/b", "mean"]) == {"net": 2, "mean": 1}
