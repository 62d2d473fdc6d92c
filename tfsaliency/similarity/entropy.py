"""Relative increase of the complexity of a map: eMPRT (Hedstroem et al. 2023).

The complexity of a map is the entropy of its histogram, in 100 equal bins between its minimum and
maximum. Maps of a random network should be more complex.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from .protocol import Mask, Similarity

_BINS = 100


def _summed(maps: Array) -> Array:
    return np.abs(maps).sum(axis=-1)


def _entropies(maps: Array, masks: Sequence[Mask]) -> Array:
    """Return the entropy of each map's histogram, in nats."""
    entropies = np.full((len(maps), len(masks)), np.nan)
    for i, j in np.ndindex(entropies.shape):
        mask = masks[j]
        chosen = (maps[i].ravel() if mask is None else maps[i][mask[i]]).astype(np.float64)
        if chosen.size and np.isfinite(chosen).all() and chosen.min() < chosen.max():
            counts, _ = np.histogram(chosen, bins=_BINS)
            shares = counts[counts > 0] / counts.sum()
            entropies[i, j] = -(shares * np.log(shares)).sum()
    return entropies


def _rise(trained: Array, randomized: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(trained > 0, (randomized - trained) / trained, np.nan)


emprt = Similarity(
    "emprt",
    _summed,
    _entropies,
    _rise,
    "Relative increase of the entropy of the map's histogram (eMPRT)",
)
