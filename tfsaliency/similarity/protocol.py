"""The protocol of similarities, and the preparation of maps for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import OptionError
from ..statistics import upper_percentile

_CLIPPED = 99.0  # percentile at which to clip a map


Mask = Array | None
Vectors = Callable[[Array, Sequence[slice | Array]], Iterable[Array]]


@dataclass(frozen=True)
class Similarity:
    """A similarity of maps, in two parts: features of one map, and their comparison.

    Parameters
    ----------
    name
        The key of SIMILARITIES.
    preparation
        Function (n, h, w, c) -> (n, h, w): absolute, diverging, or your own.
    features
        Function (prepared maps (n, h, w), masks) -> features: an array or a tuple of arrays whose
        first axis is that of the maps. A mask (n, h, w) selects pixels; None selects all.
    compare
        Function (features, features) -> (n, masks); NaN if a similarity is undefined.
    description
        One line about it.
    images_only
        Whether it compares neighborhoods in rows and columns, which sequences and volumes lack.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> maps = np.random.default_rng(0).normal(size=(2, 16, 16))
    >>> tfs.SIMILARITIES["spearman"](maps, maps).round(6).tolist()
    [1.0, 1.0]
    """

    name: str
    preparation: Callable[[Array], Array]
    features: Callable[[Array, Sequence[Mask]], Any]
    compare: Callable[[Any, Any], Array]
    description: str = ""
    images_only: bool = False

    def __call__(self, a: Array, b: Array, mask: Mask = None) -> Array:
        """Return the similarity of each map of a to the corresponding map of b, (n,)."""
        first, second = as_attributions(a), as_attributions(b)
        if first.shape[:-1] != second.shape[:-1]:
            raise OptionError(
                "Expected two arrays of maps of the same shape (n, h, w). "
                f"Received: {np.shape(a)} and {np.shape(b)}."
            )
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype != np.bool_ or mask.shape != first.shape[:-1]:
                raise OptionError(
                    f"Expected a mask of booleans of shape {first.shape[:-1]}. "
                    f"Received: {mask.dtype} of shape {mask.shape}."
                )
        parts = [self.features(self.preparation(maps), (mask,)) for maps in (first, second)]
        return self.compare(*parts)[:, 0]


def as_attributions(maps: Array) -> Array:
    """Return maps (n, h, w) as attributions with one channel; keep (n, h, w, c)."""
    array = np.asarray(maps)
    if array.ndim not in (3, 4):
        raise OptionError(
            f"Expected maps (n, h, w) or attributions (n, h, w, c). Received: shape {array.shape}."
        )
    return array if array.ndim == 4 else array[..., np.newaxis]


def as_pictures(arrays: Array) -> Array:
    """Arrange images, sequences, volumes or features as (n, h, w, c), for similarities.

    Sequences (n, t, c) become one row, slices of volumes (n, d, h, w, c) rows, features (n, f) a
    row of one channel. Images stay as they are.

    >>> as_pictures(np.zeros((2, 7, 3))).shape, as_pictures(np.zeros((2, 4, 5, 6, 1))).shape
    ((2, 1, 7, 3), (2, 4, 30, 1))
    """
    if arrays.ndim == 2:
        arrays = arrays[..., np.newaxis]
    if arrays.ndim == 3:
        return arrays[:, np.newaxis]
    return arrays.reshape(*arrays.shape[:2], -1, arrays.shape[-1])


def absolute(maps: Array) -> Array:
    """Sum absolute values over channels, clip at the 99th percentile, rescale to [0, 1].

    Parameters
    ----------
    maps
        (n, h, w, c).

    Returns
    -------
    (n, h, w); NaN if a map is constant or not finite.
    """
    summed = _sum_of_channels(np.abs(maps))
    with np.errstate(invalid="ignore"):
        top = _percentile(summed)
        low = summed.min(axis=(1, 2), keepdims=True)
        # If few values are not zero, the percentile is the minimum; then do not clip.
        top = np.where(top > low, top, summed.max(axis=(1, 2), keepdims=True))
        usable = (top > low) & _are_finite(summed)
        span = np.where(usable, top - low, np.nan).astype(summed.dtype)
        return (np.minimum(summed, top) - low) / span


def diverging(maps: Array) -> Array:
    """Sum over channels, divide by the absolute 99th percentile, clip to [-1, 1].

    Parameters
    ----------
    maps
        (n, h, w, c).

    Returns
    -------
    (n, h, w); NaN if a map is constant, not finite, or zero at its 99th percentile.
    """
    summed = _sum_of_channels(maps)
    with np.errstate(invalid="ignore"):
        top = np.abs(_percentile(summed))
        varies = np.ptp(summed, axis=(1, 2), keepdims=True) > 0
        usable = varies & (top > 0) & _are_finite(summed)
        return np.clip(summed / np.where(usable, top, np.nan).astype(summed.dtype), -1.0, 1.0)


def _sum_of_channels(maps: Array) -> Array:
    # Five times as fast as maps.sum(axis=-1) for a short last axis.
    return np.einsum("nhwc->nhw", maps, dtype=np.result_type(maps.dtype, np.float32))


def _are_finite(maps: Array) -> Array:
    """Return whether all values of each map are finite, (n, 1, 1)."""
    return np.asarray(np.isfinite(maps).all(axis=(1, 2), keepdims=True))


def _percentile(maps: Array) -> Array:
    """Return the 99th percentile of each map, (n, 1, 1); arbitrary if it is not finite."""
    found = [upper_percentile(one.ravel(), _CLIPPED) for one in maps]
    return np.array(found, maps.dtype)[:, np.newaxis, np.newaxis]


def centered(values: Array) -> Array:
    """Return values (p,) with mean 0 and norm 1, float64; NaN for constant values."""
    if not values.size:
        return np.full(0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = values - values.mean(dtype=np.float64)
        length = np.sqrt(np.square(shifted).sum())
        # The rest of equal values is rounding error.
        if not length > 1e-9 * np.sqrt(len(values)) * (np.abs(values).max() or 1.0):
            return np.full(values.shape, np.nan)
        return shifted / length


def by_map(maps: Array, masks: Sequence[Mask], vectors: Vectors) -> Array:
    """Return vectors (n, masks, p) of maps; NaN if undefined, 0 outside a mask.

    Parameters
    ----------
    maps
        (n, h, w), prepared.
    masks
        The selected pixels, each (n, h, w) or None.
    vectors
        Function of the values (p,) of one map and of selections of them, which yields one vector
        for each selection.
    """
    flat = maps.reshape(len(maps), -1)
    result = np.zeros((len(flat), len(masks), flat.shape[1]))
    for i, values in enumerate(flat):
        chosen = [slice(None) if mask is None else mask[i].ravel() for mask in masks]
        found = vectors(values, chosen) if np.isfinite(values).all() else [np.array([np.nan])]
        for j, (where, vector) in enumerate(zip(chosen, cycle(found))):
            result[i, j, where] = vector
            if not vector.size or np.isnan(vector[0]):
                result[i, j] = np.nan
    return result


def dot(a: Array, b: Array) -> Array:
    """Return the dot products (n, masks) of two arrays of vectors (n, masks, p)."""
    return np.einsum("nmp,nmp->nm", a, b)
