"""Backgrounds and distractors, which are independent of the objects.

They are drawn for many pictures at once, with axes (n, h, w, color). Lengths are fractions of a
picture's side; positions are (row, column) in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array

Rng = np.random.Generator

_DARKEST, _LIGHTEST = 55.0, 200.0  # range of a background's mean
_SLOPE = 40.0  # difference of a background between opposite sides
_TEXTURE, _TINT = 13.0, 5.0  # standard deviations of its 1/f noise, in gray and in each color
_CANDIDATES = 24
_LOUD = 330.0  # a distractor's contrast, summed over colors


def backgrounds(rng: Rng, n: int, size: int) -> tuple[Array, Array]:
    """Return backgrounds (n, size, size, 3), and their mean colors (n, 3)."""
    colors = rng.uniform(_DARKEST, _LIGHTEST, (n, 3))
    angle = rng.uniform(0, 2 * np.pi, n)
    slope = rng.uniform(-_SLOPE, _SLOPE, (n, 1, 1, 3))
    along = np.linspace(-1, 1, size)
    ramp = (np.cos(angle)[:, None, None] * along[:, None] + np.sin(angle)[:, None, None] * along)[
        ..., None
    ]
    noise = _pink(rng, n, size)
    texture = _TEXTURE * noise[..., :1] + _TINT * noise[..., 1:]
    return colors[:, None, None] + slope * ramp + texture, colors


def _pink(rng: Rng, n: int, size: int) -> Array:
    """Return 1/f noise (n, size, size, 4) of variance 1."""
    spectrum = np.fft.rfft2(rng.normal(size=(n, size, size, 4)), axes=(1, 2))
    rows, columns = np.fft.fftfreq(size), np.fft.rfftfreq(size)
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = np.inf  # no mean
    noise = np.fft.irfft2(spectrum / frequency[..., None], (size, size), axes=(1, 2))
    return noise / noise.std(axis=(1, 2), keepdims=True)


def contrasting(rng: Rng, colors: Array, least: float) -> Array:
    """Draw colors (n, 3) that differ from given ones by at least `least`.

    The difference is summed over the channels. If no candidate reaches it, the most different
    candidate is used.
    """
    drawn = rng.uniform(0, 255, (len(colors), _CANDIDATES, 3))
    difference = np.abs(drawn - colors[:, None]).sum(axis=-1)
    best = np.minimum(difference, least).argmax(axis=1)
    return drawn[np.arange(len(colors)), best]


def apart(rng: Rng, taken: Array, distance: Array, margin: Array, size: int) -> Array:
    """Draw positions (n, 2) at a distance from given ones.

    Parameters
    ----------
    taken
        The given positions, (n, k, 2).
    distance
        The distance to keep from each, (n, k). If no candidate does, the closest one is used.
    margin
        The distance to keep from the border, (n,).
    """
    n = len(taken)
    drawn = margin[:, None, None] + rng.uniform(0, 1, (n, _CANDIDATES, 2)) * (
        size - 2 * margin[:, None, None]
    )
    gaps = np.linalg.norm(drawn[:, :, None] - taken[:, None], axis=-1) - distance[:, None]
    best = np.minimum(gaps.min(axis=-1), 0.0).argmax(axis=1)
    return drawn[np.arange(n), best]


def add_distractors(rng: Rng, images: Array, colors: Array, taken: Array, radii: Array) -> None:
    """Draw striped patches, blobs and lines into images (n, h, w, 3), in place.

    Parameters
    ----------
    colors
        The mean colors of the backgrounds, (n, 3).
    taken, radii
        The positions of the objects, (n, k, 2), and their radii, (n, k).
    """
    n, size = images.shape[:2]
    for chance in (1.0, 0.5):  # of a first and a second distractor
        for draw in (_patch, _blob, _line):
            alpha, color = draw(rng, n, size, colors, taken, radii)
            alpha[rng.uniform(size=n) >= chance] = 0
            images += alpha[..., None] * (color - images)


def wobbly(rng: Rng, centers: Array, radii: Array, edge: float, size: int) -> Array:
    """Return the coverage of each pixel by irregular round areas, (n, size, size).

    Parameters
    ----------
    centers, radii
        (n, 2) and (n,), in pixels.
    edge
        The width of the border, in pixels.
    """
    y, x = _offsets(centers, size)
    angle = np.arctan2(y, x)
    outline = np.ones_like(angle)
    for waves in (2, 3, 5):
        height = rng.uniform(0.1, 0.3, (len(radii), 1, 1)) * rng.choice((-1, 1), (len(radii), 1, 1))
        phase = rng.uniform(0, 2 * np.pi, (len(radii), 1, 1))
        outline += height * np.cos(waves * angle + phase)
    inside = radii[:, None, None] * outline - np.hypot(x, y)
    return np.clip(inside / edge + 0.5, 0.0, 1.0)


def _patch(
    rng: Rng, n: int, size: int, colors: Array, taken: Array, radii: Array
) -> tuple[Array, Array]:
    own = rng.uniform(0.08, 0.14, n) * size
    centers = apart(rng, taken, radii + own[:, None], 0.6 * own, size)
    y, x = _offsets(centers, size)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1))
    period = rng.uniform(4.0, 7.0, (n, 1, 1)) * size / 64
    waves = np.sin(2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    first = contrasting(rng, colors, _LOUD)
    second = contrasting(rng, first, _LOUD)
    share = np.clip(0.5 + waves, 0.0, 1.0)[..., None]
    color = share * first[:, None, None] + (1 - share) * second[:, None, None]
    return wobbly(rng, centers, own, 2.0, size), color


def _blob(
    rng: Rng, n: int, size: int, colors: Array, taken: Array, radii: Array
) -> tuple[Array, Array]:
    own = rng.uniform(0.06, 0.12, n) * size
    centers = apart(rng, taken, radii + own[:, None], 0.6 * own, size)
    color = contrasting(rng, colors, _LOUD)[:, None, None]
    return wobbly(rng, centers, own, 1.0, size), color


def _line(
    rng: Rng, n: int, size: int, colors: Array, _taken: Array, _radii: Array
) -> tuple[Array, Array]:
    centers = rng.uniform(0, size, (n, 2))
    y, x = _offsets(centers, size)
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    length = rng.uniform(0.2, 0.5, (n, 1, 1)) * size
    width = rng.uniform(0.6, 1.6, (n, 1, 1))
    along = np.abs(np.cos(angle) * x + np.sin(angle) * y)
    across = np.abs(np.cos(angle) * y - np.sin(angle) * x)
    alpha = np.clip(width - across + 0.5, 0, 1) * np.clip(length - along + 0.5, 0, 1)
    return alpha, contrasting(rng, colors, _LOUD)[:, None, None]


def _offsets(centers: Array, size: int) -> tuple[Any, Any]:
    """Return the offsets of pixels from centers, rows (n, size, 1) and columns (n, 1, size)."""
    middle = np.arange(size) + 0.5
    return (
        middle[:, None] - centers[:, 0, None, None],
        middle - centers[:, 1, None, None],
    )
