"""Metrics, and what they see of an image: the protocol of METRICS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import OptionError

# The outputs of points (k, h, w, c) of one image.
ScorePoints = Callable[[Array], "Scored"]
# Maps (k, rows, h, w) of points (k, h, w, c) of one image.
ExplainPoints = Callable[[Array], Array]


class Scored(NamedTuple):
    """Scores and probabilities of points of one image.

    Parameters
    ----------
    scores
        The explained score of the class, such as its logit, (k,).
    probabilities
        The probability of the class, (k,); the score, if the outputs are no probabilities.
    """

    scores: Array
    probabilities: Array


@dataclass(frozen=True, eq=False)
class Context:
    """One image and its network, as a metric sees them.

    Maps of all methods and controls are measured together, so that they share the perturbed images
    and the random numbers.

    Parameters
    ----------
    image
        The image as the network receives it, (h, w, c).
    attributions
        Attributions of the m maps before their channels are reduced, (m, h, w, c). Those of
        controls are the same in each channel.
    mask
        The relevant pixels, (h, w) of bool; None if they are not known.
    found
        What the network says about the image; arrays (1,).
    score_points, explain_points
        Functions of points (k, h, w, c): what the network says about them, and their maps
        (k, m, h, w).
    batch_size
        The number of points to evaluate at a time.
    seed
        The seed of random numbers.
    has_probabilities
        Whether probabilities are known; else they are the scores.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> def covered_half(maps, context):  # the fall of the score without the upper half of a map
    ...     upper = maps >= np.median(maps, axis=(1, 2), keepdims=True)
    ...     points = np.where(upper[..., np.newaxis], 0, context.image)
    ...     return context.score - context.scores(points)
    >>> images = synthetic.make_shapes(8, seed=1).images
    >>> result = tfs.evaluate(synthetic.shapes_model(), images, "gradient", metrics=covered_half)
    >>> result.metrics, result.values.shape  # gradient and 4 controls, 1 metric, 8 images
    (('covered_half',), (5, 1, 8))
    """

    image: Array
    attributions: Array
    mask: Array | None
    found: Scored
    score_points: ScorePoints = field(repr=False)
    explain_points: ExplainPoints = field(repr=False)
    batch_size: int = 32
    seed: int = 0
    has_probabilities: bool = True
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def score(self) -> float:
        """The explained score of the image."""
        return float(self.found.scores[0])

    @property
    def probability(self) -> float:
        """The probability of the class; the score, if the outputs are no probabilities."""
        return float(self.found.probabilities[0])

    def scores(self, points: Iterable[Array]) -> Array:
        """Return the explained scores (k,) of points: an array (k, h, w, c), or its images."""
        return self._evaluate(points).scores

    def probabilities(self, points: Iterable[Array]) -> Array:
        """Return the probabilities (k,) of points: an array (k, h, w, c), or its images."""
        return self._evaluate(points).probabilities

    def explain(self, points: Array) -> Array:
        """Return the maps (k, m, h, w) of points (k, h, w, c); of controls, those of the points.

        A map of another photo, which stands beside the methods as a control, stays the same.
        """
        return self.explain_points(np.asarray(points, self.image.dtype))

    def generator(self, purpose: str) -> np.random.Generator:
        """Return random numbers that are the same at each call for this purpose and image."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what make returned at the first call with this key, for this image."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _evaluate(self, points: Iterable[Array]) -> Scored:
        parts = [self.score_points(part) for part in self._parts(points)]
        if not parts:
            return Scored(np.zeros(0), np.zeros(0))
        return Scored(*map(np.concatenate, zip(*parts, strict=True)))

    def _parts(self, points: Iterable[Array]) -> Iterator[Array]:
        """Yield the points in batches (batch_size, h, w, c); the last one may be smaller."""
        batch = np.empty((self.batch_size, *self.image.shape), self.image.dtype)
        filled = 0
        for point in points:
            if np.shape(point) != self.image.shape:
                raise OptionError(
                    f"Expected points (k, {', '.join(map(str, self.image.shape))}). Received: one "
                    f"of shape {np.shape(point)}. One image is image[np.newaxis]."
                )
            batch[filled] = point
            filled += 1
            if filled == self.batch_size:
                yield batch
                filled = 0
        if filled:
            yield batch[:filled]


# A function of maps (m, h, w) of one image, and its context, to values (m,).
MetricFunction = Callable[[Array, Context], Array]


@dataclass(frozen=True, eq=False)
class Metric:
    """A named metric of maps.

    Parameters
    ----------
    name
        The name.
    function
        A function (maps (m, h, w), context) -> values (m,) of the maps of one image, such as
        Deletion(steps=64) or one of your own; NaN where a map has no value.
    direction
        1 if a higher value is better, -1 if a lower one is, 0 if neither is; by default, the
        attribute of the function, else 1.
    description
        One line about it.

    Raises
    ------
    OptionError
        If the function cannot be called, or the direction is none.

    References
    ----------
    See METRICS.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> metric = tfs.METRICS["relevance_mass"]
    >>> maps, masks = np.array([[[3.0, 1.0]]]), np.array([[[True, False]]])
    >>> metric(maps, masks), metric.chance_of(masks)
    (array([0.75]), array([0.5]))
    """

    name: str
    function: MetricFunction | Any
    direction: Literal[1, -1, 0] | None = None
    description: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise OptionError(
                "Expected a metric as a function (maps (m, h, w), context) -> (m,). "
                f"Received: {self.function!r}."
            )
        if self.direction is None:
            object.__setattr__(self, "direction", getattr(self.function, "direction", 1))
        if self.direction not in (1, -1, 0):
            raise OptionError(f"Expected direction 1, -1 or 0. Received: {self.direction!r}.")

    @property
    def needs_masks(self) -> bool:
        """True if the relevant pixels must be known."""
        return bool(getattr(self.function, "needs_masks", False))

    def __call__(self, maps: Any, context: Any) -> Array:
        """Return the values (m,) of maps (m, h, w).

        Parameters
        ----------
        maps
            The maps of one image, (m, h, w).
        context
            The Context of the image. A metric against masks also takes the masks (m, h, w), and
            then maps of different images.

        Raises
        ------
        OptionError
            If the function returns anything else.
        """
        values = np.asarray(self.function(maps, context))
        if values.shape != np.shape(maps)[:1] or values.dtype.kind not in "fiub":
            raise OptionError(
                f"Expected the metric {self.name!r} to return a number for each of "
                f"{len(maps)} maps. Received: {values.dtype} of shape {values.shape}."
            )
        return values

    def chance_of(self, masks: Any) -> Array:
        """Return the mean value of maps with shuffled pixels, (n,); NaN if it is not known."""
        known = getattr(self.function, "chance_of", None)
        return np.full(len(masks), np.nan) if known is None else np.asarray(known(masks))
