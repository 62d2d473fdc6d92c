"""Layer-wise relevance propagation through a traced graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from .blocks import Block, find_block
from .errors import uncovered
from .graph import Graph, Passed, pull, walk
from .linear_rules import LINEAR_RULES, Settings, make_linear, stabilized
from .operations import ACTIVATIONS, CHOICES, MOVES, find_signal, is_elementwise
from .protocol import Relevance

_SUMS = ("AddV2", "Add", "Sub", "AddN")
_PRODUCTS = ("Mul", "RealDiv")
_NEGLIGIBLE = 1e-12  # a score
_STABILIZER = 1e-9  # of operations without weights
# Blocks that have no weights of their own.
_WEIGHTLESS = ("pool", "normalization", "gated")


class LayerSum(NamedTuple):
    """The relevance of one layer, summed for each image, (n,).

    Parameters
    ----------
    layer
        The name of the layer.
    rule
        The rule.
    arrived, passed, kept
        The relevance at its outputs, at its inputs, and what its bias keeps.
    """

    layer: str
    rule: str
    arrived: tf.Tensor
    passed: tf.Tensor
    kept: tf.Tensor


class LayerwisePropagation:
    """Layer-wise relevance propagation by a table of rules.

    Parameters
    ----------
    rules
        The names of rules by the kind of layer: "dense", "convolution", and perhaps "first".
    settings
        The numbers of the rules.
    """

    needs_baseline = False

    def __init__(self, rules: Mapping[str, str], settings: Settings) -> None:
        self._rules, self._settings = rules, settings
        self._sums: list[LayerSum] = []

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """The layers of the last graph and their rules, from the score down."""
        return tuple((each.layer, each.rule) for each in self._sums)

    def run(
        self,
        graph: Graph,
        target: tf.Tensor,
        seed: tf.Tensor,
        scores: tf.Tensor,
        twins: Mapping[Any, tf.Tensor],
    ) -> Relevance:
        """Return the relevance of the images; see the protocol. It starts with target * seed."""
        self._graph, self._sums = graph, []
        start = target * seed
        self._images = tf.shape(scores)[0]
        (values,) = walk(graph, target, start, self._step)
        ends = self._per_image(start), self._per_image(values)
        return Relevance(values, _details(*ends, self._sums))

    def _step(self, op: tf.Operation, values: list[tf.Tensor | None]) -> Passed:
        graph = self._graph
        block = find_block(op, graph)
        value = next(v for v in values if v is not None)
        if block is not None:
            return self._through_block(block, op, value)
        if op.type in MOVES or op.type in CHOICES:
            return self._through_move(op, values)
        if op.type in ACTIVATIONS:
            return [(op.inputs[graph.varying_inputs(op)[0]], value)]
        if op.type in _SUMS:
            return self._through_sum(op, value)
        if op.type in _PRODUCTS:
            return self._through_product(op, value)
        raise uncovered(op)

    def _through_block(self, block: Block, end: tf.Operation, value: tf.Tensor) -> Passed:
        if block.kind == "scale":  # without a layer to fold it into
            return [(block.inputs, block.to_core(value, self._graph, False))]
        linear = make_linear(block, self._graph, end, value)
        name, settings = self._rule_of(block), self._settings
        if block.kind in _WEIGHTLESS:
            name, settings = "epsilon", replace(settings, epsilon=_STABILIZER)
        passed, kept = LINEAR_RULES[name](linear, settings)
        sums = (self._per_image(each, block) for each in (linear.relevance, passed, kept))
        self._sums.append(LayerSum(_layer_of(block.core), name, *sums))
        return [(block.inputs, passed)]

    def _rule_of(self, block: Block) -> str:
        if "first" in self._rules and self._is_first(block):
            return self._rules["first"]
        return self._rules.get(block.kind, "epsilon")

    def _is_first(self, block: Block) -> bool:
        """Return whether only scales and moves are between the images and a layer."""
        graph, tensor = self._graph, block.inputs
        while not graph.is_source(tensor):
            op = tensor.op
            if op.type not in MOVES and not is_elementwise(op, graph):
                return False
            tensor = op.inputs[graph.varying_inputs(op)[0]]
        return True

    def _through_move(self, op: tf.Operation, values: list[tf.Tensor | None]) -> Passed:
        """Move relevance; constants beside the signal, a class token or a padding, keep theirs."""
        numbers = self._graph.varying_inputs(op)
        pulled = pull(op, values, numbers)
        others = len(numbers) < sum(tensor.dtype.is_floating for tensor in op.inputs)
        if others or op.type == "Pad":
            given = [self._per_image(value) for value in values if value is not None]
            own = tf.add_n(given) - tf.add_n([self._per_image(value) for value in pulled])
            self._sums.append(LayerSum(op.name, "constant", own, tf.zeros_like(own), own))
        return [(op.inputs[i], value) for i, value in zip(numbers, pulled, strict=True)]

    def _through_sum(self, op: tf.Operation, value: tf.Tensor) -> Passed:
        """Divide relevance among the terms of a sum by the epsilon rule."""
        share = value / stabilized(op.outputs[0], _STABILIZER)
        numbers = self._graph.varying_inputs(op)
        pulled = pull(op, [share], numbers)
        return [(op.inputs[i], op.inputs[i] * p) for i, p in zip(numbers, pulled, strict=True)]

    def _through_product(self, op: tf.Operation, value: tf.Tensor) -> Passed:
        """Give all relevance to the signal, and none to its gate."""
        numbers = self._graph.varying_inputs(op)
        signal = numbers[0] if len(numbers) == 1 else find_signal(op, self._graph)
        if signal is None:
            raise uncovered(op)
        tensor = op.inputs[signal]
        if tensor.shape.is_compatible_with(op.outputs[0].shape) and tensor.shape.rank:
            return [(tensor, value)]
        share = value / stabilized(op.outputs[0], _STABILIZER)
        return [(tensor, tensor * pull(op, [share], [signal])[0])]

    def _per_image(self, values: tf.Tensor, block: Block | None = None) -> tf.Tensor:
        """Sum values for each image, (n,); positions may be folded into the first axis."""
        if block is not None and block.inputs.op.type == "SpaceToBatchND":  # images vary fastest
            return tf.reduce_sum(
                tf.reshape(values, [-1, self._images, tf.size(values) // tf.shape(values)[0]]),
                [0, 2],
            )
        return tf.reduce_sum(tf.reshape(values, [self._images, -1]), 1)


def _layer_of(op: tf.Operation) -> str:
    """Return the name of an operation without its last part, as far as it is a layer's."""
    return op.name.rpartition("/")[0].removesuffix("/Tensordot") or str(op.name)


def _details(start: tf.Tensor, end: tf.Tensor, sums: Sequence[LayerSum]) -> dict[str, tf.Tensor]:
    """Return what arrives at the images, what biases keep, and the largest error of a layer."""
    if not sums:
        return {"relevance": end}
    unit = tf.maximum(tf.abs(start), tf.constant(_NEGLIGIBLE, start.dtype))
    errors = [tf.abs(each.passed + each.kept - each.arrived) / unit for each in sums]
    kept, stacked = tf.add_n([each.kept for each in sums]), tf.stack(errors)
    return {
        "relevance": end,
        "kept": kept,
        "conservation_error": tf.reduce_max(stacked, axis=0),
        "worst_layer": tf.cast(tf.argmax(stacked, axis=0), start.dtype),
    }
