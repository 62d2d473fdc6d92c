"""What a similarity is, and how maps are prepared for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import OptionError

_CLIPPED = 99.0  # percentile of a map's values, above which they count alike


class Similarity(NamedTuple):
    """A similarity of maps, in two halves.

    Parameters
    ----------
    name
        The key of SIMILARITIES.
    preparation
        (n, h, w, c) -> (n, h, w): absolute, diverging, or a function of your own.
    features
        (prepared maps (n, h, w), mask (n, h, w) or None) -> what is compared. With a mask, of the
        pixels in it alone.
    compare
        (features, features) -> (n,); NaN where a map is like nothing.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> maps = np.random.default_rng(0).normal(size=(2, 16, 16))
    >>> tfs.SIMILARITIES["spearman"](maps, maps).round(6).tolist()
    [1.0, 1.0]
    """

    name: str
    preparation: Callable[[Array], Array]
    features: Callable[[Array, Array | None], Any]
    compare: Callable[[Any, Any], Array]

    def __call__(self, a: Array, b: Array, mask: Array | None = None) -> Array:
        """Return how alike each map of a is to the map of b beside it, (n,)."""
        first, second = as_attributions(a), as_attributions(b)
        if first.shape[:-1] != second.shape[:-1]:
            raise OptionError(
                "Expected two arrays of maps of the same shape (n, h, w). "
                f"Received: {np.shape(a)} and {np.shape(b)}."
            )
        parts = [self.features(self.preparation(maps), mask) for maps in (first, second)]
        return self.compare(*parts)


def as_attributions(maps: Array) -> Array:
    """Return maps (n, h, w) as attributions of one channel; (n, h, w, c) as they are."""
    array = np.asarray(maps)
    if array.ndim not in (3, 4):
        raise OptionError(
            f"Expected maps (n, h, w) or attributions (n, h, w, c). Received: shape {array.shape}."
        )
    return array if array.ndim == 4 else array[..., np.newaxis]


def absolute(maps: Array) -> Array:
    """Sum absolute values over channels, clip at the 99th percentile, rescale to [0, 1].

    Parameters
    ----------
    maps
        (n, h, w, c).

    Returns
    -------
    (n, h, w); NaN where a map is constant or not finite.
    """
    summed = np.abs(maps).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        top = np.percentile(summed, _CLIPPED, axis=(1, 2), keepdims=True).astype(summed.dtype)
        low = summed.min(axis=(1, 2), keepdims=True)
        # Of a map of few non-zero values the percentile is its minimum: then nothing is clipped.
        top = np.where(top > low, top, summed.max(axis=(1, 2), keepdims=True))
        span = np.where((top > low) & np.isfinite(top), top - low, np.nan).astype(summed.dtype)
        return (np.minimum(summed, top) - low) / span


def diverging(maps: Array) -> Array:
    """Sum over channels, divide by the size of the 99th percentile, clip to [-1, 1].

    Parameters
    ----------
    maps
        (n, h, w, c).

    Returns
    -------
    (n, h, w); NaN where a map is constant, not finite, or zero at its 99th percentile.
    """
    summed = maps.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        top = np.abs(np.percentile(summed, _CLIPPED, axis=(1, 2), keepdims=True))
        varies = np.ptp(summed, axis=(1, 2), keepdims=True) > 0
        usable = varies & (top > 0) & np.isfinite(top)
        return np.clip(summed / np.where(usable, top, np.nan).astype(summed.dtype), -1.0, 1.0)


def centred(values: Array) -> Array:
    """Return the vector of mean 0 and length 1, float64; NaN for a constant one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = values - values.mean(dtype=np.float64)
        length = np.sqrt(np.dot(shifted, shifted))
        # What is left of equal values after rounding is no vector.
        if not length > 1e-9 * np.sqrt(len(values)) * (np.abs(values).max() or 1.0):
            return np.full(values.shape, np.nan)
        return shifted / length


def by_map(maps: Array, mask: Array | None, vector: Callable[[Array], Array]) -> Array:
    """Return a vector (p,) for each map, NaN where there is none.

    Parameters
    ----------
    maps
        (n, h, w), prepared.
    mask
        (n, h, w), the pixels to look at; the others get 0.
    vector
        A function of the values of one map that are looked at.
    """
    flat = maps.reshape(len(maps), -1)
    result = np.zeros(flat.shape)
    for i, values in enumerate(flat):
        where = slice(None) if mask is None else mask[i].ravel()
        chosen = values[where]
        if chosen.size < 2 or not np.isfinite(chosen).all():
            result[i] = np.nan
            continue
        found = vector(chosen)
        result[i, where] = found
        if np.isnan(found[0]):
            result[i] = np.nan
    return result


def dot(a: Array, b: Array) -> Array:
    """Multiply two arrays of vectors (n, p) row by row, (n,)."""
    return np.einsum("np,np->n", a, b)
