"""Structural similarity (Wang et al. 2004) of maps.

    (2 ma mb + C1)(2 sab + C2) / ((ma^2 + mb^2 + C1)(sa^2 + sb^2 + C2)),  C = (K R)^2

at each position of a window, from the means, variances and the covariance inside; then the mean
over positions. Terms of one map alone are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import OptionError
from .protocol import Mask, Similarity, absolute, diverging

_K1, _K2 = 0.01, 0.03


class _Window(NamedTuple):
    """A window: weights along one axis, and the range R of the values."""

    weights: Array  # an odd number, symmetric
    range: float
    unbiased: float  # factor of mean products of deviations


class _Moments(NamedTuple):
    """Maps (n, h, w), their means and mean squares at each position, and the selected positions.

    counts is (n, masks, positions).
    """

    maps: Array
    means: Array
    squares: Array
    counts: Array


def _local_mean(one: Array, weights: Array) -> Array:
    """Return the weighted mean of a map (h, w) at each position where the window fits."""
    taps = weights.astype(one.dtype)
    return _along(_along(one, taps).T, taps).T  # the window is separable


def _along(one: Array, taps: Array) -> Array:
    """Slide symmetric weights along the first axis of a map (h, w)."""
    # Shifted additions of one map at a time stay in the processor's cache: faster than a matrix
    # product, and without BLAS threads, which would compete with TensorFlow.
    places, last = len(one) - len(taps) + 1, len(taps) - 1
    middle = last // 2
    total = taps[middle] * one[middle : middle + places]
    pair = np.empty_like(total)
    for shift, tap in enumerate(taps[:middle]):
        np.add(one[shift : shift + places], one[last - shift : last - shift + places], out=pair)
        pair *= tap
        total += pair
    return total


def _similarity(
    name: str, preparation: Callable[[Array], Array], window: _Window, description: str
) -> Similarity:
    size = len(window.weights)
    c1, c2 = (_K1 * window.range) ** 2, (_K2 * window.range) ** 2

    def features(maps: Array, masks: Sequence[Mask]) -> _Moments:
        if min(maps.shape[1:]) < size:
            raise OptionError(
                f"The similarity {name!r} has windows of {size} x {size}. Expected "
                f"maps of at least that size. Received: {maps.shape[1]} x {maps.shape[2]}. "
                "Use another similarity, such as 'spearman'."
            )
        means = np.stack([_local_mean(one, window.weights) for one in maps])
        squares = np.stack([_local_mean(one * one, window.weights) for one in maps])
        inner = slice(size // 2, -(size // 2))
        counts = np.ones((len(maps), len(masks), means[0].size), maps.dtype)
        for j, mask in enumerate(masks):
            if mask is not None:
                counts[:, j] = mask[:, inner, inner].reshape(len(maps), -1)
        return _Moments(maps, means, squares, counts)

    def index(a: _Moments, b: _Moments) -> Array:
        """Return the index (places,) of two maps (h, w)."""
        product = a.means * b.means
        powers = a.means * a.means + b.means * b.means
        covariance = window.unbiased * (_local_mean(a.maps * b.maps, window.weights) - product)
        variances = window.unbiased * (a.squares + b.squares - powers)
        return (
            (2 * product + c1) * (2 * covariance + c2) / ((powers + c1) * (variances + c2))
        ).ravel()

    def compare(a: _Moments, b: _Moments) -> Array:
        # An undefined map is NaN everywhere, and so is its sum.
        pairs = (map(_Moments._make, zip(*each, strict=True)) for each in (a, b))
        total = [
            (one.counts * index(one, other)).sum(axis=-1, dtype=np.float64)
            for one, other in zip(*pairs, strict=True)
        ]
        places = a.counts.sum(axis=-1)
        return np.where(places > 0, total / np.maximum(places, 1), np.nan)

    return Similarity(name, preparation, features, compare, description, images_only=True)


def _gaussian(size: int, sigma: float) -> Array:
    weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return weights / weights.sum()


# "ssim" compares maps in [0, 1] with a Gaussian window; "ssim_adebayo" compares maps in [-1, 1]
# with a uniform window and sample covariances. With a mask, the index is averaged over the
# positions whose center is selected.
ssim = _similarity(
    "ssim",
    absolute,
    _Window(_gaussian(11, 1.5), 1.0, 1.0),
    "Structural similarity of absolute maps, Gaussian window",
)
ssim_adebayo = _similarity(
    "ssim_adebayo",
    diverging,
    _Window(np.full(5, 1 / 5), 2.0, 5 * 5 / (5 * 5 - 1)),
    "Structural similarity of signed maps, uniform window, as Adebayo et al.",
)
