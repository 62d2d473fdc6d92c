"""Outlines of the objects: eight classes that differ only in shape.

An outline is a function that tests whether points (u, v) lie inside, in units of its own and
centered at 0, with its area in these units. The classes differ in every rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import acos, cos, pi, sin, sqrt
from typing import NamedTuple

import numpy as np

from ..arrays import Array


class Outline(NamedTuple):
    """A shape: a test of whether points (u, v) lie inside, and its area."""

    inside: Callable[[Array, Array], Array]
    area: float


_HOLE = 0.6  # radius of the ring's hole
_BAR = 2.5  # length of the bar, in widths
_ARM = 1 / 3  # half the width of the cross's arms
_NOTCH = 0.45  # radius of the star's inner corners
_BITE, _BITE_AT = 0.8, 0.5  # radius and center of the disk that is cut out of the crescent
_FIFTH = 2 * pi / 5


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) < 1


def _bar(u: Array, v: Array) -> Array:
    return (np.abs(u) < _BAR) & (np.abs(v) < 1)


def _triangle(u: Array, v: Array) -> Array:
    # Each side of the equilateral triangle in the unit circle is half a radius from the center.
    angles = (pi / 2, pi / 2 + 2 * pi / 3, pi / 2 - 2 * pi / 3)
    return np.logical_and.reduce([-(cos(a) * u + sin(a) * v) < 0.5 for a in angles])


def _cross(u: Array, v: Array) -> Array:
    a, b = np.abs(u), np.abs(v)
    return (np.maximum(a, b) < 1) & (np.minimum(a, b) < _ARM)


def _star(u: Array, v: Array) -> Array:
    # Folded into one tenth, the outline is a line from the tip (1, 0) to an inner corner.
    angle = np.abs(np.mod(np.arctan2(v, u) + _FIFTH / 2, _FIFTH) - _FIFTH / 2)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    corner_x, corner_y = _NOTCH * cos(_FIFTH / 2), _NOTCH * sin(_FIFTH / 2)
    return (x - 1) * corner_y - y * (corner_x - 1) < 0


def _crescent(u: Array, v: Array) -> Array:
    return (np.hypot(u, v) < 1) & (np.hypot(u - _BITE_AT, v) > _BITE)


def _lens(r: float, d: float) -> float:
    """Return the area shared by the unit disk and a disk of radius r at distance d."""
    first = r * r * acos((d * d + r * r - 1) / (2 * d * r))
    second = acos((d * d + 1 - r * r) / (2 * d))
    kite = sqrt((-d + r + 1) * (d + r - 1) * (d - r + 1) * (d + r + 1))
    return first + second - kite / 2


OUTLINES: dict[str, Outline] = {
    "disk": Outline(lambda u, v: np.hypot(u, v) < 1, pi),
    "ring": Outline(
        lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u, v) > _HOLE), pi * (1 - _HOLE**2)
    ),
    "square": Outline(_square, 4.0),
    "bar": Outline(_bar, 4 * _BAR),
    "triangle": Outline(_triangle, 3 * sqrt(3) / 4),
    "cross": Outline(_cross, 8 * _ARM - 4 * _ARM**2),
    "star": Outline(_star, 5 * _NOTCH * sin(_FIFTH / 2)),
    "crescent": Outline(_crescent, pi - _lens(_BITE, _BITE_AT)),
}

# A circle of this radius times the root of the area contains any of the shapes.
REACH = 0.88

_SUBPIXELS = 3  # along each side


def cover(labels: Array, centers: Array, areas: Array, angles: Array, size: int) -> Array:
    """Return the coverage of each pixel by objects, (n, size, size), 0 to 1.

    Parameters
    ----------
    labels
        Indices into OUTLINES, (n,).
    centers
        (n, 2), row and column, in pixels.
    areas
        In pixels, (n,).
    angles
        In radians, (n,).
    """
    fine = (np.arange(size * _SUBPIXELS) + 0.5) / _SUBPIXELS
    result = np.empty((len(labels), size, size))
    for label, outline in enumerate(OUTLINES.values()):
        where = np.flatnonzero(labels == label)
        unit = np.sqrt(outline.area / areas[where])[:, None, None]
        y = unit * (fine[:, None] - centers[where, 0, None, None])
        x = unit * (fine - centers[where, 1, None, None])
        c, s = (f(angles[where])[:, None, None] for f in (np.cos, np.sin))
        inside = outline.inside(c * x + s * y, c * y - s * x)
        blocks = inside.reshape(len(where), size, _SUBPIXELS, size, _SUBPIXELS)
        result[where] = blocks.mean(axis=(2, 4))
    return result
