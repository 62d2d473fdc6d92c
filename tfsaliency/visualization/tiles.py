"""Rows of pictures: an image and its maps, as in the original."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from ..arrays import Array, as_batch
from ..errors import ImageError, OptionError, check_number
from ..tables import is_iterable
from .canvas import make_figure

RED = LinearSegmentedColormap.from_list("tfsaliency_red", ["white", "red"])
_UNDEFINED = to_rgb("lightgray")
_SIGNED = colormaps["RdBu_r"]

_COLUMNS = 6
_TILE_INCHES = 2.4
_LINE_INCHES = 0.32  # height of a line of a label or title
_LETTER_INCHES, _TITLE_LETTER_INCHES = 0.095, 0.115  # approximate widths
_PICTURE_AXES = 4
STRENGTH = 0.9  # opacity of full color
FULL_COLOR = 99.0  # percentile of a map's values with full color


def tile_input_and_maps(
    image: Any,
    maps: Mapping[str, Any] | Sequence[Any] | Array,
    labels: Sequence[str],
    cmap: str | Colormap = RED,
    title: str = "",
    *,
    percentile: float = FULL_COLOR,
) -> Figure:
    """Draw an image and its maps in one row, or in rows of six.

    Parameters
    ----------
    image
        An image (h, w, 3) or (h, w, 1), or a batch of one, with values 0..255, or 0..1 if no value
        exceeds 1.
    maps
        Maps (h, w) or batches of one, or a mapping of names to these, as saliency_map returns for
        one image. Each map is scaled separately, starting at its minimum. A map with negative
        values is drawn from blue to red, with white at zero. Constant maps and values that are not
        finite are gray.
    labels
        1 + number of maps: labels of the image and of each map; long labels are wrapped.
    cmap
        The colors of a map without negative values; a Matplotlib colormap or its name.
    title
        The title of the figure.
    percentile
        Values from this percentile of the map's (absolute) values get full color. Gradients have
        few very large values: with 100, as in the original's figures, the rest of the map is hardly
        visible.

    Returns
    -------
    matplotlib.figure.Figure, not registered with pyplot. A notebook shows it as the last value of a
    cell; figure.savefig(path) saves it.

    Raises
    ------
    ImageError
        If an image or a map has another shape, or pixels are out of range.
    OptionError
        If the number of labels is wrong, or the colormap is unknown.

    References
    ----------
    The function of this name in the MATLAB repository compare-gradient-attribution-maps.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> figure = tfs.tile_input_and_maps(
    ...     np.zeros((8, 8, 3)), [np.eye(8), -np.eye(8)], ["photo", "a map", "a signed map"])
    >>> [axes.get_title() for axes in figure.axes]
    ['photo', 'a map', 'a signed map']
    """
    picture = to_picture(image)
    listed: Any = maps.values() if isinstance(maps, Mapping) else maps
    if isinstance(listed, str) or not is_iterable(listed):
        raise OptionError(
            "Expected maps as a list of maps (h, w), or a mapping of names to maps. "
            f"Received: {type(maps).__name__}."
        )
    drawn = [_one_map(m, picture.shape[:2]) for m in listed]
    names = check_labels(labels, 1 + len(drawn), "one for the image, and one for each of the maps")
    check_title(title)
    positive = resolve_colormap(cmap)
    h, w = picture.shape[:2]
    width = _TILE_INCHES * min(2.0, max(0.5, w / h))
    wrapped = [_wrapped(label, width / _LETTER_INCHES) for label in names]
    columns = min(_COLUMNS, 1 + len(drawn))
    rows = -(-(1 + len(drawn)) // columns)
    heading = _wrapped(title, width * columns / _TITLE_LETTER_INCHES)
    lines = max(label.count("\n") for label in wrapped) + 1
    height = rows * (width * h / w + _LINE_INCHES * lines)
    height += _LINE_INCHES * (heading.count("\n") + 1) if title else 0
    figure = make_figure(width * columns, height)
    axes = [figure.add_subplot(rows, columns, 1 + i) for i in range(1 + len(drawn))]
    axes[0].imshow(picture)
    for axis, values in zip(axes[1:], drawn, strict=True):
        low, high, colors = scale_colors(values, positive, percentile)
        axis.set_facecolor("lightgray")
        axis.imshow(values, cmap=colors, vmin=low, vmax=high)
    for axis, label in zip(axes, wrapped, strict=True):
        axis.set_title(label, fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
    if title:
        figure.suptitle(heading, fontsize=13)
    return figure.with_plain_text()


def check_labels(labels: Any, n: int, of: str) -> list[str]:
    """Return labels as a list of n strings, or raise OptionError; `of` says what they label."""
    usable = is_iterable(labels) and not isinstance(labels, (str, bytes, Mapping, Set))
    names = [str(label) for label in labels] if usable else []
    if len(names) != n or not usable:
        received = len(names) if usable else type(labels).__name__
        raise OptionError(f"Expected {n} labels: {of}. Received: {received}.")
    return names


def check_title(title: Any) -> None:
    """Raise OptionError unless a title is a string."""
    if not isinstance(title, str):
        raise OptionError(f"Expected title as a string. Received: {title!r:.100}.")


def overlay(
    image: Any,
    saliency_map: Any,
    cmap: str | Colormap = RED,
    *,
    strength: float = STRENGTH,
    percentile: float = FULL_COLOR,
) -> Array:
    """Overlay a map on its image, which stays visible in gray.

    Parameters
    ----------
    image
        (h, w, 3) or (h, w, 1), or a batch of one; pixels as for tile_input_and_maps.
    saliency_map
        (h, w), or a batch of one.
    cmap
        The colors of a map without negative values.
    strength
        The opacity of full color, 0 to 1; lower values of the map are more transparent.
    percentile
        As for tile_input_and_maps.

    Returns
    -------
    Array (h, w, 3), uint8, RGB.

    Raises
    ------
    ImageError, OptionError
        As for tile_input_and_maps.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> tfs.overlay(np.full((2, 2, 3), 255), np.eye(2), strength=1.0)[0].tolist()
    [[255, 0, 0], [255, 255, 255]]
    """
    check_number("strength", strength, 0, 1)
    picture = to_picture(image)
    values = _one_map(saliency_map, picture.shape[:2])
    return overlay_map(picture, values, resolve_colormap(cmap), strength, percentile)


def overlay_map(
    picture: Array,
    values: Array,
    positive: Colormap = RED,
    strength: float = STRENGTH,
    percentile: float = FULL_COLOR,
) -> Array:
    """Overlay a map (h, w) on a picture (h, w, 3) of 0..1; see overlay."""
    position, signed, colors = _positions(values, positive, percentile)
    if np.nanmin(position) == np.nanmax(position):  # a constant map shows nothing
        strength = 0.0
    share = strength * (np.abs(2 * position - 1) if signed else position)[..., np.newaxis]
    gray = picture.mean(axis=-1, keepdims=True)
    share = np.where(np.isfinite(values)[..., np.newaxis], share, 0.0)
    blended = (1 - share) * gray + share * colors(position)[..., :3]
    return np.round(255 * blended).astype(np.uint8)


def _positions(
    values: Array, positive: Colormap, percentile: float
) -> tuple[Array, bool, Colormap]:
    """Return the positions 0..1 of values on a colormap, whether it is signed, and the colormap."""
    low, high, colors = scale_colors(values, positive, percentile)
    position = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0.0, 1.0)
    return position, low < 0, colors


def color_map(values: Array, positive: Colormap = RED, percentile: float = FULL_COLOR) -> Array:
    """Return the colors of a map (h, w), RGB of 0..255 (h, w, 3); see tile_input_and_maps."""
    position, _, colors = _positions(values, positive, percentile)
    painted = colors(position)[..., :3]
    painted[~np.isfinite(values)] = _UNDEFINED
    return np.round(255 * painted).astype(np.uint8)


def _wrapped(text: str, letters: float) -> str:
    return "\n".join(textwrap.wrap(str(text), max(8, int(letters))))


def to_picture(image: Any) -> Array:
    """Return an image as (h, w, 3) with values 0..1."""
    channels = 1 if tuple(getattr(image, "shape", ()))[-1:] == (1,) else 3
    batch = as_batch(image, (None, None, channels), "the image to draw")
    if len(batch) != 1:
        raise ImageError(f"Expected one image to draw. Received: a batch of {len(batch)}.")
    pixels = batch[0].astype(np.float64)
    top = 255.0 if batch.dtype.kind in "ui" or pixels.max() > 1 else 1.0
    if pixels.min() < 0 or pixels.max() > top:
        raise ImageError(
            "Expected the image to draw as 0..255 or 0..1. Received: values from "
            f"{pixels.min():.4g} to {pixels.max():.4g}. Give the photo before preprocessing."
        )
    return np.broadcast_to(pixels / top, (*pixels.shape[:2], 3))


def are_pictures(images: Array) -> bool:
    """Return whether images are pictures (n, h, w, c), not sequences, volumes or features."""
    return np.ndim(images) == _PICTURE_AXES


def as_picture(image: Array) -> Array:
    """Return any image (h, w, c) as a picture (h, w, 3) with values 0..1.

    Other channels than 1 or 3 are averaged. Values that are no pixels, as after preprocessing, are
    stretched from their minimum to their maximum.
    """
    pixels = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    if pixels.shape[-1] not in (1, 3):
        pixels = pixels.mean(axis=-1, keepdims=True)
    low, high = pixels.min(), pixels.max()
    if low >= 0 and high <= 255:
        top = 255.0 if np.asarray(image).dtype.kind in "ui" or high > 1 else 1.0
        return np.broadcast_to(pixels / top, (*pixels.shape[:2], 3))
    return np.broadcast_to((pixels - low) / ((high - low) or 1.0), (*pixels.shape[:2], 3))


def _one_map(saliency_map: Any, size: tuple[int, ...]) -> Array:
    try:
        values = np.asarray(saliency_map, dtype=np.float64)
    except Exception as error:  # of a class that NumPy cannot convert
        raise ImageError(
            f"Expected a map as an array (h, w) of real numbers. Received: {saliency_map!r:.100}."
        ) from error
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.shape != size:
        raise ImageError(
            f"Expected a map of the image's size {size}. Received: shape {values.shape}. "
            "Take one map of a batch by its index, of saliency_map instead of attributions; draw "
            "class activation maps with resize=True."
        )
    return values


def scale_colors(
    values: Array, positive: Colormap, percentile: float
) -> tuple[float, float, Colormap]:
    """Return the values of the first and the last color, and the colormap."""
    check_number("percentile", percentile, 0, 100, above=True)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() == finite.max():
        return 0.0, 1.0, _gray()
    size = np.abs(finite)
    # If few values are not zero, the percentile of all values would be zero.
    full = float(np.percentile(size[size > 0], percentile))
    if finite.min() < 0:
        return -full, full, _SIGNED
    low = float(finite.min())
    return low, full if full > low else float(finite.max()), positive


def _gray() -> Colormap:
    """Return a colormap of gray only, for constant maps."""
    return LinearSegmentedColormap.from_list("constant", ["lightgray", "lightgray"])


def resolve_colormap(cmap: str | Colormap) -> Colormap:
    """Return a colormap, given as one or by its name, or raise OptionError."""
    if isinstance(cmap, Colormap):
        return cmap
    if not isinstance(cmap, str) or cmap not in colormaps:
        raise OptionError(
            f"Unknown colormap: {cmap!r}. Expected a Matplotlib colormap or its name."
        )
    return colormaps[cmap]
