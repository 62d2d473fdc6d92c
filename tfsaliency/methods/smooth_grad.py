"""Statistics of the attributions of noisy images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import check_choice, check_int, check_number
from .protocol import (
    AttributionFunction,
    Attributions,
    Composition,
    check_inner,
    fold,
)


@dataclass(frozen=True, eq=False)
class SmoothGrad:
    """A statistic of the attributions of noisy images: mean, mean_square or variance.

    The signed mean is taken before any absolute value. All images share the noise of a sample, so a
    map does not depend on the other images of its batch.

    Parameters
    ----------
    samples
        The number of noisy images.
    noise
        The standard deviation, as a fraction of max - min of the image.
    statistic
        "mean", "mean_square" (SmoothGrad-squared) or "variance" (VarGrad).
    seed
        The seed of the noise.
    inner
        The attributions of each noisy image; None for the gradient under the method's rule.

    References
    ----------
    Smilkov et al. 2017, arXiv:1706.03825; Hooker et al. 2019, arXiv:1806.10758 (squared);
    Adebayo et al. 2018, arXiv:1810.03307 (variance).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> methods = ["gradient", tfs.SmoothGrad(samples=5)]
    >>> tfs.saliency_map(synthetic.shapes_model(), images, methods)["smooth_grad"].shape
    (2, 64, 64)
    """

    samples: int = 50
    noise: float = 0.15
    statistic: Literal["mean", "mean_square", "variance"] = "mean"
    seed: int = 0
    inner: Composition | None = None

    @property
    def name(self) -> str:
        """The key of METHODS: "smooth_grad", "smooth_grad_squared" or "var_grad"."""
        return _STATISTICS[self.statistic].name

    @property
    def reduction(self) -> str:
        """Reduction of channels: "sum" for statistics that are never negative, else "sum_abs"."""
        return "sum_abs" if self.statistic == "mean" else "sum"

    @property
    def never_negative(self) -> bool:
        """True if no value of a map is negative."""
        return self.statistic != "mean"

    def __post_init__(self) -> None:
        check_inner(self.inner, cells=True)
        check_int("samples", self.samples, 1)
        check_int("seed", self.seed, 0)
        check_choice("statistic", self.statistic, _STATISTICS)
        check_number("noise", self.noise, 0)

    @property
    def resize(self) -> bool:
        """True if there is a value for each pixel, as in CAM."""
        return bool(getattr(self.inner, "resize", True))

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        axes = list(range(1, points.shape.rank))
        spread = tf.reduce_max(points, axes, True) - tf.reduce_min(points, axes, True)
        sigma = tf.cast(self.noise, points.dtype) * spread
        shape = tf.shape(points)[1:]

        def draw(sample: tf.Tensor) -> tf.Tensor:
            return points + sigma * tf.cast(_normal(shape, [self.seed, sample]), points.dtype)

        _, first, join, result = _STATISTICS[self.statistic]
        total, details = fold(
            self.samples,
            draw,
            attribute.of(self.inner),
            points,
            image_index,
            lambda _, drawn: first(drawn.values),
            join,
        )
        values = result(total, self.samples)
        return Attributions(values, attribute(points, image_index).scores, details)


def _normal(shape: tf.Tensor, key: Sequence[Any]) -> tf.Tensor:
    """Return standard normal noise, float32, by the formula of Box and Muller.

    tf.random.stateless_normal takes three times as long, because its logarithm and cosine are not
    vectorized.
    """
    size = tf.reduce_prod(shape)
    first, second = tf.unstack(tf.random.stateless_uniform([2, (size + 1) // 2], key))
    radius, angle = tf.sqrt(-2 * tf.math.log(1 - first)), 2 * np.pi * second
    noise = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(noise[:size], shape)


class _Statistic(NamedTuple):
    """A statistic of many samples, computed in chunks.

    Parameters
    ----------
    name
        The default name of the maps.
    first
        Function from attributions (m, k, ...) of m samples to a partial result.
    join
        Function that joins two partial results.
    result
        Function (joined result, number of samples) -> statistic (k, ...).
    """

    name: str
    first: Callable[[tf.Tensor], Any]
    join: Callable[[Any, Any], Any]
    result: Callable[[Any, int], tf.Tensor]


class _Moments(NamedTuple):
    count: tf.Tensor
    mean: tf.Tensor
    squares: tf.Tensor  # the sum of squared distances from the mean


def _moments(values: tf.Tensor) -> _Moments:
    mean = tf.reduce_mean(values, axis=0)
    squares = tf.reduce_sum(tf.math.squared_difference(values, mean), axis=0)
    return _Moments(tf.cast(tf.shape(values)[0], mean.dtype), mean, squares)


def _joined(a: _Moments, b: _Moments) -> _Moments:
    """Return the moments of two sets of samples together, without cancellation."""
    count, gap = a.count + b.count, b.mean - a.mean
    squares = a.squares + b.squares + tf.square(gap) * a.count * b.count / count
    return _Moments(count, a.mean + gap * b.count / count, squares)


_STATISTICS: dict[str, _Statistic] = {
    "mean": _Statistic(
        "smooth_grad", lambda v: tf.reduce_sum(v, axis=0), tf.add, lambda total, n: total / n
    ),
    "mean_square": _Statistic(
        "smooth_grad_squared",
        lambda v: tf.reduce_sum(tf.square(v), axis=0),
        tf.add,
        lambda total, n: total / n,
    ),
    "variance": _Statistic("var_grad", _moments, _joined, lambda moments, n: moments.squares / n),
}
