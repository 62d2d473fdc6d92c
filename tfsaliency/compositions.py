"""Attributions made of gradients at several images: what a Method does beside its rule.

A composition is built of others by `of`: SmoothGrad(of=IntegratedGradients()) averages the
integrated gradients of noisy images. Everything runs in the graph, some images at a time: memory
does not grow with samples or nodes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from .errors import OptionError, check_int, unknown_option

_NOTHING = 1e-6  # a difference of scores, as a part of the larger one
_BLUR = 0.1  # of the smaller side of an image
_NARROW, _TAILS = 0.01, 6.0  # pixels, as good as no blur; standard deviations, as good as all
STATISTICS = ("mean", "mean_square", "variance")


class Explained(NamedTuple):
    """Attributions at k points.

    Parameters
    ----------
    values
        The attributions, (k, h, w, c).
    scores
        The score at each point, (k,).
    details
        What else is known of each, (k,) by name; of several points the largest counts.
    """

    values: tf.Tensor
    scores: tf.Tensor
    details: Mapping[str, tf.Tensor]


class Explain(NamedTuple):
    """What a composition asks for attributions.

    Parameters
    ----------
    at
        (points (k, h, w, c), rows (k,)) -> Explained; a row is the index of the image whose class
        is explained, and whose other inputs are taken.
    at_once
        How many points to give at a time, a scalar tensor.
    exact
        Whether the values are the derivatives of the scores.
    """

    at: Callable[[tf.Tensor, tf.Tensor], Explained]
    at_once: tf.Tensor
    exact: bool

    def within(self, composition: Composition | None) -> Explain:
        """Return what asks a composition instead, for one sample at a time."""
        if composition is None:
            return self
        at = functools.partial(composition, self)
        return Explain(at, tf.constant(1), False)


class Composition(Protocol):
    """Attributions at images, out of attributions at others.

    An object with this one method may be the composition of a Method.
    """

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        ...


@dataclass(frozen=True, eq=False)
class InputXGradient:
    """The image times its attributions: x * g.

    Parameters
    ----------
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Shrikumar et al. 2016, arXiv:1605.01713.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("product", tfs.RULES["gradient"], tfs.InputXGradient())
    >>> images = worlds.shapes(1, seed=0).images
    >>> found = tfs.attributions(worlds.shapes_model(), images, ["gradient", method])
    >>> bool(abs(found["product"] - images * found["gradient"]).max() < 1e-6)
    True
    """

    of: Composition | None = None

    def __post_init__(self) -> None:
        _check_of(self.of)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        found = explain.within(self.of).at(points, rows)
        return found._replace(values=tf.cast(points, found.values.dtype) * found.values)


@dataclass(frozen=True, eq=False)
class SmoothGrad:
    """A statistic of the attributions of noisy images: mean, mean_square or variance.

    The signed mean is taken before any absolute value. The noise of a sample is the same for each
    image, whatever is explained beside it.

    Parameters
    ----------
    samples
        How many noisy images.
    noise
        The standard deviation, as a fraction of an image's max - min.
    statistic
        "mean", "mean_square" (SmoothGrad-squared) or "variance" (VarGrad).
    seed
        Draws the noise.
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Smilkov et al. 2017, arXiv:1706.03825; Hooker et al. 2019, arXiv:1806.10758 (squared);
    Adebayo et al. 2018, arXiv:1810.03307 (variance).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> smooth = tfs.Method("smooth", tfs.RULES["guided_backprop"], tfs.SmoothGrad(samples=5))
    >>> maps = tfs.gradient_map(worlds.shapes_model(), worlds.shapes(2, seed=0).images, smooth)
    >>> maps["smooth"].shape
    (2, 64, 64)
    """

    samples: int = 50
    noise: float = 0.15
    statistic: str = "mean"
    seed: int = 0
    of: Composition | None = None

    def __post_init__(self) -> None:
        _check_of(self.of)
        check_int("samples", self.samples, 1)
        check_int("seed", self.seed, 0)
        if self.statistic not in STATISTICS:
            raise unknown_option("statistic", self.statistic, STATISTICS)
        if not isinstance(self.noise, (int, float)) or not 0 <= self.noise < np.inf:
            raise OptionError(f"Expected noise as a number from 0. Received: {self.noise!r}.")

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        axes = list(range(1, points.shape.rank))
        spread = tf.reduce_max(points, axes, True) - tf.reduce_min(points, axes, True)
        sigma = tf.cast(self.noise, points.dtype) * spread
        shape = tf.shape(points)[1:]

        def draw(sample: tf.Tensor) -> tf.Tensor:
            noise = tf.random.stateless_normal(shape, [self.seed, sample])
            return points + sigma * tf.cast(noise, points.dtype)

        def moments(samples: tf.Tensor, found: Explained) -> _Moments:
            mean = tf.reduce_mean(found.values, axis=0)
            squares = tf.reduce_sum(tf.math.squared_difference(found.values, mean), axis=0)
            return _Moments(tf.cast(tf.size(samples), mean.dtype), mean, squares)

        inner = explain.within(self.of)
        found, details = _over(self.samples, draw, inner, points, rows, moments, _joined)
        spread = found.squares / found.count
        values = {
            "mean": found.mean,
            "mean_square": spread + tf.square(found.mean),
            "variance": spread,
        }[self.statistic]
        return Explained(values, explain.at(points, rows).scores, details)


class _Moments(NamedTuple):
    count: tf.Tensor
    mean: tf.Tensor
    squares: tf.Tensor  # the sum of squared distances from the mean


def _joined(a: _Moments, b: _Moments) -> _Moments:
    """Return the moments of two sets of samples together, without a difference of large numbers."""
    count, gap = a.count + b.count, b.mean - a.mean
    squares = a.squares + b.squares + tf.square(gap) * a.count * b.count / count
    return _Moments(count, a.mean + gap * b.count / count, squares)


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
        _check_of(self.of)
        check_int("nodes", self.nodes, 1)
        check_int("most", self.most, self.nodes)
        if not isinstance(self.tolerance, (int, float)) or not 0 < self.tolerance < np.inf:
            raise OptionError(
                f"Expected tolerance as a number above 0. Received: {self.tolerance!r}."
            )

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        listed = self.baseline if isinstance(self.baseline, (list, tuple)) else [self.baseline]
        if not listed:
            raise OptionError("Expected a baseline or several. Received: an empty list.")
        every = [self._from(_baseline(one, points), explain, points, rows) for one in listed]
        values = tf.add_n([found.values for found in every]) / len(every)
        return Explained(values, every[0].scores, _largest([found.details for found in every]))

    def _from(
        self, baseline: tf.Tensor, explain: Explain, points: tf.Tensor, rows: tf.Tensor
    ) -> Explained:
        inner = explain.within(self.of)
        way = points - baseline
        start, end = explain.at(baseline, rows).scores, explain.at(points, rows).scores
        difference = end - start
        size = tf.maximum(tf.abs(start), tf.abs(end))
        least = tf.maximum(tf.abs(difference), _NOTHING * size)
        levels = self._levels() if inner.exact else [self.nodes]
        counts, places, weights = map(tf.constant, _gauss_legendre(levels))

        def at_level(level: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
            def node(sample: tf.Tensor) -> tf.Tensor:
                return baseline + tf.cast(places[level, sample], points.dtype) * way

            def weighted(samples: tf.Tensor, found: Explained) -> tf.Tensor:
                share = tf.cast(tf.gather(weights[level], samples), found.values.dtype)
                return tf.tensordot(share, found.values, 1)

            total, details = _over(counts[level], node, inner, points, rows, weighted, tf.add)
            values = total * tf.cast(way, total.dtype)
            axes = list(range(1, values.shape.rank))
            gap = tf.abs(tf.reduce_sum(values, axes) - tf.cast(difference, values.dtype))
            relative = tf.math.divide_no_nan(gap, tf.cast(least, gap.dtype))
            return values, relative, details

        values, gap, details = at_level(tf.constant(0))
        if not inner.exact:
            return Explained(values, end, details)
        nodes = tf.fill(tf.shape(gap), counts[0])

        def refined(level: tf.Tensor, *before: tf.Tensor) -> tuple[tf.Tensor, ...]:
            values, gap, nodes = before
            finer, left, _ = at_level(level)
            wanting = gap > self.tolerance
            over = tf.reshape(wanting, tf.concat([[-1], tf.ones_like(tf.shape(values)[1:])], 0))
            return (
                level + 1,
                tf.where(over, finer, values),
                tf.where(wanting, left, gap),
                tf.where(wanting, counts[level], nodes),
            )

        _, values, gap, nodes = tf.while_loop(
            lambda level, values, gap, nodes: (
                (level < len(levels)) & tf.reduce_any(gap > self.tolerance)
            ),
            refined,
            (tf.constant(1), values, gap, nodes),
            parallel_iterations=1,
        )
        found = {"gap": gap, "nodes": nodes, "unconverged": gap > self.tolerance}
        details = {name: tf.cast(each, tf.float32) for name, each in found.items()}
        return Explained(values, end, details)

    def _levels(self) -> list[int]:
        doubled = [self.nodes << i for i in range(32) if self.nodes << i < self.most]
        return [*doubled, self.most]


def _check_of(of: Any) -> None:
    if of is not None and not callable(of):
        raise OptionError(
            "Expected of as a composition, such as InputXGradient(), or None for the gradient. "
            f"Received: {of!r}."
        )


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
        shape = tf.cast(tf.shape(points), tf.float32)
        return blurred(points, _BLUR * tf.minimum(shape[1], shape[2]))
    array = np.asarray(baseline)
    shape = tuple(points.shape[1:])
    if array.dtype.kind not in "uif" or (array.shape and array.shape != shape):
        raise OptionError(
            f"Expected a baseline as a number, an array {shape}, or 'blur'. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    return tf.zeros_like(points) + tf.constant(array, points.dtype)


def blurred(images: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Return images (k, h, w, c) convolved with a Gaussian of sigma pixels, 0 around them."""
    sizes = tf.shape(images)[1], tf.shape(images)[2]
    down, across = (tf.cast(_gaussian(size, sigma), images.dtype) for size in sizes)
    return tf.einsum("ij,kjwc,vw->kivc", down, images, across)


