"""Blur IG: the integral of the gradients on the path from the blurred image to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from ..errors import check_choice, check_number
from .blur import blurred
from .completeness import (
    Integral,
    check_steps,
    double_steps,
    integrate_once,
    refine,
    score_endpoints,
)
from .protocol import AttributionFunction, Attributions, Composition, fold

GRIDS = ("quadratic", "linear")


@dataclass(frozen=True, eq=False)
class BlurIG:
    """The integral of the gradients on the path from the blurred image to the image.

    Each step multiplies the gradient at its midpoint by the change of the image. The attributions
    sum to the difference of the scores at the image and at its blur. Steps are doubled as in
    IntegratedGradients, with the same details.

    Parameters
    ----------
    sigma
        Standard deviation of the first Gaussian blur, in pixels. The image is 0 outside its
        borders: a blur much wider than the image removes almost everything.
    grid
        Schedule by which sigma decreases to 0: "quadratic" (smaller steps near the sharp image) or
        "linear".
    tolerance
        The largest gap, as a fraction of the difference of the scores.
    steps, max_steps
        The first and the largest number of steps.
    inner
        The attributions along the path; None for the gradient under the method's rule.

    References
    ----------
    Xu, Venugopalan, Sundararajan 2020, "Attribution in Scale and Space", arXiv:2004.03383.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, tfs.BlurIG(sigma=20))
    >>> bool(maps.details["blur_ig"]["gap"] < .01)
    True
    """

    sigma: float = 50.0
    grid: Literal["quadratic", "linear"] = "quadratic"
    tolerance: float = 0.01
    steps: int = 32
    max_steps: int = 512
    inner: Composition | None = None

    name = "blur_ig"

    def __post_init__(self) -> None:
        check_steps(self.inner, self.tolerance, self.steps, self.max_steps)
        check_number("sigma", self.sigma, 0, above=True)
        check_choice("grid", self.grid, GRIDS)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        inner = attribute.of(self.inner)
        levels = double_steps(self.steps, self.max_steps) if inner.is_gradient else [self.steps]
        counts = tf.constant(levels)

        def integrate(level: tf.Tensor, indices: tf.Tensor) -> Integral:
            sharp = tf.gather(points, indices)

            def at(place: tf.Tensor) -> tf.Tensor:
                """Return the images at a position from 0 (blurred) to the number of steps."""
                left = 1 - tf.cast(place, tf.float32) / tf.cast(counts[level], tf.float32)
                return blurred(sharp, self.sigma * (left**2 if self.grid == "quadratic" else left))

            def middle(step: tf.Tensor) -> tf.Tensor:
                return at(tf.cast(step, tf.float32) + 0.5)

            def weighted(steps: tf.Tensor, drawn: Attributions) -> tf.Tensor:
                ends = tf.concat([steps, steps[-1:] + 1], 0)
                every = tf.map_fn(at, ends, fn_output_signature=points.dtype)
                changes = every[1:] - every[:-1]
                return tf.reduce_sum(tf.cast(changes, drawn.values.dtype) * drawn.values, axis=0)

            own = tf.gather(image_index, indices)
            return fold(counts[level], middle, inner, sharp, own, weighted, tf.add)

        first = blurred(points, tf.constant(self.sigma))
        ends = score_endpoints(attribute, first, points, image_index)
        if not inner.is_gradient:
            return integrate_once(integrate, ends)
        return refine(integrate, levels, ends, self.tolerance, points)
