"""Means, percentiles, and bootstrap intervals of arrays of numbers."""

from __future__ import annotations

import numpy as np

from .arrays import Array

_STRIDE = 16  # of a sample of values
_RESAMPLES, _TAIL = 2000, 2.5  # percent on each side


def nanmean(values: Array) -> float:
    """Return the mean of the finite values, or NaN if there are none.

    >>> nanmean(np.array([1.0, np.nan, 3.0]))
    2.0
    """
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def upper_percentile(values: Array, percentile: float) -> float:
    """Return np.percentile(values, percentile) of values (p,), faster for high percentiles.

    Sorts only the values above a bound. The bound comes from a sample, low enough that it is rarely
    too high; if it is, all values are sorted.

    >>> upper_percentile(np.arange(5.0), 90)
    3.6
    """
    place = (len(values) - 1) * percentile / 100
    wanted = len(values) - int(place)
    sample = values[::_STRIDE]
    of_sample = min(2 * wanted // _STRIDE + _STRIDE, len(sample))
    bound = np.partition(sample, -of_sample)[-of_sample]
    large = values[values >= bound]
    if len(large) < wanted:
        large = values
    low, high = len(large) - wanted, min(len(large) - wanted + 1, len(large) - 1)
    ordered = np.partition(large, (low, high))
    return float(ordered[low]) + (place - int(place)) * float(ordered[high] - ordered[low])


def bootstrap(*tables: Array) -> list[Array]:
    """Return resampled means of tables (R, n), photos and seeds drawn independently.

    All tables use the same draws, which are fixed; undefined cells are left out.
    """
    seeds, photos = tables[0].shape
    rng = np.random.default_rng(0)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES)
    by_photo = rng.multinomial(photos, np.full(photos, 1 / photos), _RESAMPLES)
    means = []
    for table in tables:
        defined = np.isfinite(table)
        total = ((by_seed @ np.where(defined, table, 0.0)) * by_photo).sum(axis=1)
        weight = ((by_seed @ defined) * by_photo).sum(axis=1)
        means.append(np.where(weight > 0, total / np.maximum(weight, 1), np.nan))
    return means


def interval(values: Array) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values, or NaN if none is defined."""
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.percentile(values, (_TAIL, 100 - _TAIL))
    return float(low), float(high)
