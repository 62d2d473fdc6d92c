"""Verdicts with intervals, from the maps of a trained network and of randomized ones.

This module works on arrays, without models. With E(f, x) the signed, unreduced attribution of the
network f on the photo x, and r a randomized copy of it:

    s[r, i] = |prep E(f, x_i) . prep E(r, x_i)|    how alike on the same photo
    c[r, i] = mean of |prep E(f, x_i) . prep E(r, x_j)| over other photos j
    invariance = (mean s - C) / (1 - C), C = mean c, at most .5, clipped to [0, 1]

which is about the share of the map's variance that survives the randomization. docs/decisions.md,
"The verdict", has the evidence for the constants, and the alternatives that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..display.drawing import draw
from ..errors import OptionError
from ..statistics import bootstrap, interval, nanmean, upper_percentile
from ..tables import short

INCONCLUSIVE = "inconclusive"
DOES_NOT_DEPEND = "does not depend"
PARAMETERS = "the parameters"

DEPENDS_BELOW, DOES_NOT_DEPEND_ABOVE = 0.4, 0.7

_CLIPPED = 99.0  # percentile of the non-zero absolute values at which to clip
_FLAT = 1e-6  # a map is constant if its norm is at most this times the root of its size
_OTHERS = 8  # the largest number of other photos to compare a map with
CHANCE_LIMIT = 0.5
_ENOUGH = 0.5  # the fraction of cells that must be defined
_FEWEST = 2  # the smallest numbers of photos and of seeds


class Cells(NamedTuple):
    """Similarities of one randomized network's maps, for each photo; NaN if undefined.

    Parameters
    ----------
    same
        Similarity to the trained network's map of the same photo, (n,).
    other
        Mean similarity to the trained network's maps of other photos, (n,).
    signed
        Like `same`, with its sign, (n,).
    """

    same: Array
    other: Array
    signed: Array


@dataclass(frozen=True)
class Verdict:
    """A verdict on whether maps depend on the randomized quantity, with its numbers.

    Parameters
    ----------
    verdict
        "depends on the parameters", "does not depend" or "inconclusive".
    invariance
        Approximate share of the maps' variance that survives, from 0 to 1; NaN if undefined.
    low, high
        Its 95 % interval, over photos and seeds.
    same, other
        The mean similarity on the same photo, and on different photos.
    signed
        The mean similarity on the same photo, with its sign.
    defined, cells
        The number of comparable pairs of maps, and of all pairs.
    reason
        The reason of an inconclusive verdict, or a caveat; else empty.

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

    def _repr_html_(self) -> str:
        return str(draw("pages.verdict_page", self))


def judge(trained: Any, randomized: Any) -> Verdict:
    """Judge from attributions alone whether they depend on the parameters.

    Parameters
    ----------
    trained
        Signed attributions of the trained network, (n, h, w, c), one for each photo.
    randomized
        Attributions of R randomized networks for the same photos and classes, (R, n, h, w, c).

    Returns
    -------
    Verdict; "inconclusive" with a reason if there are fewer than two photos or networks.

    Raises
    ------
    OptionError
        If the arrays have other shapes.

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
    try:
        first, others = np.asarray(trained), np.asarray(randomized)
    except Exception:  # of a class that NumPy cannot convert
        first = others = np.zeros(0)
    numbers = {first.dtype.kind, others.dtype.kind} <= set("uif")
    alike = numbers and first.ndim > 1 and others.shape[1:] == first.shape
    if not alike or not len(others) or not len(first):
        raise OptionError(
            "Expected trained (n, h, w, c) and randomized (R, n, h, w, c). "
            f"Received: shapes {first.shape} and {others.shape}."
        )
    units = normalize_maps(first)
    cells = [compare_maps(units, normalize_maps(maps)) for maps in others]
    same, other, signed = (np.stack(table) for table in zip(*cells, strict=True))
    return decide(same, other, signed)


def normalize_maps(maps: Array) -> Array:
    """Normalize attributions (n, ...) for comparison by dot products.

    Values are clipped at the 99th percentile of the non-zero absolute values, centered, and divided
    by their norm.

    Returns
    -------
    (n, p); NaN for a map that is zero, constant or not finite.
    """
    flat = np.asarray(maps).reshape(len(maps), -1)
    result = np.full(flat.shape, np.nan, np.result_type(flat.dtype, np.float32))
    for i, values in enumerate(flat):
        largest = np.abs(values).max(initial=0.0)
        if not np.isfinite(largest) or largest == 0:
            continue
        scaled = values / largest  # avoids underflow
        sizes = np.abs(scaled)
        top = upper_percentile(sizes if sizes.all() else sizes[sizes > 0], _CLIPPED)
        clipped = np.clip(scaled / result.dtype.type(top), -1.0, 1.0)
        clipped -= clipped.mean(dtype=np.float64)
        length = np.sqrt(np.square(clipped).sum(dtype=np.float64))
        if length > _FLAT * np.sqrt(values.size):
            result[i] = clipped / length
    return result


def compare_maps(trained: Array, randomized: Array) -> Cells:
    """Compare normalized maps of the trained network with those of a randomized one.

    Parameters
    ----------
    trained, randomized
        (n, p), for the same photos.
    """
    n = len(trained)
    # All pairs of a trained and a randomized map.
    table = np.einsum("ip,jp->ij", trained, randomized)
    signed = np.diagonal(table).astype(np.float64)
    others = [
        [abs(table[i, (i + q) % n]) for q in range(1, min(_OTHERS, n - 1) + 1)] for i in range(n)
    ]
    return Cells(np.abs(signed), _row_means(np.array(others, np.float64)), signed)


def decide(same: Array, other: Array, signed: Array, of: str = PARAMETERS) -> Verdict:
    """Return the verdict on the similarities of R randomized networks.

    Parameters
    ----------
    same, other, signed
        The fields of Cells for each network, (R, n).
    of
        The randomized quantity, in words.
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
            warning = (
                f"maps of different photos are alike ({short(chance)}), so photos matter little"
            )
            reason = f"{reason}; {warning}" if reason else warning
    signs = nanmean(signed)
    return Verdict(verdict, invariance, low, high, alike, chance, signs, count, same.size, reason)


def compute_invariance(same: Any, other: Any) -> Any:
    """Return the invariance, from mean similarities on the same and on different photos."""
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
    return "the interval contains a threshold; more photos or seeds narrow it"


def _row_means(values: Array) -> Array:
    """Return the mean of the defined values in each row; NaN if there are none."""
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
