"""Multipliers: derivatives in which nonlinear operations have a finite slope.

The relevance of the images is multiplier * image (transformer LRP), or multiplier * (image -
baseline) (DeepLIFT). Linear operations pass multipliers by their own derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from .errors import uncovered
from .graph import Graph, Passed, apply_again, pull, to_shape_of, walk
from .operations import (
    ACTIVATIONS,
    CHOICES,
    MOVES,
    PRODUCTS,
    UNARY,
    find_signal,
    is_elementwise,
    is_linear,
    scale_of,
)
from .protocol import Relevance

_NEAR = 1e-6  # values nearer than this have the slope of a tangent


class _Multipliers:
    """Multipliers of the operations that are no derivative, which both kinds share."""

    def __init__(self) -> None:
        self._noted: list[tuple[str, str]] = []

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """The operations of the last graph that are no derivative, and their rules."""
        return tuple(self._noted)


class TransformerPropagation(_Multipliers):
    """Multipliers that conserve the score: gates and normalizations are constants.

    An activation passes f(z) / z, so that the product of multiplier and value is the same on both
    sides of it.

    Parameters
    ----------
    through_attention
        Whether the weights of attention pass relevance, too: a product gives half of it to each
        factor, and a softmax passes its derivative. It keeps what that leaves, as a bias does.
    """

    needs_baseline = False

    def __init__(self, through_attention: bool = False) -> None:
        super().__init__()
        self._through_attention = through_attention

    def run(
        self,
        graph: Graph,
        target: tf.Tensor,
        seed: tf.Tensor,
        scores: tf.Tensor,
        twins: Mapping[Any, tf.Tensor],
    ) -> Relevance:
        """Return the relevance of the images; see the protocol."""
        self._graph, self._images, self._noted = graph, tf.shape(scores)[0], []
        self._kept: list[tf.Tensor] = []
        (multipliers,) = walk(graph, target, seed, self._step)
        values = multipliers * graph.sources[0]
        start, end = (_total(each, self._images) for each in (target * seed, values))
        kept = tf.add_n([tf.zeros_like(start), *self._kept])
        error = tf.math.divide_no_nan(tf.abs(end + kept - start), tf.abs(start))
        return Relevance(values, {"relevance": end, "kept": kept, "conservation_error": error})

    def _step(self, op: tf.Operation, values: list[tf.Tensor | None]) -> Passed:
        graph = self._graph
        numbers = graph.varying_inputs(op)
        value = next(v for v in values if v is not None)
        if op.type in ACTIVATIONS:
            self._noted.append((op.name, "f(z) / z"))
            x, y = op.inputs[numbers[0]], op.outputs[0]
            near = tf.abs(x) < _NEAR
            slope = y / tf.where(near, tf.ones_like(x), x)
            return [(x, tf.where(near, pull(op, values, numbers[:1])[0], value * slope))]
        if self._through_attention and op.type == "Softmax":
            return self._softmax(op, values)
        if self._through_attention and len(numbers) == 2 and op.type in PRODUCTS:
            self._noted.append((op.name, "half to each factor"))
            shares = zip(numbers, pull(op, values, numbers), strict=True)
            return [(op.inputs[i], share / 2) for i, share in shares]
        if len(numbers) == 2 and op.type in ("Mul", "RealDiv", *PRODUCTS):
            signal = find_signal(op, graph)
            if signal is None:
                raise uncovered(op)
            self._noted.append((op.name, "a constant gate"))
            return [(op.inputs[signal], pull(op, values, [signal])[0])]
        if is_elementwise(op, graph):
            x = op.inputs[numbers[0]]
            shift = (op.outputs[0] - scale_of(op, x, graph)) * value
            self._kept.append(_total(shift, self._images))
            return [(x, scale_of(op, value, graph))]
        if op.type in CHOICES or is_linear(op, graph):
            pairs = [
                (op.inputs[i], p) for i, p in zip(numbers, pull(op, values, numbers), strict=True)
            ]
            floats = sum(tensor.dtype.is_floating for tensor in op.inputs)
            if op.type in CHOICES | MOVES and len(numbers) < floats:  # such as a class token
                given = [o * v for o, v in zip(op.outputs, values, strict=True) if v is not None]
                own = [-tensor * share for tensor, share in pairs]
                self._kept += [_total(each, self._images) for each in (*given, *own)]
            return pairs
        raise uncovered(op)

    def _softmax(self, op: tf.Operation, values: list[tf.Tensor | None]) -> Passed:
        """Pass the derivative, and keep the rest."""
        (x,), (y,), (value,) = op.inputs, op.outputs, values
        self._noted.append((op.name, "derivative"))
        share = pull(op, values, [0])[0]
        self._kept.append(_total(y * value, self._images) - _total(x * share, self._images))
        return [(x, share)]


class DeepLiftPropagation(_Multipliers):
    """Multipliers of DeepLIFT's rescale rule: differences from the baseline over differences.

    Products of two signals, of which the paper has no rule, pass the mean of the other factor at
    both ends, so that differences are divided without a rest.
    """

    needs_baseline = True

    def run(
        self,
        graph: Graph,
        target: tf.Tensor,
        seed: tf.Tensor,
        scores: tf.Tensor,
        twins: Mapping[Any, tf.Tensor],
    ) -> Relevance:
        """Return the relevance of the images; see the protocol."""
        self._graph, self._twins, self._noted = graph, twins, []
        images = tf.shape(scores)[0]
        (multipliers,) = walk(graph, target, seed, self._step)
        (source,) = graph.sources
        values = multipliers * (source - self._twin(source))
        difference = _total((target - self._twin(target)) * seed, images)
        return Relevance(values, {"difference": difference})

    def _twin(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor of the baseline's graph; of a constant, the tensor itself."""
        return self._twins.get(tensor.ref(), tensor)

    def _middle(self, tensor: tf.Tensor) -> tf.Tensor:
        return (tensor + self._twin(tensor)) / 2

    def _step(self, op: tf.Operation, values: list[tf.Tensor | None]) -> Passed:
        graph = self._graph
        numbers = graph.varying_inputs(op)
        inputs = [op.inputs[i] for i in numbers]
        if is_linear(op, graph) or is_elementwise(op, graph):
            return list(zip(inputs, pull(op, values, numbers), strict=True))
        (value,) = values
        self._noted.append((op.name, "rescale" if len(numbers) == 1 else "the mean factor"))
        if op.type in ("MaxPool", "MaxPool3D", "Max", "Min"):
            return [(inputs[0], self._choose(op, value, inputs[0]))]
        if len(numbers) == 1 and op.type in (*UNARY, "Maximum", "Minimum", "RealDiv"):
            return [(inputs[0], self._rescale(op, values, inputs[0]))]
        of_two = {
            "SquaredDifference": self._square_difference,
            "RealDiv": self._divide,
            **dict.fromkeys(("Mul", *PRODUCTS), self._multiply),
        }
        if op.type not in of_two or (len(numbers) == 1 and op.type != "SquaredDifference"):
            raise uncovered(op)
        return [pair for pair in of_two[op.type](op, value) if graph.varies(pair[0])]

    def _rescale(self, op: tf.Operation, values: list[tf.Tensor | None], x: tf.Tensor) -> tf.Tensor:
        """Multiply by the difference of the outputs over that of the inputs."""
        (value,), y = values, op.outputs[0]
        tangent = pull(op, values, [list(op.inputs).index(x)])[0]
        return self._over_step((y - self._twin(y)) * value, x, tangent)

    def _over_step(self, change: tf.Tensor, x: tf.Tensor, tangent: tf.Tensor) -> tf.Tensor:
        """Divide a change by the step of x; where there is hardly one, return the tangent."""
        step = x - self._twin(x)
        near = tf.abs(step) < _NEAR * (1 + tf.abs(x))
        return tf.where(near, tangent, change / tf.where(near, tf.ones_like(step), step))

    def _choose(self, op: tf.Operation, value: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Give the step of a maximum to the values that are largest at its two ends."""
        y, other_y, other_x = op.outputs[0], self._twin(op.outputs[0]), self._twin(x)
        top = tf.minimum(y, other_y) if op.type == "Min" else tf.maximum(y, other_y)
        own = tf.gradients(y, x, (top - other_y) * value)[0]
        others = tf.gradients(other_y, other_x, (y - top) * value)[0]
        return self._over_step(own + others, x, tf.gradients(y, x, value)[0])

    def _multiply(self, op: tf.Operation, value: tf.Tensor) -> Passed:
        """Pass the mean of the other factor at both ends."""
        ends = [self._middle(tensor) for tensor in op.inputs]
        output = apply_again(op, ends)
        slopes = tf.gradients(output, ends, value)
        return list(zip(op.inputs, slopes, strict=True))

    def _square_difference(self, op: tf.Operation, value: tf.Tensor) -> Passed:
        one, other = op.inputs
        share = value * 2 * (self._middle(one) - self._middle(other))
        return [(one, to_shape_of(share, one)), (other, to_shape_of(-share, other))]

    def _divide(self, op: tf.Operation, value: tf.Tensor) -> Passed:
        above, below = op.inputs
        inverse, other = 1 / below, 1 / self._twin(below)
        shares = value * (inverse + other) / 2, -value * self._middle(above) * inverse * other
        return [(t, to_shape_of(v, t)) for t, v in zip(op.inputs, shares, strict=True)]


def _total(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Sum values for each image, (n,)."""
    return tf.reduce_sum(tf.reshape(values, [images, -1]), 1)
