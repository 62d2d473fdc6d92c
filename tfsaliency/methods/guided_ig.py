"""Guided IG: the integral of the gradients on a path of small gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import OptionError, check_int, check_number
from .completeness import gap_details, resolve_baseline, score_endpoints
from .protocol import AttributionFunction, Attributions, Composition, check_inner


@dataclass(frozen=True, eq=False)
class GuidedIG:
    """The integral of the gradients on a path that moves low-gradient features first.

    Each step moves the features (pixel values) with the smallest absolute gradients toward the
    image, a fraction of all features at a time, so that the L1 distance to the image decreases
    linearly. The path thereby avoids large gradients. The details hold the completeness gap, as for
    IntegratedGradients, but more steps do not reduce it; with ReLUs, gaps of about .5 are common.

    Parameters
    ----------
    baseline
        As for IntegratedGradients: a number, an array (h, w, c) or "blur".
    steps
        The number of steps.
    fraction
        The fraction of the features to move at a time.
    tolerance
        The largest gap, as a fraction of the difference of the scores; a larger gap is reported as
        the problem "unconverged".
    inner
        The attributions along the path; None for the gradient under the method's rule.

    References
    ----------
    Kapishnikov et al. 2021, "Guided Integrated Gradients", arXiv:2106.09788.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> guided = tfs.GuidedIG(steps=50)
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, guided, on_problem="ignore")
    >>> maps.details["guided_ig"]["steps"].tolist()
    [50.0]
    """

    baseline: Any = 0.0
    steps: int = 200
    fraction: float = 0.1
    tolerance: float = 0.01
    inner: Composition | None = None

    name = "guided_ig"

    def __post_init__(self) -> None:
        check_inner(self.inner)
        check_int("steps", self.steps, 1)
        check_number("fraction", self.fraction, 0, above=True)
        check_number("tolerance", self.tolerance, 0, above=True)
        if self.fraction > 1:
            raise OptionError(f"Expected fraction of at most 1. Received: {self.fraction!r}.")

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        inner = attribute.of(self.inner)
        baseline = resolve_baseline(self.baseline, points)
        k, axes = tf.shape(points)[0], list(range(1, points.shape.rank))
        whole = tf.reduce_sum(tf.abs(points - baseline), axes)[:, tf.newaxis]

        def step(
            done: tf.Tensor, at: tf.Tensor, values: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            gradients, left = inner(at, image_index).values, points - at
            distance = tf.abs(tf.reshape(left, [k, -1]))
            remaining = tf.cast((self.steps - 1 - done) / self.steps, points.dtype)
            wanted = tf.reduce_sum(distance, axis=1, keepdims=True) - whole * remaining
            # The last step goes all the way, despite rounding errors.
            wanted = tf.where(done + 1 < self.steps, wanted, np.inf)
            size = tf.reshape(tf.abs(tf.broadcast_to(gradients, tf.shape(points))), [k, -1])
            shares = self._shares(tf.cast(size, points.dtype), distance, wanted)
            shares = tf.reshape(shares, tf.shape(points))
            moved = tf.where(shares < 1, at + shares * left, points)
            return done + 1, moved, values + gradients * tf.cast(moved - at, gradients.dtype)

        zeros = tf.zeros_like(points, tf.float64 if points.dtype == tf.float64 else tf.float32)
        _, _, values = tf.while_loop(
            lambda done, at, values: done < self.steps,
            step,
            (tf.constant(0), baseline, zeros),
            parallel_iterations=1,
        )
        ends = score_endpoints(attribute, baseline, points, image_index)
        if not inner.is_gradient:
            return Attributions(values, ends.last, {})
        gap, steps = ends.gap(values, tf.range(k)), tf.fill([k], self.steps)
        return Attributions(values, ends.last, gap_details(gap, steps, self.tolerance))

    def _shares(self, size: tf.Tensor, distance: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        """Return the share of its distance (k, features) that each feature moves; wanted (k, 1)."""
        size = tf.where(distance > 0, size, np.inf)  # features that have arrived come last
        last = tf.shape(size)[1] - 1
        group_size = 1 + tf.cast(self.fraction * tf.cast(last, tf.float32), tf.int32)

        def group(
            end: tf.Tensor, limit: tf.Tensor, wanted: tf.Tensor, shares: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            end = tf.minimum(end + group_size, last)
            further = tf.raw_ops.NthElement(input=size, n=end)[:, tf.newaxis]
            chosen = (size > limit) & (size <= further)
            together = tf.reduce_sum(tf.where(chosen, distance, 0), axis=1, keepdims=True)
            part = tf.where(together > wanted, tf.math.divide_no_nan(wanted, together), 1)
            wanted = tf.where(together > wanted, tf.zeros_like(wanted), wanted - together)
            return end, further, wanted, tf.where(chosen, part, shares)

        lowest = tf.fill(tf.shape(wanted), tf.constant(-np.inf, wanted.dtype))
        *_, shares = tf.while_loop(
            lambda end, limit, wanted, shares: (end < last) & tf.reduce_any(wanted > 0),
            group,
            (-1, lowest, wanted, tf.zeros_like(distance)),
            parallel_iterations=1,
        )
        return shares
