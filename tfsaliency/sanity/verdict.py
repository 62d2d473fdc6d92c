"""From the maps of a trained network and of randomized ones to a verdict with an interval.

Arrays only: nothing here knows of a model. With E(f, x) the signed, unreduced attribution of the
network f on the photo x, and r a randomized copy of it:

    s[r, i] = |prep E(f, x_i) . prep E(r, x_i)|    how alike on the same photo
    c[r, i] = mean of |prep E(f, x_i) . prep E(r, x_j)| over other photos j
    invariance = (mean s - C) / (1 - C), C = mean c, at most .5, clipped to [0, 1]

which is about the share of the map's variance that survives the randomization. How the constants
were found, and what was tried instead: docs/decisions.md, "The verdict".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import OptionError
from ..statistics import bootstrap, interval, nanmean, upper_percentile
from ..tables import short

INCONCLUSIVE = "inconclusive"
DOES_NOT_DEPEND = "does not depend"
PARAMETERS = "the parameters"

DEPENDS_BELOW, DOES_NOT_DEPEND_ABOVE = 0.4, 0.7

_CLIPPED = 99.0  # percentile of the non-zero sizes
_FLAT = 1e-6  # of the root of the number of values: a norm up to it is that of a constant map
_OTHERS = 8  # photos that a map is compared with, at most
CHANCE_LIMIT = 0.5
_ENOUGH = 0.5  # of the cells are defined
_FEWEST = 2  # photos, and seeds


class Cells(NamedTuple):
    """What one randomized network gives, for each photo; NaN where a map is undefined.

    Parameters
    ----------
    same
        Likeness to the trained network's map of the same photo, (n,).
    other
        Mean likeness to the trained network's maps of other photos, (n,).
    signed
        As same, before the absolute value is taken, (n,).
    """

    same: Array
    other: Array
    signed: Array


@dataclass(frozen=True)
class Verdict:
    """Whether maps depend on what was randomized, with the numbers it rests on.

    Parameters
    ----------
    verdict
        "depends on the parameters", "does not depend" or "inconclusive".
    invariance
        About the share of the maps' variance that survives, 0 to 1; NaN where nothing is defined.
    low, high
        Its 95 % interval, over photos and seeds.
    same, other
        The mean likeness on the same photo, and on different ones.
    signed
        The mean likeness on the same photo with its sign.
    defined, cells
        How many pairs of maps were comparable, and of how many.
    reason
        Why it is inconclusive, or what to mind; empty otherwise.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> rng = np.random.default_rng(0)
    >>> trained = rng.normal(size=(8, 32, 32, 3))
    >>> print(tfs.judge(trained, rng.normal(size=(4, 8, 32, 32, 3))))
    depends on the parameters: invariance .00 [.00, .01]
    >>> print(tfs.judge(trained, np.stack([trained] * 4)))
    does not depend: invariance 1.00 [1.00, 1.00]
    """

    verdict: str
    invariance: float
    low: float
    high: float
    same: float
    other: float
    signed: float
    defined: int
    cells: int
    reason: str = ""

    def __str__(self) -> str:
        numbers = f"invariance {short(self.invariance)} [{short(self.low)}, {short(self.high)}]"
        return f"{self.verdict}: {numbers}" + (f" ({self.reason})" if self.reason else "")


def judge(trained: Any, randomized: Any) -> Verdict:
    """Judge whether attributions depend on the parameters, from the attributions alone.

    Parameters
    ----------
    trained
        Signed attributions of the trained network, (n, h, w, c), one for each photo.
    randomized
        Those of R randomized networks for the same photos and classes, (R, n, h, w, c).

    Returns
    -------
    Verdict; "inconclusive" with the reason for fewer than two photos or two networks.

    Raises
    ------
    OptionError
        For arrays of other shapes.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, for the question.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> rng = np.random.default_rng(0)
    >>> fixed, fresh = rng.normal(size=(8, 24, 24, 3)), rng.normal(size=(4, 8, 24, 24, 3))
    >>> tfs.judge(fixed, .9 * fixed + .1 * fresh).verdict
    'does not depend'
    """
    first, others = np.asarray(trained), np.asarray(randomized)
    if first.ndim < 2 or others.shape[1:] != first.shape or not len(others) or not len(first):
        raise OptionError(
            "Expected trained (n, h, w, c) and randomized (R, n, h, w, c). "
            f"Received: shapes {first.shape} and {others.shape}."
        )
    units = normalize_maps(first)
    cells = [compare_maps(units, normalize_maps(maps)) for maps in others]
    same, other, signed = (np.stack(table) for table in zip(*cells, strict=True))
    return decide(same, other, signed)


def normalize_maps(maps: Array) -> Array:
    """Prepare attributions (n, ...) to be compared by dot products.

    Values are clipped at the 99th percentile of the sizes of those that are not zero; then the
    mean is taken off and the length made 1.

    Returns
    -------
    (n, p); NaN for a map that is zero, constant, or not finite.
    """
    flat = np.asarray(maps).reshape(len(maps), -1)
    result = np.full(flat.shape, np.nan, np.result_type(flat.dtype, np.float32))
    for i, values in enumerate(flat):
        largest = np.abs(values).max(initial=0.0)
        if not np.isfinite(largest) or largest == 0:
            continue
        scaled = values / largest  # so that no size of a map is too small for the dtype
        sizes = np.abs(scaled)
        top = upper_percentile(sizes if sizes.all() else sizes[sizes > 0], _CLIPPED)
        clipped = np.clip(scaled / result.dtype.type(top), -1.0, 1.0)
        clipped -= clipped.mean(dtype=np.float64)
        length = np.sqrt(np.square(clipped).sum(dtype=np.float64))
        if length > _FLAT * np.sqrt(values.size):
            result[i] = clipped / length
    return result


def compare_maps(trained: Array, randomized: Array) -> Cells:
    """Compare maps of the trained network with those of a randomized one, both by normalize_maps.

    Parameters
    ----------
    trained, randomized
        (n, p), for the same photos.
    """
    n = len(trained)
    # Each map of the trained network against each of the randomized one.
    table = np.einsum("ip,jp->ij", trained, randomized)
    signed = np.diagonal(table).astype(np.float64)
    others = [
        [abs(table[i, (i + q) % n]) for q in range(1, min(_OTHERS, n - 1) + 1)] for i in range(n)
    ]
    return Cells(np.abs(signed), _row_means(np.array(others, np.float64)), signed)


def decide(same: Array, other: Array, signed: Array, of: str = PARAMETERS) -> Verdict:
    """Return the verdict on what R randomized networks gave.

    Parameters
    ----------
    same, other, signed
        The fields of Cells for each network, (R, n).
    of
        What was randomized, in words.
    """
    seeds, photos = same.shape
    count = int(np.isfinite(same).sum())
    alike, chance = nanmean(same), nanmean(other)
    invariance = float(compute_invariance(alike, chance))
    low, high = _interval(same, other)
    reason = _reason(photos, seeds, count, same.size)
    verdict = INCONCLUSIVE
    if not reason:
        if high < DEPENDS_BELOW:
            verdict = f"depends on {of}"
        elif low > DOES_NOT_DEPEND_ABOVE:
            verdict = DOES_NOT_DEPEND
        else:
            reason = _undecided(low, high)
        if chance >= CHANCE_LIMIT:
            warning = f"maps of different photos are alike, {short(chance)}: the photos tell little"
            reason = f"{reason}; {warning}" if reason else warning
    signs = nanmean(signed)
    return Verdict(verdict, invariance, low, high, alike, chance, signs, count, same.size, reason)


def compute_invariance(same: Any, other: Any) -> Any:
    """Return the share that survives, of mean likenesses on the same and on different photos."""
    chance = np.minimum(other, CHANCE_LIMIT)
    return np.clip((same - chance) / (1 - chance), 0.0, 1.0)


def _interval(same: Array, other: Array) -> tuple[float, float]:
    return interval(compute_invariance(*bootstrap(same, other)))


def _reason(photos: int, seeds: int, defined: int, cells: int) -> str:
    if photos < _FEWEST:
        return "1 photo; at least 2 are needed, 8 are advised"
    if seeds < _FEWEST:
        return "1 seed; at least 2 are needed, 4 are advised"
    if defined < _ENOUGH * cells:
        return (
            f"only {defined} of {cells} pairs of maps are defined: the others have a map that is "
            "zero, constant or not finite"
        )
    return ""


def _undecided(low: float, high: float) -> str:
    if low > DEPENDS_BELOW and high < DOES_NOT_DEPEND_ABOVE:
        return "the maps depend in part"
    return "the interval holds a threshold; more photos or seeds narrow it"


def _row_means(values: Array) -> Array:
    """Return the mean of what is defined in each row, NaN where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
