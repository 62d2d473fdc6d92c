"""Figures of maps with the true mask, and of the metrics of methods."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..arrays import Array
from ..errors import ImageError, OptionError
from ..evaluation.localization import check_masks
from ..evaluation.result import Evaluation
from ..evaluation.verdict import CHANCE, FEWEST
from ..synthetic import GroundTruth
from .canvas import make_figure
from .tiles import RED, check_labels, check_title, scale_colors, to_picture

_TILE_INCHES, _LABEL_INCHES = 1.6, 0.5
_OUTLINE = "#0050ff"
_PANEL_INCHES, _ROW_INCHES, _FRAME_INCHES = 3.0, 0.3, 1.3
_NAME_INCHES, _TITLE_INCHES, _PANELS = 1.5, 0.35, 4
_BETTER = {1: " ↑", -1: " ↓", 0: ""}
_GRAY = 7  # in tab10, and the color of controls
_LOGARITHMIC = 100  # times the smallest value


def tile_ground_truth(
    data: GroundTruth, maps: Mapping[str, Array], labels: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw pictures and their maps, one row each, with the outline of the true mask.

    Parameters
    ----------
    data
        Images (n, h, w, 3) or (n, h, w, 1), and masks (n, h, w).
    maps
        Maps (n, h, w) by name, as saliency_map returns them. Each has its own scale, as in
        tile_input_and_maps.
    labels
        A label for each of the n pictures; none by default.
    title
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure, not registered with pyplot. A notebook shows it as the last value of a
    cell; figure.savefig(path) saves it.

    Raises
    ------
    ImageError, OptionError
        If images cannot be drawn, maps or masks have another shape, or the number of labels is
        wrong.

    References
    ----------
    Arras, Osman and Samek 2022, arXiv:2003.07258 (maps beside ground truth).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> data = synthetic.make_shapes(2, seed=0)
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), data.images)
    >>> [axes.get_title() for axes in tfs.tile_ground_truth(data, maps).axes[:2]]
    ['picture', 'gradient']
    """
    if not isinstance(data, GroundTruth):
        raise OptionError(f"Expected data as a GroundTruth. Received: {type(data).__name__}.")
    masks = check_masks(data.masks)
    check_title(title)
    n, h, w = masks.shape
    if not isinstance(maps, Mapping):
        raise OptionError(
            "Expected maps by name, as saliency_map returns them, or {'name': maps}. "
            f"Received: {type(maps).__name__}."
        )
    sizes = [np.shape(data.images)[:3], *(np.shape(array) for array in maps.values())]
    if any(size != (n, h, w) for size in sizes):
        raise ImageError(
            f"Expected images and maps of the masks' shape {(n, h, w)}. Received: images "
            f"{sizes[0]}, maps {sizes[1:]}."
        )
    if not isinstance(labels, tuple) or labels:
        labels = check_labels(labels, n, "one for each picture, or none")
    columns = ["picture", *maps]
    size = (_TILE_INCHES * len(columns) + 0.3, _TILE_INCHES * n * h / w + _LABEL_INCHES)
    figure = make_figure(*size)
    axes = figure.subplots(n, len(columns), squeeze=False)
    for i in range(n):
        axes[i, 0].imshow(to_picture(data.images[i]))
        for axis, array in zip(axes[i, 1:], maps.values(), strict=True):
            low, high, colors = scale_colors(array[i].astype(np.float64), RED, 99.0)
            axis.set_facecolor("lightgray")
            axis.imshow(array[i], cmap=colors, vmin=low, vmax=high)
        for axis in axes[i]:
            if masks[i].any() and not masks[i].all():
                axis.contour(masks[i], levels=[0.5], colors=[_OUTLINE], linewidths=1.0)
            axis.set_xticks([])
            axis.set_yticks([])
        if len(labels):
            axes[i, 0].set_ylabel(labels[i], fontsize=9)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=9)
    if title:
        figure.suptitle(textwrap.fill(title, int(size[0] * 12)), fontsize=11)
    return figure.with_plain_text()


def plot_evaluation(evaluation: Evaluation) -> Figure:
    """Plot the metrics of methods and controls, with 95 % intervals and chance.

    Parameters
    ----------
    evaluation
        A result of evaluate, for images (n, h, w, c).

    Returns
    -------
    matplotlib.figure.Figure, as for tile_ground_truth, with a panel for each metric and a row for
    each method. Controls are gray, and a dashed line is chance.

    Raises
    ------
    OptionError
        If evaluation is not an Evaluation.

    References
    ----------
    See evaluate.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")
    >>> result = tfs.evaluate(known.model, known.ground_truth(4, seed=0), "gradient")
    >>> [axes.get_title() for axes in tfs.plot_evaluation(result).axes][:2]
    ['pointing_game ↑', 'relevance_mass ↑']
    """
    if not isinstance(evaluation, Evaluation):
        raise OptionError(f"Expected an Evaluation. Received: {type(evaluation).__name__}.")
    names = [name for name in evaluation.names if name != CHANCE]
    metrics = evaluation.metrics
    columns = min(len(metrics), _PANELS)
    rows = -(-len(metrics) // columns)
    size = (
        _NAME_INCHES + _PANEL_INCHES * columns,
        (_ROW_INCHES * len(names) + _TITLE_INCHES) * rows + _FRAME_INCHES,
    )
    figure = make_figure(*size)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels = grid.ravel()[: len(metrics)]
    for axis in grid.ravel()[len(metrics) :]:
        axis.set_visible(False)
    colorful = [place for place in range(10) if place != _GRAY]
    colors = colormaps["tab10"](np.resize(colorful, len(names)))
    for axis, metric in zip(panels, metrics, strict=True):
        if CHANCE in evaluation.names and np.isfinite(evaluation.mean(CHANCE, metric)):
            axis.axvline(evaluation.mean(CHANCE, metric), color="gray", linestyle="--", linewidth=1)
        for row, (name, color) in enumerate(zip(names, colors, strict=True)):
            mean, (low, high) = evaluation.mean(name, metric), evaluation.interval(name, metric)
            drawn = "gray" if name in evaluation.controls else color
            # An interval of equal values may miss their mean by a rounding error.
            reach = np.maximum([[mean - low], [high - mean]], 0.0)
            axis.errorbar(mean, row, xerr=reach, fmt="o", color=drawn, capsize=3)
        better = _BETTER[evaluation.direction(metric)] if evaluation.directions else ""
        axis.set_title(metric + better, fontsize=10)
        _limit(axis, evaluation.values[:, metrics.index(metric)])
        axis.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    images = evaluation.values.shape[-1]
    title = f"Metrics of maps of {images} images"
    title += "; 95 % intervals" if images >= FEWEST else f"; intervals need {FEWEST} images"
    title += "; dashed: chance" if CHANCE in evaluation.names else ""
    figure.suptitle(title, fontsize=11)
    return figure.with_plain_text()


def _limit(axis: Axes, values: Array) -> None:
    """Show 0 to 1 for values within; for gaps of very different sizes, a logarithmic axis."""
    known = values[np.isfinite(values)]
    if not known.size or (known.min() >= 0 and known.max() <= 1):
        axis.set_xlim(-0.03, 1.03)
    elif known.min() > 0 and known.max() > _LOGARITHMIC * known.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
