"""Statistics of the attributions of noisy images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from ..errors import check_int, unknown_option
from .asking import Composition, Explain, Explained, check_number, check_of, over

STATISTICS = ("mean", "mean_square", "variance")


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
        if self.statistic not in STATISTICS:
            raise unknown_option("statistic", self.statistic, STATISTICS)
        check_number("noise", self.noise, 0)

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
        found, details = over(self.samples, draw, inner, points, rows, moments, _joined)
        variance = found.squares / found.count
        values = {
            "mean": found.mean,
            "mean_square": variance + tf.square(found.mean),
            "variance": variance,
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
