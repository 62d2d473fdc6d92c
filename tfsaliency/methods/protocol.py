"""What a composition asks for, what it returns, and how it asks for many: some at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from ..errors import OptionError
from ..rules import Rule


class Explained(NamedTuple):
    """Attributions at k points.

    Parameters
    ----------
    values
        The attributions, (k, h, w, c).
    scores
        The score at each point, (k,).
    details
        What else is known of each, (k,) by name; of several points the largest counts.
    """

    values: tf.Tensor
    scores: tf.Tensor
    details: Mapping[str, tf.Tensor]


class Features(NamedTuple):
    """What a layer returned at k points, and how the score depends on it.

    Parameters
    ----------
    values
        The layer's output, (k, h', w', channels).
    slopes
        The score's derivative with respect to it, of the same shape.
    scores
        The score at each point, (k,).
    """

    values: tf.Tensor
    slopes: tf.Tensor
    scores: tf.Tensor


class Explain(NamedTuple):
    """What a composition asks for attributions.

    Parameters
    ----------
    at
        (points (k, h, w, c), rows (k,)) -> Explained; a row is the index of the image whose class
        is explained, and whose other inputs are taken.
    at_once
        How many points to give at a time, a scalar tensor.
    exact
        Whether the values are the derivatives of the scores.
    features
        (points, rows, layer, rule) -> Features: of a layer by name, or of the last one with
        spatial outputs for None, under a rule, or that of the method for None.
    """

    at: Callable[[tf.Tensor, tf.Tensor], Explained]
    at_once: tf.Tensor
    exact: bool
    features: Callable[[tf.Tensor, tf.Tensor, str | None, Rule | None], Features]

    def within(self, composition: Composition | None) -> Explain:
        """Return what asks a composition instead, for one sample at a time."""
        if composition is None:
            return self
        at = functools.partial(composition, self)
        return self._replace(at=at, at_once=tf.constant(1), exact=False)


class Composition(Protocol):
    """Attributions at images, out of attributions at others.

    An object with this one method may be the composition of a Method.
    """

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        ...


def check_of(of: Any, name: str = "of") -> None:
    """Raise OptionError for what is no composition, and not None."""
    if of is not None and not callable(of):
        raise OptionError(
            f"Expected {name} as a composition, such as InputXGradient(), or None for the "
            f"gradient. Received: {of!r}."
        )


def over(
    samples: int | tf.Tensor,
    draw: Callable[[tf.Tensor], tf.Tensor],
    explain: Explain,
    points: tf.Tensor,
    rows: tf.Tensor,
    first: Callable[[tf.Tensor, Explained], Any],
    join: Callable[[Any, Any], Any],
) -> tuple[Any, dict[str, tf.Tensor]]:
    """Fold the attributions at draw(0), ... draw(samples - 1), each (k, h, w, c), some at a time.

    Parameters
    ----------
    draw
        A sample's index -> its points.
    first
        (indices (m,), what was found at them (m, k, ...)) -> what is to be kept of it.
    join
        Two of these -> one; zeros are what is kept of nothing.

    Returns
    -------
    What is kept of all, and the largest of each detail, (k,).
    """
    k = tf.shape(points)[0]
    count = tf.maximum(explain.at_once // k, 1)

    def some(start: tf.Tensor) -> tuple[Any, dict[str, tf.Tensor]]:
        indices = tf.range(start, tf.minimum(start + count, samples))
        m = tf.size(indices)
        drawn = tf.map_fn(draw, indices, fn_output_signature=points.dtype)
        flat = tf.reshape(drawn, tf.concat([[-1], tf.shape(points)[1:]], 0))
        found = explain.at(tf.ensure_shape(flat, points.shape), tf.tile(rows, [m]))

        def apart(values: tf.Tensor) -> tf.Tensor:
            shaped = tf.reshape(values, tf.concat([[m, k], tf.shape(values)[1:]], 0))
            return tf.ensure_shape(shaped, [None, None, *values.shape[1:]])

        found = tf.nest.map_structure(apart, found)
        details = {name: tf.reduce_max(each, axis=0) for name, each in found.details.items()}
        return first(indices, found), details

    # A function, for its structure: what is kept of nothing must be known ahead of the loop, and
    # a first step outside of it would be a second copy of the network, with memory of its own.
    traced = tf.function(some, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int32))

    def body(start: tf.Tensor, kept: Any, details: Any) -> tuple[tf.Tensor, Any, Any]:
        new, others = traced(start)
        return start + count, join(kept, new), largest([details, others])

    def nothing(spec: tf.TensorSpec, least: bool = False) -> tf.Tensor:
        sides = [tf.shape(points)[i] if side is None else side for i, side in enumerate(spec.shape)]
        none = tf.fill(sides, tf.constant(spec.dtype.min if least else 0, spec.dtype))
        return tf.ensure_shape(none, spec.shape)

    kept, details = traced.structured_outputs
    state = (
        tf.constant(0),
        tf.nest.map_structure(nothing, kept),
        {name: nothing(spec, least=True) for name, spec in details.items()},
    )
    _, kept, details = tf.while_loop(
        lambda start, *_: start < samples, body, state, parallel_iterations=1
    )
    return kept, details


def largest(details: Sequence[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Return the largest of each detail."""
    return {name: tf.reduce_max([each[name] for each in details], axis=0) for name in details[0]}


def check_number(name: str, value: Any, least: float, above: bool = False) -> None:
    """Raise OptionError unless a value is a finite number from least on, or above it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value < np.inf or (above and value == least):
        limit = f"above {least:g}" if above else f"from {least:g}"
        raise OptionError(f"Expected {name} as a number {limit}. Received: {value!r}.")
