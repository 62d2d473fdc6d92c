"""Counts of the points at which compositions evaluate the model, for the progress of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import tensorflow as tf

from ..methods.completeness import double_steps

T = TypeVar("T", bound=Any)

_AGAIN = 0.7  # the probability that a path is refined once more

# Expected number of points for an image, of which some are evaluated already.
Expectation = Callable[[float], float]


class Counts:
    """Counts of evaluated points for each method, kept by the graph that evaluates them.

    Another thread may read them while the graph runs.

    Parameters
    ----------
    compositions
        The composition of each method, or None.
    """

    def __init__(self, compositions: Sequence[Any]) -> None:
        self._expected: list[Expectation] = [_guess_points(each) for each in compositions]
        # A variable for each method, so that none waits for another one's count.
        with tf.init_scope(), tf.device("CPU"):
            self._variables = [tf.Variable([0, 0], dtype=tf.int64) for _ in compositions]

    def add(self, place: int, result: T) -> T:
        """Count the points of a result, in the graph being traced."""
        points = tf.shape(result.scores, tf.int64)[0]
        with tf.control_dependencies([result.scores]):
            self._variables[place].assign_add([points, 0])
        return result

    def finish(self, place: int, result: T) -> T:
        """Count a method as finished, in the graph being traced."""
        with tf.control_dependencies([result.values]):
            self._variables[place].assign_add([0, 1])
        return result

    def start(self, images: int) -> Callable[[], float]:
        """Start at zero for a number of images; return the function that tells the share done."""
        for variable in self._variables:
            variable.assign([0, 0])
        return partial(self.share, images)

    def learn(self, images: int) -> None:
        """Expect as many points for each image as there were for these."""
        points = [float(variable.numpy()[0]) / images for variable in self._variables]
        self._expected = [partial(max, each) for each in points]

    def share(self, images: int) -> float:
        """Return the share of the points that are done, for a number of images, 0 to 1."""
        done = total = 0.0
        for expected, variable in zip(self._expected, self._variables, strict=True):
            points, finished = variable.numpy().tolist()
            done += points
            total += points if finished else images * expected(points / images)
        return done / total if total else 0.0


def _guess_points(composition: Any) -> Expectation:
    """Guess the number of points that a composition evaluates for an image, from its fields."""
    if composition is None:
        return partial(max, 1.0)
    each = _guess_points(getattr(composition, "inner", None))(0.0)
    if hasattr(composition, "max_steps"):
        levels = double_steps(composition.steps, composition.max_steps)
        return partial(_expect_refined, [each * level for level in levels])
    names = ("expected_samples", "samples", "steps")
    own = next((getattr(composition, name) for name in names if hasattr(composition, name)), 1)
    return partial(max, float(own * each))


def _expect_refined(levels: Sequence[float], done: float) -> float:
    """Return the expected number of points of a path that is refined level by level.

    >>> round(_expect_refined([16, 32, 64], 0.0), 2), _expect_refined([16, 32, 64], 20.0)
    (69.76, 92.8)
    """
    total, probability = 0.0, 1.0
    for level in levels:
        total += probability * level
        if total > done:  # this level has begun, and another one may follow
            probability *= _AGAIN
    return max(total, done)
