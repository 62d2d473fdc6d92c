"""The figure of SaliencyMaps: images beside their maps."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import Colormap

from ..arrays import Array
from ..errors import ImageError, OptionError, check_flag, check_int, check_number, unknown_option
from ..saliency_maps import SaliencyMaps
from ..tables import as_text
from .canvas import InlineFigure, make_figure
from .tiles import (
    FULL_COLOR,
    RED,
    as_picture,
    check_title,
    overlay_map,
    resolve_colormap,
    scale_colors,
)

_PICTURE_INCHES, _SIGNAL_INCHES = 1.7, (3.4, 1.2)
_LINE_INCHES, _LETTER_INCHES, _GAP_INCHES = 0.155, 0.072, 0.08
_TITLE_INCHES, _TITLE_LETTER_INCHES = 0.26, 0.1
_MOST_INCHES = 6.8  # of a very high picture
_COLUMNS, _COLUMNS_OF_SIGNALS = 7, 3
_FONT, _TITLE_FONT = 8, 11
_MOST_PIXELS = 60_000  # of a side of a figure; Matplotlib's limit is 65,535


def plot_maps(
    maps: SaliencyMaps,
    methods: str | Sequence[str] | None = None,
    *,
    overlay: bool = False,
    percentile: float = FULL_COLOR,
    cmap: str | Colormap | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> InlineFigure:
    """Draw images beside their maps; see SaliencyMaps.plot."""
    names = _choose(maps, methods)
    check_flag("overlay", overlay)
    if columns is None:
        columns = _COLUMNS if _have_rows(maps.images) else _COLUMNS_OF_SIGNALS
    check_int("columns", columns, 1)
    heading = describe_maps(maps) if title is None else title
    check_title(heading)
    check_number("percentile", percentile, 0, 100, above=True)
    style = _Style(overlay, percentile, RED if cmap is None else resolve_colormap(cmap))
    tiles = [_tiles(maps, i, names, style) for i in range(len(maps.images))]
    return _lay_out(tiles, _tile_size(maps.images), columns, heading)


@dataclass(frozen=True)
class _Style:
    """The colors of maps, and whether they lie over the images."""

    overlay: bool
    percentile: float
    colors: Colormap


@dataclass(frozen=True, eq=False)
class _Tile:
    """A tile: its label, and the function that draws it on Axes."""

    label: str
    draw: Callable[[Any], None]


def _choose(maps: SaliencyMaps, methods: str | Sequence[str] | None) -> list[str]:
    names = [methods] if isinstance(methods, str) else list(maps if methods is None else methods)
    for name in names:
        if name not in maps.maps:
            raise unknown_option("method", name, maps)
    if not names:
        raise OptionError("Expected methods to draw, at least one. Received: none.")
    return names


def describe_maps(maps: SaliencyMaps) -> str:
    """Return the title of a figure of maps: what they are maps of."""
    channels = any(maps[name].ndim == maps.images.ndim > 2 for name in maps)
    return f"Maps of the {maps.score}" + ("; sums over channels" if channels else "")


def _have_rows(images: Array) -> bool:
    """Return whether images have rows: pictures and volumes, not sequences and features."""
    return images.ndim > 3


def _tile_size(images: Array) -> tuple[float, float]:
    """Return the width and height of a tile in inches."""
    if not _have_rows(images):
        return _SIGNAL_INCHES
    h, w = images.shape[-3:-1]
    width = _PICTURE_INCHES * min(2.0, max(0.5, w / h))
    return width, min(_MOST_INCHES, width * h / w)


def _tiles(maps: SaliencyMaps, i: int, names: Sequence[str], style: _Style) -> list[_Tile]:
    """Return the tiles of an image: the image, then its maps."""
    image = np.asarray(maps.images[i])
    arrays = [reduce_channels(maps[name][i], image) for name in names]
    label = describe_image(maps, i)
    if image.ndim <= 2:
        lines = image.reshape(len(image), -1)
        steps = "default" if image.ndim == 2 else "steps-mid"  # features have no order
        return [
            _Tile(name, partial(_draw_signal, lines=lines, values=values, style=style, steps=steps))
            for name, values in zip([label, *names], [None, *arrays], strict=True)
        ]
    if image.ndim == 4:  # a volume
        plane = int(np.nanargmax(np.nan_to_num(np.abs(arrays[0])).mean(axis=(1, 2))))
        label = f"{label}\nplane {plane} of {len(image)}"
        image = image[plane]
        arrays = [array[plane] if len(array) > plane else array[-1] for array in arrays]
    picture = as_picture(image)
    if style.overlay:
        check_overlay(picture, arrays)
    return [
        _Tile(name, partial(_draw_picture, picture=picture, values=values, style=style))
        for name, values in zip([label, *names], [None, *arrays], strict=True)
    ]


def check_overlay(picture: Array, maps: Sequence[Array]) -> None:
    """Raise ImageError unless maps (h, w) fit their picture (h, w, 3)."""
    for values in maps:
        if values.shape != picture.shape[:2]:
            raise ImageError(
                f"Expected maps of the images' size {picture.shape[:2]} to lay over them. "
                f"Received: {values.shape}. Draw cells with overlay=False, or compute "
                "them with resize=True."
            )


def reduce_channels(values: Array, image: Array) -> Array:
    """Return the map (h, w) of attributions (h, w, c), their sum; other maps as they are."""
    values = np.asarray(values, np.float64)
    return values.sum(axis=-1) if values.ndim == image.ndim > 1 else values


def describe_image(maps: SaliencyMaps, i: int) -> str:
    """Return the caption of an image: its name, the explained class, and another top class."""
    return "\n".join([*([short_name(maps.names[i])] if maps.names else []), *name_classes(maps, i)])


def short_name(name: str) -> str:
    """Return the last part of a path, on one line, with what is no text escaped."""
    return as_text(" ".join(name.replace("\\", "/").rpartition("/")[2].split()))


def unique_names(maps: SaliencyMaps) -> list[str]:
    """Return the name of each image: the last part of its path, or all if that is not unique."""
    if not maps.names:
        return [f"image {i}" for i in range(len(maps.images))]
    count = Counter(map(short_name, maps.names))
    return [
        last if count[last := short_name(name)] == 1 else "/".join(map(short_name, name.split("/")))
        for name in maps.names
    ]


def name_classes(maps: SaliencyMaps, i: int) -> list[str]:
    """Return the explained class of an image, and its top class if that is another one."""
    if maps.outputs.ndim > 2:  # positions: a mean over all of them is no confidence in a region
        return [maps.class_name(int(maps.targets[i]))]
    explained, values = maps.caption(i), maps.class_values(i)
    if maps.meaning != "vector" and len(values) > 1 and np.isfinite(values).any():
        top = int(np.nanargmax(values))
        if top != maps.targets[i]:
            return [f"explained: {explained}", f"top: {maps.caption(i, top)}"]
    return [explained]


def _draw_picture(axes: Any, picture: Array, values: Array | None, style: _Style) -> None:
    """Draw a picture (h, w, 3), or its map (h, w) if there is one."""
    h, w = picture.shape[:2]
    if values is None:
        axes.imshow(picture)
        return
    if style.overlay:
        axes.imshow(overlay_map(picture, values, style.colors, percentile=style.percentile))
        return
    low, high, colors = scale_colors(values, style.colors, style.percentile)
    axes.set_facecolor("lightgray")
    axes.imshow(values, cmap=colors, vmin=low, vmax=high, extent=(-0.5, w - 0.5, h - 0.5, -0.5))


def _draw_signal(axes: Any, lines: Array, values: Array | None, style: _Style, steps: str) -> None:
    """Draw a sequence (t, c) as lines, on its map (t,) if there is one."""
    finite = lines[np.isfinite(lines)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    bottom, top, right = low - margin, high + margin, len(lines) - 0.5
    if values is not None:
        least, most, colors = scale_colors(values, style.colors, style.percentile)
        axes.imshow(
            values[np.newaxis],
            cmap=colors,
            vmin=least,
            vmax=most,
            extent=(-0.5, right, bottom, top),
            aspect="auto",
            interpolation="nearest",
        )
    opacity = max(0.3, 1 / lines.shape[1])
    axes.plot(lines, color="black", linewidth=0.8, alpha=opacity, drawstyle=steps)
    axes.set_xlim(-0.5, right)
    axes.set_ylim(bottom, top)


def _lay_out(
    images: Sequence[Sequence[_Tile]], size: tuple[float, float], columns: int, title: str
) -> InlineFigure:
    """Draw the tiles of all images: several images in a row, or several rows for an image.

    Axes are placed here, because Matplotlib's layouts take minutes for hundreds of them.
    """
    width, height = size
    letters = max(8, int(width / _LETTER_INCHES))
    rows = _rows(images, columns, letters)
    across = max(map(len, rows))
    total_width = across * (width + _GAP_INCHES) + _GAP_INCHES
    heading = textwrap.fill(title, max(20, int(total_width / _TITLE_LETTER_INCHES)))
    y = _TITLE_INCHES * (heading.count("\n") + 1) if title else 0.0
    labels = [_LINE_INCHES * max(tile.label.count("\n") + 1 for tile in row) for row in rows]
    total_height = y + sum(labels) + len(rows) * (height + _GAP_INCHES) + _GAP_INCHES
    figure = make_figure(total_width, total_height, "none")
    figure.set_dpi(min(figure.dpi, _MOST_PIXELS / max(total_width, total_height)))
    for row, label in zip(rows, labels, strict=True):
        y += label + height + _GAP_INCHES
        for k, tile in enumerate(row):
            x = _GAP_INCHES + k * (width + _GAP_INCHES)
            place = x / total_width, 1 - y / total_height
            axes = figure.add_axes((*place, width / total_width, height / total_height))
            tile.draw(axes)
            axes.set_title(tile.label, fontsize=_FONT, pad=3)
            axes.set_xticks([])
            axes.set_yticks([])
    if title:
        top = 1 - 0.04 / total_height
        figure.suptitle(heading, fontsize=_TITLE_FONT, y=top, verticalalignment="top")
    return figure.with_plain_text()


def _rows(images: Sequence[Sequence[_Tile]], columns: int, letters: int) -> list[list[_Tile]]:
    """Arrange tiles in rows of at most so many columns, and fit their labels to the width."""
    each = len(images[0])
    beside = columns // each  # images in a row
    if beside:
        rows = [
            [tile for tiles in images[i : i + beside] for tile in tiles]
            for i in range(0, len(images), beside)
        ]
    else:
        across = -(-each // -(-each // columns))  # rows of nearly equal length
        rows = [list(tiles[k : k + across]) for tiles in images for k in range(0, each, across)]
    return [[replace(tile, label=_fitted(tile.label, letters)) for tile in row] for row in rows]


def _fitted(label: str, letters: int) -> str:
    """Wrap the lines of a label, and cut the beginning of words that are too long."""
    lines = []
    for line in label.split("\n"):
        words = [w if len(w) <= letters else f"...{w[3 - letters :]}" for w in line.split(" ")]
        lines.append(textwrap.fill(" ".join(words), letters))
    return "\n".join(lines)
