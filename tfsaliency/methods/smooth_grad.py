"""Statistics of the attributions of noisy images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import check_int, unknown_option
from .asking import Composition, Explain, Explained, check_number, check_of, over


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
        check_of(self.of)
        check_int("samples", self.samples, 1)
        check_int("seed", self.seed, 0)
        if self.statistic not in _FOLDS:
            raise unknown_option("statistic", self.statistic, _FOLDS)
        check_number("noise", self.noise, 0)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        axes = list(range(1, points.shape.rank))
        spread = tf.reduce_max(points, axes, True) - tf.reduce_min(points, axes, True)
        sigma = tf.cast(self.noise, points.dtype) * spread
        shape = tf.shape(points)[1:]

        def draw(sample: tf.Tensor) -> tf.Tensor:
            return points + sigma * tf.cast(_normal(shape, [self.seed, sample]), points.dtype)

        first, join, result = _FOLDS[self.statistic]
        inner = explain.within(self.of)
        kept, details = over(
            self.samples, draw, inner, points, rows, lambda _, found: first(found.values), join
        )
        values = result(kept, self.samples)
        return Explained(values, explain.at(points, rows).scores, details)


def _normal(shape: tf.Tensor, key: Sequence[Any]) -> tf.Tensor:
    """Return standard normal noise, float32, by the formula of Box and Muller.

    tf.random.stateless_normal takes three times as long: it has no vectorized logarithm and cosine.
    """
    size = tf.reduce_prod(shape)
    first, second = tf.unstack(tf.random.stateless_uniform([2, (size + 1) // 2], key))
    radius, angle = tf.sqrt(-2 * tf.math.log(1 - first)), 2 * np.pi * second
    noise = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(noise[:size], shape)


class _Fold(NamedTuple):
    """How a statistic of many samples is made of some at a time.

    Parameters
    ----------
    first
        Attributions (m, k, ...) of m samples -> what is kept of them.
    join
        Two of these -> one.
    result
        (what is kept of all samples, their number) -> the statistic (k, ...).
    """

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
    """Return the moments of two sets of samples together, without a difference of large numbers."""
    count, gap = a.count + b.count, b.mean - a.mean
    squares = a.squares + b.squares + tf.square(gap) * a.count * b.count / count
    return _Moments(count, a.mean + gap * b.count / count, squares)


_FOLDS: dict[str, _Fold] = {
    "mean": _Fold(lambda v: tf.reduce_sum(v, axis=0), tf.add, lambda total, n: total / n),
    "mean_square": _Fold(
        lambda v: tf.reduce_sum(tf.square(v), axis=0), tf.add, lambda total, n: total / n
    ),
    "variance": _Fold(_moments, _joined, lambda moments, n: moments.squares / n),
}
