"""Integrated gradients: the integral of the gradients on the straight path from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import check_flag
from .completeness import (
    Integral,
    check_steps,
    double_steps,
    integrate_once,
    over_baselines,
    refine,
    score_endpoints,
)
from .protocol import AttributionFunction, Attributions, Composition, fold


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """The integral of the gradients on the straight path from a baseline, times image - baseline.

    The attributions sum to the difference of the scores at the image and at the baseline. The
    number of Gauss-Legendre steps is doubled until the sum is within the tolerance, up to
    max_steps; the details "gap", "steps" and "unconverged" hold the result. For attributions that
    are not the gradients of the score (a modified rule, an inner composition), completeness does
    not apply and the first number of steps is used.

    Parameters
    ----------
    baseline
        Start of the path, in the space of the preprocessed images: a number, an array (h, w, c),
        "blur" (the image blurred by a tenth of its size), or a list of these to average over.
    tolerance
        The largest gap, as a fraction of the difference of the scores.
    steps, max_steps
        The first and the largest number of steps.
    inner
        The attributions along the path; None for the gradient under the method's rule.
    multiply
        Whether to multiply by image - baseline. False returns the mean gradient along the path,
        which shows what the score is sensitive to, and not what it consists of.

    References
    ----------
    Sundararajan, Taly and Yan 2017, arXiv:1703.01365.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, tfs.IntegratedGradients())
    >>> bool((maps.details["integrated_gradients"]["gap"] < .01).all())
    True
    """

    baseline: Any = 0.0
    tolerance: float = 0.01
    steps: int = 16
    max_steps: int = 512
    inner: Composition | None = None
    multiply: bool = True

    name = "integrated_gradients"

    def __post_init__(self) -> None:
        check_steps(self.inner, self.tolerance, self.steps, self.max_steps)
        check_flag("multiply", self.multiply)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        return over_baselines(
            self.baseline,
            points,
            lambda baseline: self._from(baseline, attribute, points, image_index),
        )

    def _from(
        self,
        baseline: tf.Tensor,
        attribute: AttributionFunction,
        points: tf.Tensor,
        image_index: tf.Tensor,
    ) -> Attributions:
        inner = attribute.of(self.inner)
        levels = double_steps(self.steps, self.max_steps) if inner.is_gradient else [self.steps]
        counts, places, weights = map(tf.constant, _gauss_legendre(levels))

        def integrate(level: tf.Tensor, indices: tf.Tensor) -> Integral:
            start, path = tf.gather(baseline, indices), tf.gather(points - baseline, indices)

            def node(sample: tf.Tensor) -> tf.Tensor:
                return start + tf.cast(places[level, sample], points.dtype) * path

            def weighted(samples: tf.Tensor, drawn: Attributions) -> tf.Tensor:
                share = tf.cast(tf.gather(weights[level], samples), drawn.values.dtype)
                return tf.tensordot(share, drawn.values, 1)

            own = tf.gather(image_index, indices)
            total, details = fold(counts[level], node, inner, start, own, weighted, tf.add)
            return (total * tf.cast(path, total.dtype) if self.multiply else total), details

        def contributions(values: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
            path = tf.gather(points - baseline, indices)
            return values if self.multiply else values * tf.cast(path, values.dtype)

        ends = score_endpoints(attribute, baseline, points, image_index)
        if not inner.is_gradient:
            return integrate_once(integrate, ends)
        return refine(integrate, levels, ends, self.tolerance, points, contributions)


def _gauss_legendre(levels: Sequence[int]) -> tuple[Any, Any, Any]:
    """Return node counts, and tables of nodes and weights on [0, 1] with one row per level."""
    places, weights = np.zeros((2, len(levels), max(levels)), np.float32)
    for row, count in enumerate(levels):
        nodes, shares = np.polynomial.legendre.leggauss(count)
        places[row, :count], weights[row, :count] = (nodes + 1) / 2, shares / 2
    return np.array(levels, np.int32), places, weights
