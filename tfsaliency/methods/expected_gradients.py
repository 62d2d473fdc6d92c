"""Expected gradients: integrated gradients averaged over many baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import OptionError, check_int
from .protocol import AttributionFunction, Attributions, Composition, check_inner, fold


@dataclass(frozen=True, eq=False)
class ExpectedGradients:
    """The mean of the integrated gradients from many baselines, by a random point on each path.

    Each sample draws a baseline x' and a position t on the path; the attribution is the mean of
    (x - x') * g(x' + t (x - x')). All images share the draws.

    Parameters
    ----------
    baselines
        Preprocessed images (m, h, w, c) to draw from, such as some of the training images; or None
        for uniform noise between the minimum and the maximum of the image, drawn for each sample.
    samples
        The number of samples.
    seed
        The seed of the baselines and positions.
    inner
        The attributions along the path; None for the gradient under the method's rule.

    References
    ----------
    Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients", arXiv:1906.10670; Sturmfels et al. 2020, "Visualizing the impact
    of feature attribution baselines", doi:10.23915/distill.00022, for uniform noise.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(10, seed=0).images
    >>> expected = tfs.ExpectedGradients(images[1:], samples=20)
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images[:1], expected)
    >>> maps["expected_gradients"].shape
    (1, 64, 64)
    """

    baselines: Any = None
    samples: int = 200
    seed: int = 0
    inner: Composition | None = None

    name = "expected_gradients"

    def __post_init__(self) -> None:
        check_inner(self.inner)
        check_int("samples", self.samples, 1)
        check_int("seed", self.seed, 0)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        baseline = self._noise(points) if self.baselines is None else self._drawn(points)

        def draw(sample: tf.Tensor) -> tf.Tensor:
            place = tf.random.stateless_uniform((), [self.seed, 2 * sample + 1])
            start = baseline(sample)
            return start + tf.cast(place, points.dtype) * (points - start)

        def weighted(samples: tf.Tensor, drawn: Attributions) -> tf.Tensor:
            paths = tf.map_fn(
                lambda sample: points - baseline(sample), samples, fn_output_signature=points.dtype
            )
            return tf.reduce_sum(tf.cast(paths, drawn.values.dtype) * drawn.values, axis=0)

        inner = attribute.of(self.inner)
        total, details = fold(self.samples, draw, inner, points, image_index, weighted, tf.add)
        scores = attribute(points, image_index).scores
        return Attributions(total / self.samples, scores, details)

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
        with tf.init_scope():  # kept beside the graph, not in it
            given = tf.constant(array, points.dtype)

        def baseline(sample: tf.Tensor) -> tf.Tensor:
            key = [self.seed, 2 * sample]
            index = tf.random.stateless_uniform((), key, 0, len(array), tf.int32)
            return tf.zeros_like(points) + given[index]

        return baseline
