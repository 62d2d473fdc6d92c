"""The figure of input invariance: the change of each map under a shift."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..sanity.input_invariance import SAME, InputInvariance
from .canvas import make_figure

_ROW_INCHES, _LEAST_HEIGHT, _WIDTH = 0.35, 1.4, 6.5
_SPREAD = 0.25  # of the points of a method
_LEAST = 1e-8  # a smaller change is drawn there


def plot_invariance(result: InputInvariance) -> Figure:
    """Draw the change of each map, and the largest one that is taken for rounding.

    Parameters
    ----------
    result
        A result of input_invariance_check.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows, n = result.values.shape
    figure = make_figure(_WIDTH, _LEAST_HEIGHT + _ROW_INCHES * rows)
    axis = figure.subplots()
    places = np.linspace(-_SPREAD, _SPREAD, n) if n > 1 else np.zeros(1)
    for row, changes in enumerate(result.values):
        axis.plot(np.maximum(changes, _LEAST), row + places, "o", markersize=3, alpha=0.7)
    axis.axvline(SAME, color="gray", linestyle="--", label=f"invariant up to {SAME:g}, on average")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda change, _: f"{change:g}")
    labels = [f"{method}\n{result.verdict(method)}" for method in result.methods]
    axis.set_yticks(np.arange(rows), labels)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.minorticks_off()
    axis.set_xlabel("change of a map, as a fraction of its norm")
    axis.grid(axis="x", alpha=0.25)
    figure.legend(loc="outside lower center", fontsize=9)
    figure.suptitle(f"Images shifted by {result.settings['shift']}", fontsize=11)
    return figure.with_plain_text()
