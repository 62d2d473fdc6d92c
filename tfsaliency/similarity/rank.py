"""Correlations of ranks and of values, and the overlap of the strongest pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ..arrays import Array
from .protocol import Similarity, absolute, by_map, centered, diverging, dot

_TOP = 0.1  # of the pixels


def average_ranks(values: Array, order: Array | None = None) -> Array:
    """Return the ranks of values (p,), from 0; equal values share their mean rank.

    Parameters
    ----------
    values
        (p,).
    order
        Indices that sort some of the values; the others get rank 0.

    >>> average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist()
    [2.5, 0.0, 2.5, 1.0]
    """
    order = np.argsort(values) if order is None else order
    ordered = values[order]
    first = np.empty(len(order), bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    bounds = np.append(np.flatnonzero(first), len(order))
    means = (bounds[:-1] + bounds[1:] - 1) / 2
    ranks = np.zeros(len(values))
    ranks[order] = means[np.cumsum(first) - 1]
    return ranks


def top_shares(values: Array, k: int) -> Array:
    """Return the probability of each value (p,) to be among the k largest, ties drawn by lot.

    >>> top_shares(np.array([1.0, 3.0, 1.0, 0.0]), 2).tolist()
    [0.5, 1.0, 0.5, 0.0]
    """
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    above = values > threshold
    ties = values == threshold
    return above + (k - above.sum()) / ties.sum() * ties


def membership(values: Array) -> Array:
    """Return the probability of each value to be in the top tenth, over the root of its size.

    The dot product of two such vectors is their expected overlap. NaN if all values are equal.
    """
    if not values.size or values.min() == values.max():
        return np.full(values.shape, np.nan)
    k = max(1, round(_TOP * len(values)))
    return top_shares(values, k) / np.sqrt(k)


def _ranks(values: Array, chosen: Sequence[slice | Array]) -> Iterator[Array]:
    order = np.argsort(values)
    for where in chosen:
        # A subset of sorted values is sorted.
        kept = order if isinstance(where, slice) else order[where[order]]
        yield centered(average_ranks(values, kept)[where] if kept.size else kept)


def _values(values: Array, chosen: Sequence[slice | Array]) -> Iterator[Array]:
    yield from (centered(values[where]) for where in chosen)


def _memberships(values: Array, chosen: Sequence[slice | Array]) -> Iterator[Array]:
    yield from (membership(values[where]) for where in chosen)


spearman = Similarity(
    "spearman", absolute, partial(by_map, vectors=_ranks), dot, "Rank correlation of absolute maps"
)
spearman_signed = Similarity(
    "spearman_signed",
    diverging,
    partial(by_map, vectors=_ranks),
    dot,
    "Rank correlation of signed maps",
)
pearson = Similarity(
    "pearson", diverging, partial(by_map, vectors=_values), dot, "Correlation of signed maps"
)
top_k_overlap = Similarity(
    "top_k_overlap",
    absolute,
    partial(by_map, vectors=_memberships),
    dot,
    "Fraction of the strongest tenth of the pixels that both maps share",
)
