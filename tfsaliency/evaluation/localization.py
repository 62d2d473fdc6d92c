"""Scores of a map against the mask of the pixels that matter: the LOCALISATION table.

With phi a map, M a mask of |M| of p pixels, and top_k(phi) the k largest values:

    pointing_game       1 if the largest value lies in M
    relevance_mass      sum of phi+ in M / sum of phi+,  phi+ = max(phi, 0)
    relevance_rank      |top_|M|(phi) & M| / |M|
    localisation_auc    probability that a pixel in M has a larger value than one outside

By chance, which is to say for a map whose pixels were shuffled, the first three are |M| / p and
the last is .5. Equal values share their places. A score is NaN where the mask is empty, and where
a map is constant or not finite; relevance_mass where nothing is positive, and localisation_auc
where the mask is full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import ImageError
from ..similarity.rank import average_ranks, top_shares


class Localisation(NamedTuple):
    """A score of maps against masks.

    Parameters
    ----------
    name
        The key of LOCALISATION.
    of_one
        (values (p,), mask (p,)) -> float, for one map that varies and a mask that is not empty.
    chance
        The share of the pixels that the masks hold -> the mean score of a map whose pixels were
        shuffled.

    References
    ----------
    Zhang et al. 2016, arXiv:1608.00507 (pointing game); Arras, Osman and Samek 2022,
    arXiv:2003.07258 (relevance mass and rank accuracy).

    Examples
    --------
    >>> import numpy as np
    >>> from tfsaliency import worlds
    >>> score = worlds.LOCALISATION["relevance_mass"]
    >>> maps, masks = np.array([[[3.0, 1.0]]]), np.array([[[True, False]]])
    >>> score(maps, masks), score.chance_of(masks)
    (array([0.75]), array([0.5]))
    """

    name: str
    of_one: Callable[[Array, Array], float]
    chance: Callable[[Array], Array]

    def __call__(self, maps: Any, masks: Any) -> Array:
        """Return the score of each map, (n,).

        Parameters
        ----------
        maps
            (n, h, w), numbers or bool.
        masks
            (n, h, w), bool.

        Raises
        ------
        ImageError
            For other shapes, or masks that are not bool.
        """
        values, marked = _numbers(maps), checked_masks(masks)
        if values.shape != marked.shape:
            raise ImageError(
                f"Expected maps of the masks' shape {marked.shape}. Received: {values.shape}."
            )
        return np.array(
            [self._one(m.ravel(), mask.ravel()) for m, mask in zip(values, marked, strict=True)]
        )

    def chance_of(self, masks: Any) -> Array:
        """Return the mean score that the pixels of a map have in random order, (n,)."""
        share = checked_masks(masks).mean(axis=(1, 2))
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


def _localisation_auc(values: Array, mask: Array) -> float:
    inside = int(mask.sum())
    outside = mask.size - inside
    if not outside:
        return float("nan")
    # Ranks from 0: those of pixels inside count the pixels below, also those inside.
    below = average_ranks(values)[mask].sum() - inside * (inside - 1) / 2
    return float(below / (inside * outside))


def _share(share: Array) -> Array:
    return share


def _half(share: Array) -> Array:
    return np.where(share < 1, 0.5, np.nan)


LOCALISATION: dict[str, Localisation] = {
    score.name: score
    for score in (
        Localisation("pointing_game", _pointing_game, _share),
        Localisation("relevance_mass", _relevance_mass, _share),
        Localisation("relevance_rank", _relevance_rank, _share),
        Localisation("localisation_auc", _localisation_auc, _half),
    )
}


def checked_masks(masks: Any) -> Array:
    """Return masks (n, h, w) of bool as an array, or raise ImageError."""
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
