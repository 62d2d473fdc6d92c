"""Controls, which resemble maps but need no network: the CONTROLS table.

They are the edges of the image, the image times noise, noise alone, and a centered blob.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..similarity import SIMILARITIES
from ..similarity.protocol import as_pictures
from ..statistics import nanmean
from ..tables import Table

_SPEARMAN = SIMILARITIES["spearman"]
_BLOB = 0.25  # standard deviation of the blob, of the height and of the width
_ALIKE = 0.02  # Spearman correlations that differ by less are not distinguished


@dataclass(frozen=True)
class ExplainedBy:
    """Spearman correlations of a method's absolute maps with controls that need no network.

    Parameters
    ----------
    edges
        Between the trained network's maps and the edges of the images, averaged over images.
    noise
        Between the trained network's maps and the images times noise.
    noise_to_noise
        Between the images times two independent noises: the value to expect from a map that ignores
        the network.
    spearman
        Between the trained and the randomized networks' maps, at the headline step.
    like_noise
        Whether noise_to_noise and spearman differ by at most .02, so that the correlation cannot
        distinguish the method from the image times noise.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> tfs.ExplainedBy(.3, .1, .99, .985, True).like_noise
    True
    """

    edges: float
    noise: float
    noise_to_noise: float
    spearman: float
    like_noise: bool


def edge_map(images: Array) -> Array:
    """Return the magnitude of the Sobel gradient of images (n, ..., c), summed over channels."""
    axes = range(1, images.ndim - 1)
    margins = [(0, 0), *((1, 1) for _ in axes), (0, 0)]
    padded = np.pad(images.astype(np.float64), margins, mode="reflect")
    slopes = []
    for axis in axes:
        slope = _shifted(padded, axis, 1) - _shifted(padded, axis, -1)
        for other in axes:
            if other != axis:
                before, here, after = (_shifted(slope, other, step) for step in (-1, 0, 1))
                slope = before + 2 * here + after
        slopes.append(slope)
    return np.asarray(functools.reduce(np.hypot, slopes, np.zeros(()))).sum(axis=-1)


def _shifted(array: Array, axis: int, step: int) -> Array:
    """Return an array without both ends of an axis, moved by a step of -1, 0 or 1 along it."""
    size = array.shape[axis]
    return np.take(array, np.arange(1 + step, size - 1 + step), axis)


def _times_noise(images: Array, rng: np.random.Generator) -> Array:
    exact = images.astype(np.float64)
    return exact * rng.normal(size=exact.shape)


def _random_map(images: Array, rng: np.random.Generator) -> Array:
    """Return uniform noise."""
    return rng.uniform(size=images.shape[:3])


def _edges(images: Array, rng: np.random.Generator) -> Array:
    """Return the magnitude of the Sobel gradient of the image."""
    return edge_map(images)


def _absolute_times_noise(images: Array, rng: np.random.Generator) -> Array:
    """Return the absolute image times normal noise."""
    return np.abs(_times_noise(images, rng)).sum(axis=-1)


def _center_blob(images: Array, rng: np.random.Generator) -> Array:
    """Return a Gaussian in the center."""
    n, h, w = images.shape[:3]
    y, x = ((np.arange(side) - (side - 1) / 2) / (_BLOB * side) for side in (h, w))
    return np.broadcast_to(np.exp(-(y[:, np.newaxis] ** 2 + x**2) / 2), (n, h, w))


# Functions of preprocessed images (n, h, w, c) and a random generator to (n, h, w).
Control = Callable[[Array, np.random.Generator], Array]

CONTROLS: Table[Control] = Table(
    "control",
    {
        "random_map": _random_map,
        "edge_map": _edges,
        "x_times_noise": _absolute_times_noise,
        "center_blob": _center_blob,
    },
)


def compare_with_controls(
    maps: Mapping[str, Array], images: Array, spearman: Mapping[str, float]
) -> dict[str, ExplainedBy]:
    """Compare the maps of each method with the controls.

    Parameters
    ----------
    maps
        Attributions of the trained network, (n, h, w, c), by method; also of sequences, volumes
        and features.
    images
        The preprocessed images, likewise.
    spearman
        The mean correlation of trained and randomized maps, by method.
    """
    rng = np.random.default_rng(0)
    images = images[..., np.newaxis] if images.ndim == 2 else images  # (n, f)
    first, second = (_times_noise(images, rng) for _ in range(2))
    controls = edge_map(images)[..., np.newaxis], first, second
    edges, noise, other = (_features(as_pictures(m)) for m in controls)
    between = _mean(noise, other)
    explained = {}
    for method, attributions in maps.items():
        own = _features(as_pictures(attributions))
        alike = bool(abs(between - spearman[method]) <= _ALIKE)
        explained[method] = ExplainedBy(
            _mean(own, edges), _mean(own, noise), between, spearman[method], alike
        )
    return explained


def _features(maps: Array) -> Array:
    return _SPEARMAN.features(_SPEARMAN.preparation(maps), (None,))


def _mean(a: Array, b: Array) -> float:
    return nanmean(_SPEARMAN.compare(a, b))
