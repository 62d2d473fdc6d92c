"""The figure of a comparison of two models: photos, and the maps of both."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..sanity.comparison_result import ModelComparison
from ..tables import as_text, short
from .canvas import make_figure
from .maps_figure import short_name
from .tiles import RED, are_pictures, as_picture, scale_colors

_TILE_INCHES, _TITLE_INCHES = 1.7, 0.7


def plot_comparison(result: ModelComparison) -> Figure:
    """Draw the photos whose maps changed most, with the maps of the old and the new model.

    Parameters
    ----------
    result
        A result of compare_models.

    Returns
    -------
    matplotlib.figure.Figure. Each map has its own scale, with full color at its 99th percentile; a
    constant map is gray. Of images that are no pictures, only the maps are drawn.
    """
    shown, methods = result.shown, result.methods
    rows, columns = len(shown.places), 1 + 2 * len(methods)
    h, w = shown.old.reshape(*shown.old.shape[:2], shown.old.shape[2], -1).shape[2:]
    height = _TILE_INCHES * rows * (h / w if are_pictures(shown.images) else 1)
    figure = make_figure(_TILE_INCHES * columns, min(height, 60) + _TITLE_INCHES)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row, place in enumerate(shown.places):
        name = short_name(as_text(result.images[place]))
        first = axes[row, 0]
        if are_pictures(shown.images):
            first.imshow(as_picture(shown.images[row]))
        first.set_title(name, fontsize=8)
        first.set_xlabel(_classes(result, int(place)), fontsize=8)
        for m, method in enumerate(methods):
            for side, maps in enumerate((shown.old, shown.new)):
                axis = axes[row, 1 + 2 * m + side]
                values = maps[m, row]
                low, high, colors = scale_colors(values, RED, 99.0)
                axis.set_facecolor("lightgray")
                flat = values.reshape(len(values), -1)
                aspect = "equal" if are_pictures(shown.images) else "auto"
                axis.imshow(flat, cmap=colors, vmin=low, vmax=high, aspect=aspect)
                axis.set_title(f"{method}, {('old', 'new')[side]}", fontsize=8)
            axes[row, 2 + 2 * m].set_xlabel(
                f"similarity {short(result.values[m, place])}", fontsize=8
            )
    figure.suptitle("Photos whose maps changed most", fontsize=11)
    return figure.with_plain_text()


def _classes(result: ModelComparison, place: int) -> str:
    """Name the top classes of the two models."""
    old, new = (int(each) for each in result.top_classes[:, place])
    if old < 0:
        return ""
    return f"class {old}" if old == new else f"class {old}, now {new}"
