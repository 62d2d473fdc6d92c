"""The protocol of compositions: attributions computed from attributions at other images.

A composition receives an attribution function, the images to explain, and their indices. It
evaluates the function at any points, and returns attributions. Compositions therefore nest, and a
custom composition is any callable of three arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from ..errors import OptionError
from .cell_grids import CellGrid


# These two are NamedTuples because tf.nest does not look into dataclasses.
class Attributions(NamedTuple):
    """Attributions at k points.

    Parameters
    ----------
    values
        The attributions, (k, h, w, c).
    scores
        The score at each point, (k,).
    details
        Other numbers about each point, (k,) by name; the maximum over several samples.
    """

    values: tf.Tensor
    scores: tf.Tensor
    details: Mapping[str, tf.Tensor]


class LayerOutputs(NamedTuple):
    """The outputs of a layer at k points, and the derivative of the score with respect to them.

    Parameters
    ----------
    values
        The layer's outputs, (k, h', w', channels): one for each cell of the grid.
    gradients
        The derivative of the score with respect to it, of the same shape.
    scores
        The score at each point, (k,).
    grid
        The cells, and where they look in the image.
    """

    values: tf.Tensor
    gradients: tf.Tensor
    scores: tf.Tensor
    grid: CellGrid


@dataclass(frozen=True, eq=False)
class AttributionFunction:
    """The attribution function that a composition evaluates: attribute(points, image_index).

    Parameters
    ----------
    at
        Function (points (k, h, w, c), image_index (k,)) -> Attributions; image_index selects the
        image whose class is explained at each point, and whose other inputs are used.
    batch_size
        The number of points to evaluate at a time, a scalar tensor.
    is_gradient
        Whether the values are the derivatives of the scores.
    at_layer
        Function (points, image_index, layer, rule, grid, prefix, gradients) -> LayerOutputs, see
        CAM. By default, of the best layer, under the rule of the method. With gradients=False, by a
        forward pass alone; the gradients are then those of nothing, 0.
    score
        Function (points, image_index) -> scores (k,), by a forward pass alone.
    relevance
        Function (points, image_index, propagation, baseline) -> Attributions by rules of relevance;
        a baseline (k, h, w, c) for a propagation that needs one.
    attention
        Function (points, image_index, kind) -> Attributions of attention, see Attention.
    """

    at: Callable[[tf.Tensor, tf.Tensor], Attributions]
    batch_size: tf.Tensor
    is_gradient: bool
    at_layer: Callable[..., LayerOutputs]
    score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    relevance: Callable[..., Attributions]
    attention: Callable[..., Attributions]

    def __call__(self, points: tf.Tensor, image_index: tf.Tensor) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        return self.at(points, image_index)

    def of(self, inner: Composition | None) -> AttributionFunction:
        """Return an attribution function that evaluates an inner composition, one sample at a time.

        For None, return this function.
        """
        if inner is None:
            return self
        at = functools.partial(inner, self)
        return replace(self, at=at, batch_size=tf.constant(1), is_gradient=False)

    def scores_alone(self) -> AttributionFunction:
        """Return a function whose values are the scores (k,), by forward passes alone."""

        def at(points: tf.Tensor, image_index: tf.Tensor) -> Attributions:
            scores = self.score(points, image_index)
            return Attributions(scores, scores, {})

        return replace(self, at=at, is_gradient=False)


class Composition(Protocol):
    """A callable that computes attributions from attributions at other images.

    Any such callable can be the composition of a Method. If a composition is passed in place of a
    Method, its maps are named by its attribute `name`, or by its function or class; its attribute
    `reduction` is the default reduction of channels, else "sum_abs". One with the attribute
    `needs_gradient = False` calls attribute.score alone, also of models without a derivative.
    """

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        ...


def check_inner(inner: Any, name: str = "inner", cells: bool = False) -> None:
    """Raise OptionError unless the value is a composition or None.

    One that returns a value for each cell, instead of each pixel, is accepted only if `cells`.
    """
    if not getattr(inner, "resize", True) and not cells:
        raise OptionError(
            f"Expected {name} with a value for each pixel. Received: CAM(resize=False), with one "
            "for each cell."
        )
    if inner is not None and not callable(inner):
        raise OptionError(
            f"Expected {name} as a composition, such as InputXGradient(), or None for the "
            f"gradient. Received: {inner!r}."
        )


def fold(
    samples: int | tf.Tensor,
    draw: Callable[[tf.Tensor], tf.Tensor],
    attribute: AttributionFunction,
    points: tf.Tensor,
    image_index: tf.Tensor,
    first: Callable[[tf.Tensor, Attributions], Any],
    join: Callable[[Any, Any], Any],
    at_once: bool = False,
) -> tuple[Any, dict[str, tf.Tensor]]:
    """Fold the attributions at draw(0), ... draw(samples - 1), each (k, h, w, c), in chunks.

    Parameters
    ----------
    draw
        Function from the index of a sample to its points.
    attribute, points, image_index
        The arguments of the composition.
    first
        Function (indices (m,), attributions (m, k, ...) of these samples) -> partial result.
    join
        Function that joins two partial results; a partial result of zeros must be neutral.
    at_once
        Whether draw takes several indices (m,), and returns all their points (m, k, h, w, c).

    Returns
    -------
    The joined result, and the maximum of each detail, (k,).
    """
    k = tf.shape(points)[0]
    count = tf.maximum(attribute.batch_size // k, 1)

    def evaluate_from(start: tf.Tensor) -> tuple[Any, dict[str, tf.Tensor]]:
        indices = tf.range(start, tf.minimum(start + count, samples))
        m = tf.size(indices)
        if at_once:
            drawn = draw(indices)
        else:
            drawn = tf.map_fn(draw, indices, fn_output_signature=points.dtype)
        flat = tf.reshape(drawn, tf.concat([[-1], tf.shape(points)[1:]], 0))
        result = attribute(tf.ensure_shape(flat, points.shape), tf.tile(image_index, [m]))

        def by_sample(values: tf.Tensor) -> tf.Tensor:
            shaped = tf.reshape(values, tf.concat([[m, k], tf.shape(values)[1:]], 0))
            return tf.ensure_shape(shaped, [None, None, *values.shape[1:]])

        result = tf.nest.map_structure(by_sample, result)
        details = {name: tf.reduce_max(each, axis=0) for name, each in result.details.items()}
        return first(indices, result), details

    # A function, so that the loop can know the structure of a part before its first step. A step
    # outside the loop would be a second copy of the network, with its own memory.
    traced = tf.function(evaluate_from, autograph=False).get_concrete_function(
        tf.TensorSpec((), tf.int32)
    )

    def body(start: tf.Tensor, part: Any, details: Any) -> tuple[tf.Tensor, Any, Any]:
        new, others = traced(start)
        return start + count, join(part, new), largest([details, others])

    def filled(spec: tf.TensorSpec, value: float = 0) -> tf.Tensor:
        sides = [tf.shape(points)[i] if side is None else side for i, side in enumerate(spec.shape)]
        return tf.ensure_shape(tf.fill(sides, tf.constant(value, spec.dtype)), spec.shape)

    part, details = traced.structured_outputs
    state = (
        tf.constant(0),
        tf.nest.map_structure(filled, part),
        {name: filled(spec, spec.dtype.min) for name, spec in details.items()},
    )
    _, part, details = tf.while_loop(
        lambda start, *_: start < samples, body, state, parallel_iterations=1
    )
    return part, details


def largest(details: Sequence[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Return the maximum of each detail."""
    return {name: tf.reduce_max([each[name] for each in details], axis=0) for name in details[0]}
