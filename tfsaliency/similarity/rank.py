"""Correlations of pixels: of their ranks, of their values, of the strongest."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .kinds import Similarity, absolute, by_map, centred, diverging, dot

_TOP = 0.1  # of the pixels


def average_ranks(values: Array) -> Array:
    """Return the ranks of values (p,), from 0; equal values share the mean of theirs.

    >>> average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist()
    [2.5, 0.0, 2.5, 1.0]
    """
    order = np.argsort(values)
    ordered = values[order]
    first = np.empty(len(values), bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    bounds = np.append(np.flatnonzero(first), len(values))
    means = (bounds[:-1] + bounds[1:] - 1) / 2
    ranks = np.empty(len(values))
    ranks[order] = means[np.cumsum(first) - 1]
    return ranks


def membership(values: Array) -> Array:
    """Return how likely each of values (p,) is among the top tenth, over the root of its number.

    Values that tie for the last places share them, so that the product of two of these vectors is
    the expected part of the top that they have in common. NaN where all values are equal.
    """
    if values.min() == values.max():
        return np.full(values.shape, np.nan)
    k = max(1, round(_TOP * len(values)))
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    above = values > threshold
    ties = values == threshold
    share = (k - above.sum()) / ties.sum()
    return (above + share * ties) / np.sqrt(k)


spearman = Similarity(
    "spearman",
    absolute,
    lambda maps, mask: by_map(maps, mask, lambda v: centred(average_ranks(v))),
    dot,
)
spearman_signed = Similarity(
    "spearman_signed",
    diverging,
    lambda maps, mask: by_map(maps, mask, lambda v: centred(average_ranks(v))),
    dot,
)
pearson = Similarity("pearson", diverging, lambda maps, mask: by_map(maps, mask, centred), dot)
top_k_overlap = Similarity(
    "top_k_overlap", absolute, lambda maps, mask: by_map(maps, mask, membership), dot
)
