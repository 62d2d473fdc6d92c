"""Curves: how the probability of the class changes while pixels are replaced in a map's order.

f is the probability of the explained class; the explained score, if outputs are no probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..arrays import Array, rescale
from ..errors import OptionError, check_choice, check_int
from .metric import Context
from .perturbation import (
    cells,
    check_baseline,
    cover,
    name_baseline,
    orders,
    ranks,
    replace_in_order,
)


@dataclass(frozen=True, eq=False)
class Deletion:
    """Area under f while pixels are replaced, those with the highest values first.

    At step k of steps, the k / steps pixels with the highest values of the map are replaced. The
    area is that of the trapezoids over the fraction. A low area is better: the score falls early.

    Parameters
    ----------
    baseline
        What replaces pixels, in the space of the preprocessed images: a number, an array (h, w, c),
        "mean" (the mean color), "blur" (the image blurred by a tenth of its smaller side),
        "uniform" (noise) or "linear" (noisy linear imputation, as in ROAD).
    steps
        The number of steps.

    Raises
    ------
    OptionError
        If the baseline is unknown, or there is no step.

    References
    ----------
    Petsiuk et al. 2018, "RISE", arXiv:1806.07421; Rong et al. 2022, arXiv:2202.00449 (ROAD).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(8, seed=1).images
    >>> blurred = tfs.Deletion("blur", steps=16)
    >>> result = tfs.evaluate(synthetic.shapes_model(), images, "gradient", metrics=blurred)
    >>> result.metrics
    ('deletion',)
    """

    baseline: Any = 0.0
    steps: int = 32

    name = "deletion"
    direction: ClassVar[int] = -1

    def __post_init__(self) -> None:
        check_baseline(self.baseline)
        check_int("steps", self.steps, 1)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the area of each map (m, h, w) of an image, (m,)."""
        return _area(self._curves(maps, context))

    def _curves(self, maps: Array, context: Context) -> Array:
        """Return f at each step, (m, 1 + steps)."""
        whole = maps[0].size
        counts = [round(k / self.steps * whole) for k in range(1, self.steps)]

        def points() -> Iterator[Array]:
            for i in range(len(maps)):
                (order,) = orders(maps[i : i + 1], context)
                if isinstance(self.baseline, str) and self.baseline == "linear":
                    yield from cover(context, _masks(order, counts, maps.shape[1:]), "linear")
                else:
                    yield from replace_in_order(context, order, counts, self.baseline)

        inner = context.probabilities(points())
        return self._with_ends(inner.reshape(len(maps), -1), context)

    def _with_ends(self, inner: Array, context: Context) -> Array:
        """Put f of the image before the steps, and f of the baseline behind them."""
        ends = context.probability, _emptied(context, self.baseline)
        first, last = (np.full((len(inner), 1), each) for each in ends)
        return np.concatenate([first, inner, last], axis=1)


