"""Localization metrics of a map against the mask of the relevant pixels.

With phi a map, M a mask of |M| of p pixels, and top_k(phi) the k largest values:

    pointing_game       1 if the largest value lies in M
    relevance_mass      sum of phi+ in M / sum of phi+,  phi+ = max(phi, 0)
    relevance_rank      |top_|M|(phi) & M| / |M|
    localization_auc    probability that a pixel in M has a larger value than one outside

For a map with shuffled pixels (chance), the first three are |M| / p and the last is .5. Ties are
shared. A metric is NaN if the mask is empty, or the map is constant or not finite; relevance_mass
also if nothing is positive, and localization_auc if the mask is full.

Zhang et al. 2016, arXiv:1608.00507 (pointing game); Arras, Osman and Samek 2022, arXiv:2003.07258
(relevance mass and rank accuracy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import ImageError
from ..similarity.rank import average_ranks, top_shares
from .metric import Context, Metric


@dataclass(frozen=True)
class Localization:
    """A metric of maps against masks.

    Parameters
    ----------
    of_one
        Function (values (p,), mask (p,)) -> float, for a map that varies and a mask that is not
        empty.
    chance
        Function from the fraction of pixels in the mask to the mean value for a shuffled map.

    Examples
    --------
    >>> half = Localization(_localization_auc, _half)
    >>> half(np.array([[[3.0, 1.0]]]), np.array([[[True, False]]]))
    array([1.])
    """

    of_one: Callable[[Array, Array], float]
    chance: Callable[[Array], Array]

    needs_masks = True

    def __call__(self, maps: Any, masks: Any) -> Array:
        """Return the value of each map, (n,).

        Parameters
        ----------
        maps
            (n, h, w), numbers or bool.
        masks
            (n, h, w), bool, or the Context of the image of all maps.

        Raises
        ------
        ImageError
            If shapes differ, or masks are not bool.
        """
        values = _numbers(maps)
        if isinstance(masks, Context):
            masks = np.broadcast_to(np.asarray(masks.mask), values.shape)
        marked = check_masks(masks)
        if values.shape != marked.shape:
            raise ImageError(
                f"Expected maps of the masks' shape {marked.shape}. Received: {values.shape}."
            )
        return np.array(
            [self._one(m.ravel(), mask.ravel()) for m, mask in zip(values, marked, strict=True)]
        )

    def chance_of(self, masks: Any) -> Array:
        """Return the mean value for a map with shuffled pixels, (n,)."""
        share = check_masks(masks).mean(axis=(1, 2))
        return np.where(share > 0, self.chance(share), np.nan)

    def _one(self, values: Array, mask: Array) -> float:
        if not mask.any() or not np.isfinite(values).all() or np.ptp(values) == 0:
            return float("nan")
        return float(self.of_one(values, mask))


def _pointing_game(values: Array, mask: Array) -> float:
    return float(top_shares(values, 1)[mask].sum())


def _relevance_mass(values: Array, mask: Array) -> float:
    positive = np.maximum(values, 0).astype(np.float64)
    total = positive.sum()
    return positive[mask].sum() / total if total > 0 else float("nan")


def _relevance_rank(values: Array, mask: Array) -> float:
    size = int(mask.sum())
    return float(top_shares(values, size)[mask].sum() / size)


def _localization_auc(values: Array, mask: Array) -> float:
    inside = int(mask.sum())
    outside = mask.size - inside
    if not outside:
        return float("nan")
    # Ranks start at 0; the rank of a pixel inside counts all lower pixels, also those inside.
    below = average_ranks(values)[mask].sum() - inside * (inside - 1) / 2
    return float(below / (inside * outside))


def _share(share: Array) -> Array:
    return share


def _half(share: Array) -> Array:
    return np.where(share < 1, 0.5, np.nan)


LOCALIZATION = (
    Metric(
        "pointing_game",
        Localization(_pointing_game, _share),
        description="1 if the largest value is in the mask, else 0",
    ),
    Metric(
        "relevance_mass",
        Localization(_relevance_mass, _share),
        description="Fraction of the map's sum in the mask",
    ),
    Metric(
        "relevance_rank",
        Localization(_relevance_rank, _share),
        description="Fraction of the k largest values inside a mask of k pixels",
    ),
    Metric(
        "localization_auc",
        Localization(_localization_auc, _half),
        description="Probability that a pixel inside has a larger value than one outside",
    ),
)


def check_masks(masks: Any) -> Array:
    """Return boolean masks (n, h, w) as an array, or raise ImageError."""
    marked = np.asarray(masks)
    if marked.ndim != 3 or marked.dtype != np.bool_:
        remedy = " A threshold makes them bool: masks > 0." if marked.dtype.kind in "uif" else ""
        raise ImageError(
            "Expected masks (n, h, w) of bool. "
            f"Received: {marked.dtype} of shape {marked.shape}.{remedy}"
        )
    return marked


def _numbers(maps: Any) -> Array:
    values = np.asarray(maps)
    if values.dtype.kind not in "uifb":
        raise ImageError(f"Expected maps (n, h, w) of numbers. Received: {values.dtype}.")
    return values.astype(np.float64) if values.dtype.kind == "b" else values
