"""Completeness: path attributions sum to the difference of the scores at the ends of the path.

Integrated gradients, Blur IG and guided IG share the code here: baselines, the completeness gap,
and the refinement of steps until the gap is within a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ..errors import OptionError, check_int, check_number, unknown_option
from .blur import blurred
from .protocol import AttributionFunction, Attributions, check_inner, largest

_NEGLIGIBLE = 1e-6  # difference of scores, as a fraction of the larger one
_BLUR = 0.1  # of the smaller side of an image

# Attributions (k, ...), and the details of compositions inside.
Integral = tuple[tf.Tensor, dict[str, tf.Tensor]]


def check_steps(inner: Any, tolerance: Any, steps: Any, max_steps: Any) -> None:
    """Raise OptionError for impossible options of a refined integral."""
    check_inner(inner)
    check_int("steps", steps, 1)
    check_int("max_steps", max_steps, steps)
    check_number("tolerance", tolerance, 0, above=True)


class Endpoints(NamedTuple):
    """The scores at both ends of a path.

    Parameters
    ----------
    last
        The score at the end, (k,).
    difference
        The score at the end minus the score at the beginning, (k,).
    scale
        The absolute difference, the unit of gaps, unless it is negligible, (k,).
    """

    last: tf.Tensor
    difference: tf.Tensor
    scale: tf.Tensor

    def gap(self, values: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        """Return the relative gaps between sums of attributions and score differences."""
        total = tf.reduce_sum(values, list(range(1, values.shape.rank)))
        difference, scale = (tf.gather(each, indices) for each in (self.difference, self.scale))
        gap = tf.abs(total - tf.cast(difference, total.dtype))
        return tf.math.divide_no_nan(gap, tf.cast(scale, gap.dtype))


def score_endpoints(
    attribute: AttributionFunction, first: tf.Tensor, last: tf.Tensor, image_index: tf.Tensor
) -> Endpoints:
    """Return the scores at the first and last points of paths, both (k, ...)."""
    start, end = attribute(first, image_index).scores, attribute(last, image_index).scores
    return score_difference(end, end - start)


def score_difference(end: tf.Tensor, difference: tf.Tensor) -> Endpoints:
    """Return the scores at the ends of paths, from those at the end and the differences, (k,)."""
    size = tf.maximum(tf.abs(end - difference), tf.abs(end))
    return Endpoints(end, difference, tf.maximum(tf.abs(difference), _NEGLIGIBLE * size))


def refine(
    integrate: Callable[[tf.Tensor, tf.Tensor], Integral],
    levels: Sequence[int],
    ends: Endpoints,
    tolerance: float,
    points: tf.Tensor,
    contributions: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = lambda values, indices: values,
) -> Attributions:
    """Integrate with a growing number of steps until the gap of each point is within tolerance.

    Parameters
    ----------
    integrate
        Function (level, indices of points (j,)) -> Integral, (j, ...).
    levels
        The number of steps at each level.
    ends
        The scores at the ends of the paths.
    tolerance
        The largest gap.
    points
        The explained points, (k, ...).
    contributions
        Function (values, indices) -> the attributions that sum to the difference of the scores.
    """
    values, infinite = tf.zeros_like(points), tf.constant(np.inf, points.dtype)
    gap, steps = tf.fill(tf.shape(ends.last), infinite), tf.zeros_like(ends.last, tf.int32)

    def finer(
        level: tf.Tensor, values: tf.Tensor, gap: tf.Tensor, steps: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        indices = tf.cast(tf.where(gap > tolerance)[:, 0], tf.int32)
        better, _ = integrate(level, indices)
        left = ends.gap(contributions(better, indices), indices)
        used = tf.fill(tf.shape(indices), tf.constant(levels)[level])
        pairs = (values, better), (gap, left), (steps, used)
        at = indices[:, tf.newaxis]
        return level + 1, *(tf.tensor_scatter_nd_update(old, at, new) for old, new in pairs)

    _, values, gap, steps = tf.while_loop(
        lambda level, values, gap, steps: (level < len(levels)) & tf.reduce_any(gap > tolerance),
        finer,
        (tf.constant(0), values, gap, steps),
        parallel_iterations=1,
    )
    return Attributions(values, ends.last, gap_details(gap, steps, tolerance))


def integrate_once(
    integrate: Callable[[tf.Tensor, tf.Tensor], Integral], ends: Endpoints
) -> Attributions:
    """Integrate with the first number of steps, where no gap can be measured; see refine."""
    values, details = integrate(tf.constant(0), tf.range(tf.shape(ends.last)[0]))
    return Attributions(values, ends.last, details)


def gap_details(gap: tf.Tensor, steps: tf.Tensor, tolerance: float) -> dict[str, tf.Tensor]:
    """Return the details "gap", "steps" and "unconverged" of an integral, (k,)."""
    details = {"gap": gap, "steps": steps, "unconverged": gap > tolerance}
    return {name: tf.cast(each, tf.float32) for name, each in details.items()}


def double_steps(steps: int, max_steps: int) -> list[int]:
    """Return the numbers of steps from steps to max_steps, each twice the last.

    >>> double_steps(16, 100)
    [16, 32, 64, 100]
    """
    return [*(steps << i for i in range(32) if steps << i < max_steps), max_steps]


def over_baselines(
    baseline: Any, points: tf.Tensor, attribute_from: Callable[[tf.Tensor], Attributions]
) -> Attributions:
    """Return the mean attributions from one baseline or several, and the largest details.

    Parameters
    ----------
    baseline
        As for IntegratedGradients.
    points
        The explained points, (k, ...).
    attribute_from
        Function from a baseline (k, ...) to attributions.
    """
    listed = baseline if isinstance(baseline, (list, tuple)) else [baseline]
    if not listed:
        raise OptionError("Expected a baseline or several. Received: an empty list.")
    every = [attribute_from(resolve_baseline(one, points)) for one in listed]
    values = tf.add_n([each.values for each in every]) / len(every)
    return Attributions(values, every[0].scores, largest([each.details for each in every]))


def resolve_baseline(baseline: Any, points: tf.Tensor) -> tf.Tensor:
    """Return the baseline of points (k, h, w, c).

    A number, an array (h, w, c), "blur", or "mean", the mean color of each image.
    """
    if isinstance(baseline, str):
        if baseline not in ("blur", "mean"):
            raise unknown_option("baseline", baseline, ["blur", "mean"])
        if baseline == "mean":
            positions = list(range(1, points.shape.rank - 1)) or [1]  # of features, all of them
            return tf.zeros_like(points) + tf.reduce_mean(points, positions, keepdims=True)
        sides = tf.cast(tf.shape(points)[1:-1], tf.float32)
        return blurred(points, _BLUR * tf.reduce_min(sides))
    array = np.asarray(baseline)
    shape = tuple(points.shape[1:])
    if array.dtype.kind not in "uif" or (array.shape and array.shape != shape):
        raise OptionError(
            f"Expected a baseline as a number, an array {shape}, 'blur' or 'mean'. "
            f"Received: {array.dtype} of shape {array.shape}."
        )
    return tf.zeros_like(points) + tf.constant(array, points.dtype)
