"""The report's figures as text: curves as SVG in the page's colours, images as data URIs."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn in placeholder colours, which are then replaced by the page's, which differ between light and dark mode.
_INK, _LINE, _ACCENT = "#010203", "#040506", "#070809"
_PAGE_COLORS = {_INK: "currentColor", _LINE: "var(--line)", _ACCENT: "var(--accent)"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "deeplab_jax",  # the same curve gives the same bytes
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 5),
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
}
_MAX_POINTS = 1000  # per curve; more would not be visible and only enlarge the page


def line_chart(
    steps: Sequence[int],
    values: Sequence[float],
    *,
    marker: bool = False,
    from_zero: bool = False,
    label: str = "step",
) -> str:
    """A curve over training steps, or over what `label` names, as an <svg> element.

    Args:
      steps: not empty.
      values: one per step; NaN leaves a gap.
      marker: draw a dot at each value, for curves with few points.
      from_zero: start the vertical axis at zero.
      label: of the horizontal axis.
    """
    every = -(-len(steps) // _MAX_POINTS)
    with _style():
        figure, axes = _empty_chart(label)
        axes.plot(
            steps[::every], values[::every], color=_ACCENT, linewidth=1.5, marker="o" if marker else "", markersize=3.5
        )
        axes.locator_params(axis="both", nbins=6)
        if from_zero:
            axes.set_ylim(bottom=0)
        return _as_svg(figure)


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence, with bars for the fraction of pixels in each bin, as an <svg> element.

    Args:
      bins: from `calibration` in scores.json.
    """
    filled = [each for each in bins if each["accuracy"] is not None]
    with _style():
        figure, axes = _empty_chart("confidence")
        axes.bar(
            [each["lower"] for each in bins],
            [each["fraction"] for each in bins],
            width=[each["upper"] - each["lower"] for each in bins],
            align="edge",
            color=_LINE,
        )
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
        axes.plot(
            [each["confidence"] for each in filled],
            [each["accuracy"] for each in filled],
            color=_ACCENT,
            linewidth=1.5,
            marker="o",
            markersize=3.5,
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        return _as_svg(figure)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Imports matplotlib only when something is drawn, so that it does not delay the start of a run."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _empty_chart(label: str) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    return figure, axes


def _as_svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for drawn, shown in _PAGE_COLORS.items():
        svg = svg.replace(drawn, shown)
    return svg


def data_uri(image: UInt8[np.ndarray, "h w 3"], *, max_side: int = 480) -> str:
    """The image as a JPEG data URI, shrunk so that neither side is longer than `max_side`."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
