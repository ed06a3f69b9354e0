"""Cohen's kappa: agreement of truth and prediction beyond what their shares of the pixels would give by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from deeplab_jax.metrics.confusion import over


def cohen_kappa(confusion: Int[np.ndarray, "c c"]) -> float | None:
    """Kappa of a confusion matrix; None where chance alone agrees everywhere, as with one class.

        κ = (p_o - p_e) / (1 - p_e),   p_o = Σ n_ii / n,   p_e = Σ t_i p_i / n²

    with t_i pixels of class i, p_i predicted as i, n in all.

    Source: Cohen, A coefficient of agreement for nominal scales (1960)

    Example:
      >>> import numpy as np
      >>> import deeplab_jax as dl
      >>> round(dl.metrics.cohen_kappa(np.array([[20, 5], [10, 15]])), 6)
      0.4
    """
    counts = np.asarray(confusion, np.float64)
    total = counts.sum()
    if not total:
        return None
    by_chance = float(counts.sum(axis=1) @ counts.sum(axis=0)) / total**2
    return None if by_chance == 1 else float((np.trace(counts) / total - by_chance) / (1 - by_chance))


def kappas(confusion: Int[np.ndarray, "c *two _"], class_names: Sequence[str]) -> dict[str, Any]:
    """Kappa ready for JSON: of all classes together, or of each where they overlap ([c, 2, 2]), and their mean."""
    if confusion.ndim == 2:
        return {"kappa": cohen_kappa(confusion)}
    values = [cohen_kappa(each) for each in confusion]
    known = [value for value in values if value is not None]
    return {
        "kappa": float(np.mean(known)) if known else None,
        "per_class": dict(zip(class_names, values, strict=True)),
        "over": over(class_names, np.array([value is not None for value in values])),
    }
