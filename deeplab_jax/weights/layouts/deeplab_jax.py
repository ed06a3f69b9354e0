"""This project's own checkpoints: names are paths already."""

from __future__ import annotations

from deeplab_jax.types import ArrayShapes, WeightLayout, WeightRule


def recognize(shapes: ArrayShapes) -> WeightLayout:
    """The layout of arrays named by our own paths; the model's settings are in the workdir's config.json.

    Raises:
      ValueError: when a name is not one of our paths.
    """
    for name in shapes:
        if not name.startswith(("params/", "batch_stats/")):
            raise ValueError(f"there is '{name}'")
    return WeightLayout(rules=(WeightRule("(.*)", "{1}", "copy"),), ignored=(), model={})
