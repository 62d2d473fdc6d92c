"""Additivity: whether sums of attributions say how the score changes without some pixels.

F is the explained score, such as the logit, x the image, and phi are attributions before their
channels are reduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import OptionError, check_flag, check_int, check_number
from .metric import Context
from .perturbation import cells, check_baseline, check_image_baseline, cover, fill, name_baseline


@dataclass(frozen=True, eq=False)
class Infidelity:
    """Mean squared error of I · phi against F(x) - F(x - I), over perturbations I.

    I replaces one square of the image at a random place. Attributions are first multiplied by the
    factor that makes the error least, so that their scale does not matter, and the error is divided
    by the mean of the squared differences: 0 is best, and 1 is no better than a map of zeros.

    Parameters
    ----------
    samples
        The number of perturbations; all maps have the same ones.
    size
        The side of the square, as a fraction of the sides of the image.
    baseline
        What replaces the square, as for Deletion, but not "linear".
    normalize
        Whether to do this scaling; without it, the value is the published one, which suits
        gradients alone.

    Raises
    ------
    OptionError
        If an option is impossible.

    References
    ----------
    Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", arXiv:1901.09392.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")  # x · w: the gradient is exact
    >>> data = known.ground_truth(8, seed=0)
    >>> result = tfs.evaluate(known.model, data, "gradient", metrics="infidelity")
    >>> bool(result.mean("gradient", "infidelity") < 1e-9)
    True
    """

    samples: int = 64
    size: float = 0.25
    baseline: Any = 0.0
    normalize: bool = True

    name = "infidelity"
    direction = -1

    def __post_init__(self) -> None:
        check_int("samples", self.samples, 1)
        check_number("size", self.size, 0, above=True)
        check_image_baseline(self.baseline)
        check_flag("normalize", self.normalize)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the error of each map (m, h, w) of an image, (m,)."""
        image, key = (
            context.image,
            ("squares", self.samples, self.size, name_baseline(self.baseline)),
        )
        masks, falls = context.once(key, lambda: self._squares(context))
        change = (image - fill(context, self.baseline)).astype(np.float64)
        # For each map and perturbation, the sum of attributions times what they change.
        by_pixel = (context.attributions.astype(np.float64) * change).sum(axis=-1)
        told = by_pixel.reshape(len(by_pixel), -1) @ masks.reshape(len(masks), -1).T
        if not self.normalize:
            return ((told - falls) ** 2).mean(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.nan_to_num((told * falls).sum(axis=1) / (told**2).sum(axis=1))
            error = ((factor[:, np.newaxis] * told - falls) ** 2).mean(axis=1)
            return error / (falls**2).mean()

    def _squares(self, context: Context) -> tuple[Array, Array]:
        """Return squares at random places (k, h, w), and how F falls without each, (k,)."""
        h, w = context.image.shape[:2]
        sides = [max(1, min(side, round(self.size * side))) for side in (h, w)]
        rng, masks = context.generator("squares"), np.zeros((self.samples, h, w))
        for mask in masks:
            y, x = (rng.integers(0, n - side + 1) for n, side in zip((h, w), sides, strict=True))
            mask[y : y + sides[0], x : x + sides[1]] = 1
        scores = context.scores(cover(context, iter(masks > 0), self.baseline))
        return masks, context.score - scores


@dataclass(frozen=True, eq=False)
class SensitivityN:
    """Pearson correlation of the sum of attributions of random subsets with the fall of F.

    A subset consists of square regions, which are replaced together. The value is the mean over
    sizes n of subsets. It is 1 for attributions that add up as the score does.

    Parameters
    ----------
    fractions
        The sizes of subsets, as fractions of all regions; one number is the faithfulness
        correlation of Bhatt et al.
    samples
        The number of subsets of each size; all maps have the same ones.
    side
        The side of the regions in pixels; None is a fourteenth of the image's longer side, rounded
        up. 1 is the published one; then on a photo a subset changes everything alike.
    baseline
        What replaces subsets, as for Deletion.

    Raises
    ------
    OptionError
        If an option is impossible.

    References
    ----------
    Ancona et al. 2018, arXiv:1711.06104 (sensitivity-n); Bhatt et al. 2020, "Evaluating and
    aggregating feature-based model explanations", arXiv:2005.00631 (faithfulness correlation).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")
    >>> data = known.ground_truth(8, seed=0)
    >>> result = tfs.evaluate(known.model, data, "input_x_gradient", metrics="sensitivity_n")
    >>> bool(result.mean("input_x_gradient", "sensitivity_n") > .999)
    True
    """

    fractions: tuple[float, ...] | float = (0.05, 0.1, 0.2, 0.4)
    samples: int = 32
    side: int | None = None
    baseline: Any = 0.0

    name = "sensitivity_n"
    direction = 1

    def __post_init__(self) -> None:
        given = np.atleast_1d(np.asarray(self.fractions, dtype=object)).tolist()
        for each in given:
            check_number("fractions", each, 0, above=True)
            if each >= 1:
                raise OptionError(f"Expected fractions below 1. Received: {each!r}.")
        object.__setattr__(self, "fractions", tuple(map(float, given)))
        check_int("samples", self.samples, 3)
        if self.side is not None:
            check_int("side", self.side, 1)
        check_baseline(self.baseline)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the mean correlation of each map (m, h, w) of an image, (m,)."""
        side = self.side or -(-max(maps.shape[1:]) // 14)
        region = cells(maps.shape[1:], side)
        if region.max() == 0:
            raise OptionError(
                f"Expected at least two regions of {side} pixels in an image of "
                f"{maps.shape[1]} x {maps.shape[2]}. Received: one. Use a smaller side."
            )
        key = ("subsets", self.fractions, self.samples, side, name_baseline(self.baseline))
        subsets, falls = context.once(key, lambda: self._subsets(region, context))
        signed = context.attributions.sum(axis=-1, dtype=np.float64)
        regions = subsets.shape[-1]
        sums = np.stack([np.bincount(region.ravel(), each.ravel(), regions) for each in signed])
        correlations = [
            _pearson(sums @ chosen.T, fall) for chosen, fall in zip(subsets, falls, strict=True)
        ]
        return np.mean(correlations, axis=0)

    def _subsets(self, region: Array, context: Context) -> tuple[Array, Array]:
        """Return subsets (sizes, samples, regions), and how F falls without each."""
        regions, rng = int(region.max()) + 1, context.generator("subsets")
        drawn = np.zeros((len(self.fractions), self.samples, regions))  # type: ignore[arg-type]
        for of_size, fraction in zip(drawn, self.fractions, strict=True):  # type: ignore[arg-type]
            n = min(max(1, round(fraction * regions)), regions - 1)
            for subset in of_size:
                subset[rng.choice(regions, n, replace=False)] = 1
        masks = (subset[region] > 0 for of_size in drawn for subset in of_size)
        scores = context.scores(cover(context, masks, self.baseline))
        return drawn, context.score - scores.reshape(drawn.shape[:2])


@dataclass(frozen=True, eq=False)
class CompletenessGap:
    """The gap between the sum of phi and F(x) - F(b), as a fraction of the latter.

    It says nothing about a method that does not claim to add up, and is not judged.

    Parameters
    ----------
    baseline
        As for Deletion, but not "linear".

    Raises
    ------
    OptionError
        If the baseline is unknown.

    References
    ----------
    Sundararajan et al. 2017, "Axiomatic attribution for deep networks", arXiv:1703.01365.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")
    >>> data = known.ground_truth(8, seed=0)
    >>> result = tfs.evaluate(known.model, data, "input_x_gradient", metrics="completeness_gap")
    >>> bool(result.mean("input_x_gradient", "completeness_gap") < .001)
    True
    """

    baseline: Any = 0.0

    name = "completeness_gap"
    direction = 0

    def __post_init__(self) -> None:
        check_image_baseline(self.baseline)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the gap of each map (m, h, w) of an image, (m,)."""
        sums = context.attributions.sum(axis=(1, 2, 3), dtype=np.float64)
        (end,) = context.scores(fill(context, self.baseline)[np.newaxis])
        difference = context.score - end
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.abs(sums - difference) / np.abs(difference)


def _pearson(a: Array, b: Array) -> Array:
    """Return the correlation of each row of a (m, k) with b (k,); 0 for a constant one."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean()
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum())
    negligible = size <= 1e-12 * np.abs(a).max(axis=1, initial=0) * np.abs(b).max(initial=0)
    return np.where(negligible, 0.0, (a @ b) / np.where(size > 0, size, 1.0))
