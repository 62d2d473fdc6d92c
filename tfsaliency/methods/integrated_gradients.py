"""Integrals of the gradients on a way from an image without information to the image.

The sum of such attributions is the difference of the scores at both ends, where the gradients are
those of the score; what an integral by some nodes lacks of it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import OptionError, check_int, unknown_option
from .asking import Composition, Explain, Explained, check_number, check_of, largest, over
from .blurs import blurred

_NOTHING = 1e-6  # a difference of scores, as a part of the larger one
_BLUR = 0.1  # of the smaller side of an image
GRIDS = ("quadratic", "linear")


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """The integral of the gradients on the straight way from a baseline, times that way.

    The sum of the attributions is the difference of the scores at the image and at the baseline.
    Gauss-Legendre nodes are doubled until it is, up to the tolerance, or up to most of them: what
    remains is in the details "gap", "nodes" and "unconverged". Where gradients are not those of the
    score (under a modified rule, or of another composition) the sum says nothing: then there are
    as many nodes as at first.

    Parameters
    ----------
    baseline
        In the space of the preprocessed images: a number, an array (h, w, c), "blur" (the image
        blurred by a tenth of its size), or a list of these, whose attributions are averaged.
    tolerance
        The largest gap, as a part of the difference of the scores.
    nodes, most
        How many nodes at first, and at most.
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Sundararajan, Taly and Yan 2017, arXiv:1703.01365.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("integrated", tfs.RULES["gradient"], tfs.IntegratedGradients())
    >>> images = worlds.shapes(2, seed=0).images
    >>> maps = tfs.gradient_map(worlds.shapes_model(), images, method)
    >>> bool((maps.details["integrated"]["gap"] < .01).all())
    True
    """

    baseline: Any = 0.0
    tolerance: float = 0.01
    nodes: int = 16
    most: int = 512
    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.of)
        check_int("nodes", self.nodes, 1)
        check_int("most", self.most, self.nodes)
        check_number("tolerance", self.tolerance, 0, above=True)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        listed = self.baseline if isinstance(self.baseline, (list, tuple)) else [self.baseline]
        if not listed:
            raise OptionError("Expected a baseline or several. Received: an empty list.")
        every = [self._from(_baseline(one, points), explain, points, rows) for one in listed]
        values = tf.add_n([found.values for found in every]) / len(every)
        return Explained(values, every[0].scores, largest([found.details for found in every]))

    def _from(
        self, baseline: tf.Tensor, explain: Explain, points: tf.Tensor, rows: tf.Tensor
    ) -> Explained:
        inner = explain.within(self.of)
        levels = _doubled(self.nodes, self.most) if inner.exact else [self.nodes]
        counts, places, weights = map(tf.constant, _gauss_legendre(levels))

        def along(level: tf.Tensor, which: tf.Tensor) -> _Integral:
            start, way = tf.gather(baseline, which), tf.gather(points - baseline, which)

            def node(sample: tf.Tensor) -> tf.Tensor:
                return start + tf.cast(places[level, sample], points.dtype) * way

            def weighted(samples: tf.Tensor, found: Explained) -> tf.Tensor:
                share = tf.cast(tf.gather(weights[level], samples), found.values.dtype)
                return tf.tensordot(share, found.values, 1)

            own = tf.gather(rows, which)
            total, told = over(counts[level], node, inner, start, own, weighted, tf.add)
            return total * tf.cast(way, total.dtype), told

        ends = _ends(explain, baseline, points, rows)
        return _integrated(along, levels, ends, self.tolerance, inner.exact, points)


@dataclass(frozen=True, eq=False)
class BlurIG:
    """The integral of the gradients on the way from the blurred image to the image.

    At each step the gradient in its middle, times what the step gives back. The sum is the
    difference of the scores at the image and at its blur; steps are doubled as IntegratedGradients
    doubles its nodes, with the same details.

    Parameters
    ----------
    sigma
        The blur to begin with, the standard deviation of a Gaussian in pixels. Around the image is
        0: a blur much wider than the image leaves nothing.
    grid
        How it falls to 0: "quadratic" (smaller steps where there is detail) or "linear".
    tolerance
        The largest gap, as a part of the difference of the scores.
    nodes, most
        How many steps at first, and at most.
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Xu, Venugopalan, Sundararajan 2020, "Attribution in Scale and Space", arXiv:2004.03383.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("blurred", tfs.RULES["gradient"], tfs.BlurIG(sigma=20))
    >>> maps = tfs.gradient_map(worlds.shapes_model(), worlds.shapes(1, seed=0).images, method)
    >>> bool(maps.details["blurred"]["gap"] < .01)
    True
    """

    sigma: float = 50.0
    grid: str = "quadratic"
    tolerance: float = 0.01
    nodes: int = 32
    most: int = 512
    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.of)
        check_number("sigma", self.sigma, 0, above=True)
        check_int("nodes", self.nodes, 1)
        check_int("most", self.most, self.nodes)
        check_number("tolerance", self.tolerance, 0, above=True)
        if self.grid not in GRIDS:
            raise unknown_option("grid", self.grid, GRIDS)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        inner = explain.within(self.of)
        levels = _doubled(self.nodes, self.most) if inner.exact else [self.nodes]
        counts = tf.constant(levels)

        def along(level: tf.Tensor, which: tf.Tensor) -> _Integral:
            sharp = tf.gather(points, which)

            def at(place: tf.Tensor) -> tf.Tensor:
                """Return the images at a place from 0, blurred, to the number of steps, sharp."""
                left = 1 - tf.cast(place, tf.float32) / tf.cast(counts[level], tf.float32)
                return blurred(sharp, self.sigma * (left**2 if self.grid == "quadratic" else left))

            def middle(step: tf.Tensor) -> tf.Tensor:
                return at(tf.cast(step, tf.float32) + 0.5)

            def weighted(steps: tf.Tensor, found: Explained) -> tf.Tensor:
                ends = tf.concat([steps, steps[-1:] + 1], 0)
                every = tf.map_fn(at, ends, fn_output_signature=points.dtype)
                given = every[1:] - every[:-1]
                return tf.reduce_sum(tf.cast(given, found.values.dtype) * found.values, axis=0)

            own = tf.gather(rows, which)
            return over(counts[level], middle, inner, sharp, own, weighted, tf.add)

        ends = _ends(explain, blurred(points, tf.constant(self.sigma)), points, rows)
        return _integrated(along, levels, ends, self.tolerance, inner.exact, points)


@dataclass(frozen=True, eq=False)
class GuidedIG:
    """The integral of the gradients on a way that changes what matters least first.

    Each step brings the image nearer to the whole image, the sum of absolute differences falling
    linearly: by the features (values of pixels) with the smallest absolute gradient, a fraction of
    all at a time, the last of these in part. So the way goes round where gradients are large. What
    the sum lacks of the difference of the scores is in the details as that of IntegratedGradients,
    but no number of steps makes it small: with ReLUs, a half is usual.

    Parameters
    ----------
    baseline
        As for IntegratedGradients: a number, an array (h, w, c) or "blur".
    steps
        How many.
    fraction
        Of the features, how many are moved at a time.
    tolerance
        The largest gap, as a part of the difference of the scores; above it there is a warning.
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Kapishnikov et al. 2021, "Guided Integrated Gradients", arXiv:2106.09788.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("guided_way", tfs.RULES["gradient"], tfs.GuidedIG(steps=50))
    >>> images = worlds.shapes(1, seed=0).images
    >>> maps = tfs.gradient_map(worlds.shapes_model(), images, method, on_problem="ignore")
    >>> maps.details["guided_way"]["nodes"].tolist()
    [50.0]
    """

    baseline: Any = 0.0
    steps: int = 200
    fraction: float = 0.1
    tolerance: float = 0.01
    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.of)
        check_int("steps", self.steps, 1)
        check_number("fraction", self.fraction, 0, above=True)
        check_number("tolerance", self.tolerance, 0, above=True)
        if self.fraction > 1:
            raise OptionError(f"Expected fraction of at most 1. Received: {self.fraction!r}.")

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        inner = explain.within(self.of)
        baseline = _baseline(self.baseline, points)
        k, axes = tf.shape(points)[0], list(range(1, points.shape.rank))
        whole = tf.reduce_sum(tf.abs(points - baseline), axes)[:, tf.newaxis]

        def step(
            done: tf.Tensor, at: tf.Tensor, values: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            slopes, left = inner.at(at, rows).values, points - at
            distance = tf.abs(tf.reshape(left, [k, -1]))
            remaining = tf.cast((self.steps - 1 - done) / self.steps, points.dtype)
            wanted = tf.reduce_sum(distance, axis=1, keepdims=True) - whole * remaining
            # The last step goes all the way, whatever was lost by rounding.
            wanted = tf.where(done + 1 < self.steps, wanted, np.inf)
            size = tf.reshape(tf.abs(tf.broadcast_to(slopes, tf.shape(points))), [k, -1])
            shares = self._shares(tf.cast(size, points.dtype), distance, wanted)
            shares = tf.reshape(shares, tf.shape(points))
            moved = tf.where(shares < 1, at + shares * left, points)
            return done + 1, moved, values + slopes * tf.cast(moved - at, slopes.dtype)

        none = tf.zeros_like(points, tf.float64 if points.dtype == tf.float64 else tf.float32)
        _, _, values = tf.while_loop(
            lambda done, at, values: done < self.steps,
            step,
            (tf.constant(0), baseline, none),
            parallel_iterations=1,
        )
        ends = _ends(explain, baseline, points, rows)
        if not inner.exact:
            return Explained(values, ends.last, {})
        gap, nodes = ends.gap(values, tf.range(k)), tf.fill([k], self.steps)
        return Explained(values, ends.last, _told(gap, nodes, self.tolerance))

    def _shares(self, size: tf.Tensor, distance: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Return which part of its distance (k, features) each feature goes; wanted (k, 1)."""
        size = tf.where(distance > 0, size, np.inf)  # what has arrived comes last
        last = tf.shape(size)[1] - 1
        at_a_time = 1 + tf.cast(self.fraction * tf.cast(last, tf.float32), tf.int32)

        def group(
            end: tf.Tensor, limit: tf.Tensor, wanted: tf.Tensor, shares: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            end = tf.minimum(end + at_a_time, last)
            further = tf.raw_ops.NthElement(input=size, n=end)[:, tf.newaxis]
            chosen = (size > limit) & (size <= further)
            together = tf.reduce_sum(tf.where(chosen, distance, 0), axis=1, keepdims=True)
            part = tf.where(together > wanted, tf.math.divide_no_nan(wanted, together), 1)
            wanted = tf.where(together > wanted, tf.zeros_like(wanted), wanted - together)
            return end, further, wanted, tf.where(chosen, part, shares)

        *_, shares = tf.while_loop(
            lambda end, limit, wanted, shares: (end < last) & tf.reduce_any(wanted > 0),
            group,
            (-1, tf.fill(tf.shape(wanted), -np.inf), wanted, tf.zeros_like(distance)),
            parallel_iterations=1,
        )
        return shares


@dataclass(frozen=True, eq=False)
class ExpectedGradients:
    """The mean of the integrated gradients from many baselines, by one point on each way.

    A baseline and a place on the way are drawn for each sample: the mean of (x - x') * g(x' + t (x
    - x')). They are the same for each image, whatever is explained beside it.

    Parameters
    ----------
    baselines
        Images (m, h, w, c) to draw from, for example some of those that the model was trained on,
        in the space of the preprocessed images; or None for uniform noise between the smallest and
        the largest value of the image, drawn anew for each sample.
    samples
        How many.
    seed
        Draws baselines and places.
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients", arXiv:1906.10670; Sturmfels et al. 2020, "Visualizing the impact
    of feature attribution baselines", doi:10.23915/distill.00022, for uniform noise.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> images = worlds.shapes(10, seed=0).images
    >>> expected = tfs.ExpectedGradients(images[1:], samples=20)
    >>> method = tfs.Method("expected", tfs.RULES["gradient"], expected)
    >>> tfs.gradient_map(worlds.shapes_model(), images[:1], method)["expected"].shape
    (1, 64, 64)
    """

    baselines: Any = None
    samples: int = 200
    seed: int = 0
    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.of)
        check_int("samples", self.samples, 1)
        check_int("seed", self.seed, 0)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        baseline = self._noise(points) if self.baselines is None else self._drawn(points)

        def draw(sample: tf.Tensor) -> tf.Tensor:
            place = tf.random.stateless_uniform((), [self.seed, 2 * sample + 1])
            start = baseline(sample)
            return start + tf.cast(place, points.dtype) * (points - start)

        def weighted(samples: tf.Tensor, found: Explained) -> tf.Tensor:
            ways = tf.map_fn(
                lambda sample: points - baseline(sample), samples, fn_output_signature=points.dtype
            )
            return tf.reduce_sum(tf.cast(ways, found.values.dtype) * found.values, axis=0)

        inner = explain.within(self.of)
        total, told = over(self.samples, draw, inner, points, rows, weighted, tf.add)
        return Explained(total / self.samples, explain.at(points, rows).scores, told)

    def _noise(self, points: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        axes = list(range(1, points.shape.rank))
        low, high = tf.reduce_min(points, axes, True), tf.reduce_max(points, axes, True)

        def baseline(sample: tf.Tensor) -> tf.Tensor:
            noise = tf.random.stateless_uniform(tf.shape(points)[1:], [self.seed, 2 * sample])
            return low + (high - low) * tf.cast(noise, points.dtype)

        return baseline

    def _drawn(self, points: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        array, shape = np.asarray(self.baselines), tuple(points.shape[1:])
        if array.dtype.kind not in "uif" or array.shape[1:] != shape or not array.size:
            raise OptionError(
                f"Expected baselines as an array (m, {str(shape)[1:]}. "
                f"Received: {array.dtype} of shape {array.shape}."
            )
        with tf.init_scope():  # kept beside the graph and not in it
            given = tf.constant(array, points.dtype)

        def baseline(sample: tf.Tensor) -> tf.Tensor:
            key = [self.seed, 2 * sample]
            which = tf.random.stateless_uniform((), key, 0, len(array), tf.int32)
            return tf.zeros_like(points) + given[which]

        return baseline


# Attributions (k, ...), and what compositions inside tell of each.
_Integral = tuple[tf.Tensor, dict[str, tf.Tensor]]


class _Ends(NamedTuple):
    """Where a way begins and ends.

    Parameters
    ----------
    last
        The score at the end, (k,).
    difference
        From that at the beginning, (k,).
    least
        What gaps are parts of: the absolute difference, unless it is next to nothing, (k,).
    """

    last: tf.Tensor
    difference: tf.Tensor
    least: tf.Tensor

    def gap(self, values: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
        """Return what the sums of attributions lack of the differences with these indices."""
        total = tf.reduce_sum(values, list(range(1, values.shape.rank)))
        difference, least = (tf.gather(each, which) for each in (self.difference, self.least))
        gap = tf.abs(total - tf.cast(difference, total.dtype))
        return tf.math.divide_no_nan(gap, tf.cast(least, gap.dtype))


def _ends(explain: Explain, first: tf.Tensor, last: tf.Tensor, rows: tf.Tensor) -> _Ends:
    start, end = explain.at(first, rows).scores, explain.at(last, rows).scores
    size = tf.maximum(tf.abs(start), tf.abs(end))
    return _Ends(end, end - start, tf.maximum(tf.abs(end - start), _NOTHING * size))


def _integrated(
    along: Callable[[tf.Tensor, tf.Tensor], _Integral],
    levels: Sequence[int],
    ends: _Ends,
    tolerance: float,
    exact: bool,
    points: tf.Tensor,
) -> Explained:
    """Integrate by more and more nodes, each point until the gap is within the tolerance.

    Parameters
    ----------
    along
        (level, indices of points (j,)) -> their attributions (j, ...), and what else is told.
    levels
        How many nodes at each.
    exact
        Whether there is a gap to look at; else the first level is all.
    points
        What is explained, (k, ...).
    """
    if not exact:
        values, told = along(tf.constant(0), tf.range(tf.shape(ends.last)[0]))
        return Explained(values, ends.last, told)
    values, infinite = tf.zeros_like(points), tf.constant(np.inf, points.dtype)
    gap, nodes = tf.fill(tf.shape(ends.last), infinite), tf.zeros_like(ends.last, tf.int32)

    def finer(
        level: tf.Tensor, values: tf.Tensor, gap: tf.Tensor, nodes: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        which = tf.cast(tf.where(gap > tolerance)[:, 0], tf.int32)
        better, _ = along(level, which)
        left, used = ends.gap(better, which), tf.fill(tf.shape(which), tf.constant(levels)[level])
        pairs = (values, better), (gap, left), (nodes, used)
        at = which[:, tf.newaxis]
        return level + 1, *(tf.tensor_scatter_nd_update(old, at, new) for old, new in pairs)

    _, values, gap, nodes = tf.while_loop(
        lambda level, values, gap, nodes: (level < len(levels)) & tf.reduce_any(gap > tolerance),
        finer,
        (tf.constant(0), values, gap, nodes),
        parallel_iterations=1,
    )
    return Explained(values, ends.last, _told(gap, nodes, tolerance))


def _told(gap: tf.Tensor, nodes: tf.Tensor, tolerance: float) -> dict[str, tf.Tensor]:
    told = {"gap": gap, "nodes": nodes, "unconverged": gap > tolerance}
    return {name: tf.cast(each, tf.float32) for name, each in told.items()}


def _doubled(nodes: int, most: int) -> list[int]:
    return [*(nodes << i for i in range(32) if nodes << i < most), most]


def _gauss_legendre(levels: Sequence[int]) -> tuple[Any, Any, Any]:
    """Return the numbers of nodes, and tables of nodes and weights on [0, 1], a row a level."""
    places, weights = np.zeros((2, len(levels), max(levels)), np.float32)
    for row, count in enumerate(levels):
        nodes, shares = np.polynomial.legendre.leggauss(count)
        places[row, :count], weights[row, :count] = (nodes + 1) / 2, shares / 2
    return np.array(levels, np.int32), places, weights


def _baseline(baseline: Any, points: tf.Tensor) -> tf.Tensor:
    """Return one of the baselines that IntegratedGradients takes, for points (k, h, w, c)."""
    if isinstance(baseline, str):
        if baseline != "blur":
            raise unknown_option("baseline", baseline, ["blur"])
        sides = tf.cast(tf.shape(points)[1:-1], tf.float32)
        return blurred(points, _BLUR * tf.reduce_min(sides))
    array = np.asarray(baseline)
    shape = tuple(points.shape[1:])
    if array.dtype.kind not in "uif" or (array.shape and array.shape != shape):
        raise OptionError(
            f"Expected a baseline as a number, an array {shape}, or 'blur'. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    return tf.zeros_like(points) + tf.constant(array, points.dtype)
