"""Metrics: labels and predictions -> counts that add up over images, and the scores of the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deeplab_jax import registry

if TYPE_CHECKING:
    from deeplab_jax.metrics.bootstrap import confidence_interval as confidence_interval
    from deeplab_jax.metrics.bootstrap import image_counts as image_counts
    from deeplab_jax.metrics.boundary import boundary_iou as boundary_iou
    from deeplab_jax.metrics.boundary import count_boundaries as count_boundaries
    from deeplab_jax.metrics.confusion import confusion_matrix as confusion_matrix
    from deeplab_jax.metrics.confusion import confusion_of_maps as confusion_of_maps
    from deeplab_jax.metrics.confusion import outcomes as outcomes
    from deeplab_jax.metrics.confusion import scores as scores
    from deeplab_jax.metrics.kappa import cohen_kappa as cohen_kappa
    from deeplab_jax.metrics.overlap_ratios import overlap as overlap
    from deeplab_jax.metrics.surface import surface_scores as surface_scores
    from deeplab_jax.metrics.thresholds import best_thresholds as best_thresholds
    from deeplab_jax.metrics.thresholds import count_probabilities as count_probabilities
else:
    _NAMES = {
        "bootstrap": ("image_counts", "confidence_interval"),
        "boundary": ("boundary_iou", "count_boundaries"),
        "confusion": ("confusion_matrix", "confusion_of_maps", "outcomes", "scores"),
        "kappa": ("cohen_kappa",),
        "overlap_ratios": ("overlap",),
        "surface": ("surface_scores",),
        "thresholds": ("best_thresholds", "count_probabilities"),
    }
    __getattr__, __dir__ = registry.lazy_names(__name__, _NAMES)
