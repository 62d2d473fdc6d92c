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
    linearly. The path thereby avoids large gradients. No feature gets further than max_distance
    from where the straight line of integrated gradients has it. The details hold the completeness
    gap, as for IntegratedGradients, but more steps do not reduce it.

    Parameters
    ----------
    baseline
        As for IntegratedGradients: a number, an array (h, w, c) or "blur".
    steps
        The number of steps.
    fraction
        The fraction of the features to move at a time.
    max_distance
        The largest distance of a feature from the straight line, as a fraction of its way from the
        baseline to the image: 0 is the straight line, 1 no limit.
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
    max_distance: float = 0.1
    tolerance: float = 0.01
    inner: Composition | None = None

    name = "guided_ig"

    def __post_init__(self) -> None:
        check_inner(self.inner)
        check_int("steps", self.steps, 1)
        check_number("fraction", self.fraction, 0, above=True)
        check_number("tolerance", self.tolerance, 0, above=True)
        check_number("max_distance", self.max_distance, 0)
        for name in ("fraction", "max_distance"):
            if getattr(self, name) > 1:
                value = getattr(self, name)
                raise OptionError(f"Expected {name} of at most 1. Received: {value!r}.")

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        inner = attribute.of(self.inner)
        baseline = resolve_baseline(self.baseline, points)
        k, whole = tf.shape(points)[0], points - baseline
        length = tf.reshape(tf.abs(whole), [k, -1])
        dtype = tf.float64 if points.dtype == tf.float64 else tf.float32

        def at(progress: tf.Tensor) -> tf.Tensor:
            progress = tf.reshape(progress, tf.shape(points))
            return tf.where(progress < 1, baseline + progress * whole, points)

        def step(
            done: tf.Tensor, progress: tf.Tensor, values: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            here = at(progress)
            gradients = inner(here, image_index).values
            size = tf.abs(tf.broadcast_to(gradients, tf.shape(points)))
            size = tf.cast(tf.reshape(size, [k, -1]), points.dtype)
            progress = self._further(progress, done + 1, size, length)
            moved = tf.cast(at(progress) - here, gradients.dtype)
            return done + 1, progress, values + gradients * moved

        _, _, values = tf.while_loop(
            lambda done, progress, values: done < self.steps,
            step,
            (tf.constant(0), tf.zeros_like(length), tf.zeros_like(points, dtype)),
            parallel_iterations=1,
        )
        ends = score_endpoints(attribute, baseline, points, image_index)
        if not inner.is_gradient:
            return Attributions(values, ends.last, {})
        gap, steps = ends.gap(values, tf.range(k)), tf.fill([k], self.steps)
        return Attributions(values, ends.last, gap_details(gap, steps, self.tolerance))

    def _further(
        self, progress: tf.Tensor, step: tf.Tensor, size: tf.Tensor, length: tf.Tensor
    ) -> tf.Tensor:
        """Return the progress (k, features), 0 to 1, behind a step; size is of the gradients."""
        line = tf.cast(step / self.steps, progress.dtype)  # the progress on the straight line
        lowest = tf.maximum(line - self.max_distance, 0)
        highest = tf.minimum(line + self.max_distance, 1)
        progress = tf.clip_by_value(progress, lowest, highest)
        room = (highest - progress) * length
        left, wanted = (1 - progress) * length, (1 - line) * length
        wanted = tf.reduce_sum(left - wanted, axis=1, keepdims=True)
        # The last step goes all the way, despite rounding errors.
        wanted = tf.where(step < self.steps, tf.maximum(wanted, 0), np.inf)
        shares = self._shares(size, room, wanted)
        return tf.where(shares < 1, progress + shares * (highest - progress), highest)

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
