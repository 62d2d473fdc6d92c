"""The figure of a CSC profile: cosines of random vectors from layer to layer."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..sanity.csc import CSCProfile
from .canvas import make_figure

_LAYER_INCHES, _LEAST_WIDTH = 0.6, 6.5
_HEIGHT, _ENTRY_INCHES = 3.6, 0.22  # without a legend, and of an entry of it
_LETTERS = 26  # letters at which to cut a layer's name


def plot_csc(profile: CSCProfile) -> Figure:
    """Draw the cosines of each method over the layers, with 95 % intervals and chance.

    Parameters
    ----------
    profile
        A result of csc_profile.

    Returns
    -------
    matplotlib.figure.Figure
    """
    places = np.arange(len(profile.layers))
    width = max(_LAYER_INCHES * len(places) + 1.5, _LEAST_WIDTH)
    height = _HEIGHT + _ENTRY_INCHES * (1 + len(profile.methods))
    figure = make_figure(width, height)
    axis = figure.subplots()
    for method in profile.methods:
        means = np.array([profile.mean(method, layer) for layer in profile.layers])
        ends = np.array([profile.interval(method, layer) for layer in profile.layers])
        reach = np.maximum([means - ends[:, 0], ends[:, 1] - means], 0)
        label = f"{method}: {profile.verdict(method)}"
        axis.errorbar(places, means, np.nan_to_num(reach), marker="o", capsize=3, label=label)
    axis.plot(places, profile.chance, color="gray", linestyle="--", label="chance")
    axis.set_ylim(-0.03, 1.05)
    axis.set_ylabel("median |cosine| of random vectors")
    names = [each[-_LETTERS:] for each in profile.layers]
    axis.set_xticks(places, names, rotation=30, ha="right")
    axis.grid(axis="y", alpha=0.25)
    axis.set_title(f"Vectors from {profile.start}, passed back to lower layers", fontsize=11)
    figure.legend(loc="outside lower center", fontsize=9)
    return figure.with_plain_text()