@dataclass(frozen=True, eq=False)
class Insertion(Deletion):
    """Area under f while pixels of the image come back, those with the highest values first.

    It begins with the baseline, by default the blurred image. A high area is better: the score
    rises early.

    Parameters
    ----------
    baseline, steps
        As for Deletion.

    Raises
    ------
    OptionError
        As for Deletion.

    References
    ----------
    Petsiuk et al. 2018, "RISE", arXiv:1806.07421.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(8, seed=1).images
    >>> result = tfs.evaluate(synthetic.shapes_model(), images, "gradient",
    ...                       metrics=tfs.Insertion("mean", steps=16))
    >>> result.metrics
    ('insertion',)
    """

    baseline: Any = "blur"

    name = "insertion"
    direction: ClassVar[int] = 1

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the area of each map (m, h, w) of an image, (m,)."""
        # To bring back the highest values is to delete the lowest ones, in the other direction.
        return _area(self._curves(-maps, context))


@dataclass(frozen=True, eq=False)
class PixelFlipping:
    """Mean fall of f while regions are replaced, in the order of their sums of the map (AOPC).

    Parameters
    ----------
    order
        "morf" replaces the most relevant regions first (a high value is better), "lerf" the least
        relevant ones (a low value is better); "gap" is the first minus the second.
    side
        The side of the square regions in pixels.
    baseline
        What replaces regions, as for Deletion; the published one is noise from the image's smallest
        to its largest value.
    steps
        The number of steps, in which equal numbers of regions are replaced.

    Raises
    ------
    OptionError
        If an option is impossible.

    References
    ----------
    Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned",
    arXiv:1509.06321; Bluecher et al. 2024, arXiv:2401.06654 (the gap).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(8, seed=1).images
    >>> result = tfs.evaluate(synthetic.shapes_model(), images, "gradient",
    ...                       metrics=tfs.PixelFlipping("gap", side=8, steps=16))
    >>> result.metrics
    ('pixel_flipping',)
    """

    order: Literal["morf", "lerf", "gap"] = "morf"
    side: int = 9
    baseline: Any = "uniform"
    steps: int = 32

    name = "pixel_flipping"

    def __post_init__(self) -> None:
        check_choice("order", self.order, ("morf", "lerf", "gap"))
        check_int("side", self.side, 1)
        check_int("steps", self.steps, 1)
        check_baseline(self.baseline)

    @property
    def direction(self) -> int:
        """1 if a higher value is better, -1 if a lower one is."""
        return -1 if self.order == "lerf" else 1

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the mean fall of f for each map (m, h, w) of an image, (m,)."""
        region = cells(maps.shape[1:], self.side)
        regions = int(region.max()) + 1
        sums = np.stack([np.bincount(region.ravel(), each.ravel(), regions) for each in maps])
        falls = {
            name: self._fall(sign * sums, region, context)
            for name, sign in (("morf", 1), ("lerf", -1))
            if self.order in (name, "gap")
        }
        return falls["morf"] - falls["lerf"] if self.order == "gap" else falls[self.order]

    def _fall(self, sums: Array, region: Array, context: Context) -> Array:
        """Return the mean fall of f over the steps, for maps of sums of regions (m, regions)."""
        regions = sums.shape[-1]
        places = ranks(sums[:, np.newaxis], context)[:, 0]
        steps = min(self.steps, regions)
        counts = np.round(np.arange(1, steps) / steps * regions)
        masks = ((of_region < count)[region] for of_region in places for count in counts)
        inner = context.probabilities(cover(context, masks, self.baseline)).reshape(len(sums), -1)
        total = inner.sum(axis=1) + context.probability + _emptied(context, self.baseline)
        return context.probability - total / (steps + 1)


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """Change of f if the image is multiplied by the map, rescaled to 0..1.

    Parameters
    ----------
    statistic
        "drop": max(0, f(x) - f(x')) / f(x), lower is better; "increase": whether f(x') > f(x);
        "gain": max(0, f(x') - f(x)) / (1 - f(x)).

    Raises
    ------
    OptionError
        If the statistic is unknown, or drop or gain is asked of outputs that are no probabilities.

    References
    ----------
    Chattopadhay et al. 2018, "Grad-CAM++", arXiv:1710.11063 (drop, increase); Zhang et al. 2024,
    "Opti-CAM", arXiv:2301.07002 (gain).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(8, seed=1).images
    >>> result = tfs.evaluate(synthetic.shapes_model(), images, "grad_cam",
    ...                       metrics=["average_drop", "increase", "average_gain"])
    >>> result.metrics
    ('average_drop', 'increase', 'average_gain')
    """

    statistic: Literal["drop", "increase", "gain"] = "drop"

    name = "masked_image"

    def __post_init__(self) -> None:
        check_choice("statistic", self.statistic, ("drop", "increase", "gain"))

    @property
    def direction(self) -> int:
        """1 if a higher value is better, -1 if a lower one is."""
        return -1 if self.statistic == "drop" else 1

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the change of f for each map (m, h, w) of an image, (m,)."""
        if self.statistic != "increase" and not context.has_probabilities:
            raise OptionError(
                f"Expected a model whose outputs are probabilities for the {self.statistic}, which "
                "is a fraction of them. Received: one of other outputs. Use 'increase' or "
                "'insertion'."
            )
        before = context.probability
        masked = (each[..., np.newaxis] * context.image for each in rescale(maps))
        f = context.probabilities(masked)
        defined = np.ptp(maps.reshape(len(maps), -1), axis=1) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {
                "drop": np.maximum(before - f, 0) / before,
                "increase": (f > before).astype(float),
                "gain": np.maximum(f - before, 0) / (1 - before),
            }[self.statistic]
        return np.where(defined, values, np.nan)


def _masks(order: Array, counts: Sequence[int], shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield masks (h, w) of the first pixels of an order, for each count."""
    for count in counts:
        mask = np.zeros(order.size, bool)
        mask[order[:count]] = True
        yield mask.reshape(shape)


def _area(curves: Array) -> Array:
    """Return the area of trapezoids below curves (m, k) over 0..1."""
    return (curves[:, :-1] + curves[:, 1:]).mean(axis=1) / 2


def _emptied(context: Context, baseline: Any) -> float:
    """Return f of the baseline alone."""

    def evaluate() -> float:
        every = np.ones(context.image.shape[:2], bool)
        return float(context.probabilities(cover(context, iter([every]), baseline))[0])

    return float(context.once(("emptied", name_baseline(baseline)), evaluate))