def _gaussian(size: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Return (size, size) of the weight of each place at each other; for sigma 0 the identity."""
    places = tf.range(-size + 1, size)
    narrow = tf.maximum(tf.cast(sigma, tf.float32), _NARROW)
    reach = tf.math.ceil(_TAILS * narrow)
    total = tf.reduce_sum(tf.exp(-tf.square(tf.range(-reach, reach + 1) / narrow) / 2))
    row = tf.exp(-tf.square(tf.cast(places, tf.float32) / narrow) / 2) / total
    at = tf.range(size)
    return tf.gather(row, at[:, tf.newaxis] - at + size - 1)


def _over(
    samples: int | tf.Tensor,
    draw: Callable[[tf.Tensor], tf.Tensor],
    explain: Explain,
    points: tf.Tensor,
    rows: tf.Tensor,
    first: Callable[[tf.Tensor, Explained], Any],
    join: Callable[[Any, Any], Any],
) -> tuple[Any, dict[str, tf.Tensor]]:
    """Fold the attributions at draw(0), ... draw(samples - 1), each (k, h, w, c), some at a time.

    Parameters
    ----------
    draw
        A sample's index -> its points.
    first
        (indices (m,), what was found at them (m, k, ...)) -> what is to be kept of it.
    join
        Two of these -> one.

    Returns
    -------
    What is kept of all, and the largest of each detail, (k,).
    """
    k = tf.shape(points)[0]
    count = tf.maximum(explain.at_once // k, 1)

    def some(start: tf.Tensor) -> tuple[tf.Tensor, Any, dict[str, tf.Tensor]]:
        indices = tf.range(start, tf.minimum(start + count, samples))
        m = tf.size(indices)
        drawn = tf.map_fn(draw, indices, fn_output_signature=points.dtype)
        flat = tf.reshape(drawn, tf.concat([[-1], tf.shape(points)[1:]], 0))
        found = explain.at(tf.ensure_shape(flat, points.shape), tf.tile(rows, [m]))

        def apart(values: tf.Tensor) -> tf.Tensor:
            shaped = tf.reshape(values, tf.concat([[m, k], tf.shape(values)[1:]], 0))
            return tf.ensure_shape(shaped, [None, None, *values.shape[1:]])

        found = tf.nest.map_structure(apart, found)
        details = {name: tf.reduce_max(each, axis=0) for name, each in found.details.items()}
        return start + m, first(indices, found), details

    def body(start: tf.Tensor, kept: Any, details: Any) -> tuple[tf.Tensor, Any, Any]:
        start, new, others = some(start)
        return start, join(kept, new), _largest([details, others])

    state = some(tf.constant(0))
    _, kept, details = tf.while_loop(
        lambda start, *_: start < samples, body, state, parallel_iterations=1
    )
    return kept, details


def _largest(details: Sequence[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {name: tf.reduce_max([each[name] for each in details], axis=0) for name in details[0]}
