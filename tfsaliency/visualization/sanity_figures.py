"""Figures of a sanity check: maps and similarities over its steps."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..arrays import Array
from ..errors import OptionError
from ..sanity.result import SanityResult
from ..sanity.text import is_cumulative, is_worth_showing
from ..sanity.verdict import DEPENDS_BELOW, DOES_NOT_DEPEND_ABOVE
from ..similarity import SIMILARITIES
from ..statistics import bootstrap, interval
from .canvas import make_figure
from .tiles import RED, scale_colors, to_picture

_TILE_INCHES, _LABEL_INCHES = 1.5, 0.75
_PANEL_INCHES, _STEP_INCHES, _LEAST_WIDTH = 2.6, 0.38, 6.5
_TITLE_LETTERS = 12  # letters per inch
_LETTERS = 26  # letters at which to cut a layer's name
_LEVEL = 3  # the largest number of steps with horizontal names
_BESIDE = 0.08  # distance of methods at a single step


def tile_cascade(result: SanityResult) -> Figure:
    """Draw one photo's maps over the steps of a check, one row for each method.

    Parameters
    ----------
    result
        A result of sanity_check. If there are many steps, evenly spaced ones are drawn. The maps
        (h, w) are of the first photo and the first seed.

    Returns
    -------
    matplotlib.figure.Figure, not registered with pyplot. A notebook shows it as the last value of a
    cell; figure.savefig(path) saves it. Each map has its own scale; a map that is zero, constant or
    not finite is gray.

    Raises
    ------
    OptionError
        If the result has no maps.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, figure 2.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> result = tfs.sanity_check(synthetic.shapes_model(), photos, plan=["conv8"], verbose=0)
    >>> len(tfs.tile_cascade(result).axes)  # the photo, and maps of two networks
    3
    """
    shown = _checked(result).shown
    if shown is None:
        raise OptionError("Expected a SanityResult with maps. Received: a result without maps.")
    plus = "+ " if is_cumulative(result) and len(result.steps) > 1 else ""
    columns = ["photo", "trained", *(plus + _cut(result.steps[at].name) for at in shown.steps)]
    rows = len(result.methods)
    size = (_TILE_INCHES * len(columns), _TILE_INCHES * rows + _LABEL_INCHES)
    figure = make_figure(*size)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for row, method in enumerate(result.methods):
        for column, values in enumerate(shown.maps[row].astype(np.float64), start=1):
            low, high, colors = scale_colors(values, RED, 99.0)
            axes[row, column].set_facecolor("lightgray")
            axes[row, column].imshow(values, cmap=colors, vmin=low, vmax=high)
        axes[row, 1].set_ylabel(method, fontsize=9)
    pixels = shown.image.shape[-1] in (1, 3) and len(shown.image) > 1 and shown.image.min() >= 0
    drawable = shown.image if pixels else None
    if drawable is not None and drawable.min() >= 0 and drawable.max() <= 255:
        axes[0, 0].imshow(to_picture(drawable))
    else:  # preprocessed by the caller, not a picture
        columns[0] = ""
        axes[0, 0].axis("off")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row in range(1, rows):
        axes[row, 0].remove()
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    title = f"{_title(result)}; first photo and seed, each map on its own scale"
    figure.suptitle(_wrapped(title, size[0]), fontsize=11)
    return figure.with_plain_text()


def plot_similarities(result: SanityResult) -> Figure:
    """Plot invariance and similarities over the steps of a check, with intervals and chance.

    Parameters
    ----------
    result
        A result of sanity_check. Lines are means over photos and seeds of maps (n, h, w), bands are
        95 % intervals, and dotted lines are chance: the mean over different photos.

    Returns
    -------
    matplotlib.figure.Figure, as for tile_cascade.

    Raises
    ------
    OptionError
        If result is not a SanityResult.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, figures 3 and 4 (without intervals and chance).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> result = tfs.sanity_check(synthetic.shapes_model(), photos, plan=["conv8"], verbose=0)
    >>> [axes.get_ylabel() for axes in tfs.plot_similarities(result).axes]
    ['invariance', 'spearman', 'ssim']
    """
    _checked(result)
    panels = [name for name in result.similarities if is_worth_showing(result, name)]
    steps = np.arange(len(result.steps))
    width = max(_LEAST_WIDTH, _STEP_INCHES * len(steps) + 2)
    size = (width, _PANEL_INCHES * (1 + len(panels)) + 1)
    figure = make_figure(*size)
    axes = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False)[:, 0]
    _draw_thresholds(axes[0])
    colors = colormaps["tab10"](np.arange(len(result.methods)) % 10)
    joined = len(steps) > 1 and is_cumulative(result)
    for m, (method, color) in enumerate(zip(result.methods, colors, strict=True)):
        at = steps if joined else steps + _BESIDE * (m - (len(result.methods) - 1) / 2)
        indices = [[v.invariance, v.low, v.high] for v in result.verdicts[method]]
        _draw_line(axes[0], at, np.array(indices), color, joined)
        for axis, name in zip(axes[1:], panels, strict=True):
            s = result.similarities.index(name)
            _draw_line(axis, at, _means(result.values[m, :, s]), color, joined)
            chance = _means(result.chance[m, :, s])[:, 0]
            axis.plot(at, chance, ":" if joined else "x", color=color, linewidth=1.2)
    for axis, name in zip(axes[1:], panels, strict=True):
        if name.partition(" (x != ")[0] in SIMILARITIES:
            low, high = axis.get_ylim()
            axis.set_ylim(min(low, -0.05), max(high, 1.05))
    for axis, name in zip(axes, ("invariance", *panels), strict=True):
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
    _name_steps(axes[-1], [_cut(step.name) for step in result.steps])
    handles = [
        Line2D([], [], color=color, label=method)
        for color, method in zip(colors, result.methods, strict=True)
    ]
    dotted = Line2D([], [], color="gray", label="different photos")
    dotted.set(linestyle=":" if joined else "", marker="" if joined else "x")
    handles.append(dotted)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    counts = f"{len(result.images)} photos x {len(result.seeds)} seeds"
    figure.suptitle(_wrapped(f"{_title(result)}; {counts}", width), fontsize=10)
    return figure.with_plain_text()


def _draw_thresholds(axis: Any) -> None:
    """Draw the thresholds between the verdicts, and label the regions."""
    sides = (
        (DEPENDS_BELOW, "depends", "top"),
        (DOES_NOT_DEPEND_ABOVE, "does not depend", "bottom"),
    )
    for threshold, text, side in sides:
        axis.axhline(threshold, color="gray", linewidth=0.8)
        axis.annotate(
            text,
            (0.005, threshold),
            xycoords=axis.get_yaxis_transform(),
            va=side,
            fontsize=8,
            color="gray",
        )
    axis.set_ylim(-0.05, 1.05)


def _name_steps(axis: Any, names: list[str]) -> None:
    if len(names) == 1:
        axis.set_xticks([0], names)
        axis.set_xlim(-1, 1)
    else:
        many = len(names) > _LEVEL
        axis.set_xticks(
            range(len(names)),
            names,
            rotation=60 if many else 0,
            ha="right" if many else "center",
            fontsize=8,
        )


def _checked(result: Any) -> SanityResult:
    if not isinstance(result, SanityResult):
        raise OptionError(f"Expected a SanityResult. Received: {type(result).__name__}.")
    return result


def _title(result: SanityResult) -> str:
    draw = result.settings.get("draw")
    return result.settings["check"] + (f"; draw {draw}" if draw else "")


def _wrapped(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, int(inches * _TITLE_LETTERS)))


def _means(table: Array) -> Array:
    """Return mean, low and high of each step of a table (steps, n, seeds)."""
    rows = []
    for cells in table:
        finite = cells[np.isfinite(cells)]
        mean = finite.mean() if finite.size else np.nan
        rows.append([mean, *interval(bootstrap(cells.T)[0])])
    return np.array(rows)


def _draw_line(axis: Any, at: Array, table: Array, color: Any, joined: bool) -> None:
    middle, low, high = table.T
    if not joined:
        reach = [middle - low, high - middle]
        axis.errorbar(at, middle, reach, fmt="o", color=color, capsize=4)
        return
    axis.plot(at, middle, "o-", color=color, markersize=3)
    axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)


def _cut(name: str) -> str:
    """Return a layer's name, or the end of a long one."""
    return name if len(name) <= _LETTERS + 3 else f"...{name[-_LETTERS:]}"
