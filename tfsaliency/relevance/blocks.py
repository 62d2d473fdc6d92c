"""Linear blocks: a linear operation, and what scales and shifts its values before anything else."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from .graph import Graph, apply_again, pull, to_shape_of
from .operations import (
    CONVOLUTIONS,
    MOVES,
    POOLS,
    PRODUCTS,
    find_signal,
    is_elementwise,
    is_normalizing,
    scale_of,
)

# Moves that keep each value, so that a linear operation before them is still seen.
_KEEPING = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "BatchToSpaceND")


class Block(NamedTuple):
    """A linear operation and the operations that scale, shift or move its values.

    Parameters
    ----------
    core
        The linear operation; for a lone scale or shift, the first one.
    number
        The number of its input that depends on the images.
    tail
        The operations behind it, the last one first.
    kind
        "convolution", "dense", "pool", "normalization", "gated" (a product whose weights are a
        gate, as of attention) or "scale" (no linear operation, but a lone scale or shift).
    root
        For a normalization, the tensor that is normalized.
    """

    core: tf.Operation
    number: int
    tail: list[tf.Operation]
    kind: str
    root: tf.Tensor | None = None

    @property
    def inputs(self) -> tf.Tensor:
        """The tensor that receives relevance."""
        return self.core.inputs[self.number] if self.root is None else self.root

    @property
    def outputs(self) -> tf.Tensor:
        """The outputs of the linear operation."""
        return self.core.outputs[0]

    def to_core(self, values: tf.Tensor, graph: Graph, scaled: bool) -> tf.Tensor:
        """Move values at the end of the tail back to the outputs of the linear operation.

        Parameters
        ----------
        scaled
            Whether to multiply them with the factors on the way, as a derivative.
        """
        for op in self.tail:
            values = self._through(op, values, graph, scaled)
        return values

    def _through(
        self, op: tf.Operation, values: tf.Tensor, graph: Graph, scaled: bool
    ) -> tf.Tensor:
        if op.type in MOVES:
            (number,) = graph.varying_inputs(op)[:1]
            return pull(op, [values, *[None] * (len(op.outputs) - 1)], [number])[0]
        if not scaled:
            return values
        if is_elementwise(op, graph):
            return scale_of(op, values, graph)
        signal = find_signal(op, graph)
        gate = op.inputs[1 - (signal or 0)]
        return values / gate if op.type == "RealDiv" else values * gate


def find_block(end: tf.Operation, graph: Graph) -> Block | None:
    """Return the linear block that ends with an operation; None if it ends none."""
    tail: list[tf.Operation] = []
    op = end
    while True:
        found = _core(op, graph)
        if found is not None:
            number, kind, root = found
            return Block(op, number, tail, kind, root)
        above = _above(op, graph)
        if above is None:
            break
        tail.append(op)
        following = op.inputs[above]
        if graph.is_source(following) or not graph.is_read_once(following):
            break
        op = following.op
    while tail and tail[-1].type in MOVES:  # of a lone scale, moves before it are their own
        tail.pop()
    if not tail or end.type in MOVES:
        return None
    first = tail.pop()
    above = _above(first, graph)
    return Block(first, above or 0, tail, "scale")


def _above(op: tf.Operation, graph: Graph) -> int | None:
    """Return the input of an operation of a tail; None for other operations."""
    inputs = graph.varying_inputs(op)
    if op.type in _KEEPING and inputs:
        return inputs[0]
    if is_elementwise(op, graph):
        return inputs[0]
    if is_normalizing(op, graph):
        signal = find_signal(op, graph)
        same = signal is not None and op.inputs[signal].shape.is_compatible_with(
            op.outputs[0].shape
        )
        return signal if same else None
    return None


def _core(op: tf.Operation, graph: Graph) -> tuple[int, str, tf.Tensor | None] | None:
    """Return the input, the kind and the root of a linear operation; None for others."""
    inputs = graph.varying_inputs(op)
    if op.type in POOLS:
        return inputs[0], "pool", None
    if op.type in CONVOLUTIONS and len(inputs) == 1:
        return inputs[0], "convolution", None
    if op.type in PRODUCTS:
        if len(inputs) == 1:
            return inputs[0], "dense", None
        signal = find_signal(op, graph)
        return None if signal is None else (signal, "gated", None)
    if op.type in ("AddV2", "Add", "Sub") and len(inputs) == 2:
        root = _common_root(op, graph)
        if root is not None:
            return 0, "normalization", root
    return None


def _common_root(op: tf.Operation, graph: Graph) -> tf.Tensor | None:
    """Return the tensor of which both operands of a sum are made, one of them by a mean."""
    chains = [_chain(tensor, graph) for tensor in op.inputs]
    roots = [{tensor.ref(): tensor for tensor in chain} for chain in chains]
    averaged = [[any(_is_mean(t.op) for t in c[: i + 1]) for i in range(len(c))] for c in chains]
    for i, tensor in enumerate(chains[0]):
        if tensor.ref() in roots[1]:
            other = [t.ref() for t in chains[1]].index(tensor.ref())
            one_is_mean = (i and averaged[0][i - 1]) or (other and averaged[1][other - 1])
            return tensor if one_is_mean else None
    return None


def _is_mean(op: tf.Operation) -> bool:
    return op.type == "Mean"


def _chain(tensor: tf.Tensor, graph: Graph) -> list[tf.Tensor]:
    """Return a tensor and those of which it is made by scales, shifts and means."""
    chain = [tensor]
    while True:
        op = chain[-1].op
        if graph.is_source(chain[-1]):
            return chain
        number = _above(op, graph)
        if number is None and _is_mean(op):
            number = 0
        if number is None and is_normalizing(op, graph):
            number = find_signal(op, graph)
        if number is None:
            return chain
        chain.append(op.inputs[number])


def shift_of_normalization(block: Block, graph: Graph) -> tf.Tensor:
    """Return what the sum of a normalization is of a tensor of zeros: its bias."""
    total: list[tf.Tensor] = []
    for number, operand in enumerate(block.core.inputs):
        chain = _chain(operand, graph)
        refs = [tensor.ref() for tensor in chain]
        above = chain[: refs.index(block.root.ref() if block.root is not None else refs[-1]) + 1]
        shift = tf.zeros_like(above[-1])
        for tensor in reversed(above[:-1]):
            shift = _forward(tensor.op, shift, graph)
        total.append(-shift if block.core.type == "Sub" and number == 1 else shift)
    return total[0] + total[1]


def _forward(op: tf.Operation, shift: tf.Tensor, graph: Graph) -> tf.Tensor:
    """Return the output of an operation of a normalization for another signal."""
    signal = graph.varying_inputs(op)[0]
    if len(graph.varying_inputs(op)) == 2:
        signal = find_signal(op, graph) or 0
    inputs = list(op.inputs)
    inputs[signal] = shift
    return apply_again(op, inputs)


def pull_normalization(block: Block, values: tf.Tensor, graph: Graph) -> tf.Tensor:
    """Pull values at the sum of a normalization back to what is normalized.

    The standard deviation is a constant.
    """
    total: list[tf.Tensor] = []
    for number, operand in enumerate(block.core.inputs):
        sign = -1.0 if block.core.type == "Sub" and number == 1 else 1.0
        tensor, share = operand, to_shape_of(sign * values, operand)
        while tensor is not block.root:
            op = tensor.op
            if op.type in MOVES or _is_mean(op):
                number_above = graph.varying_inputs(op)[0]
                share = pull(op, [share], [number_above])[0]
            elif is_elementwise(op, graph):
                number_above = graph.varying_inputs(op)[0]
                share = scale_of(op, share, graph)
            else:
                number_above = find_signal(op, graph) or 0
                gate = op.inputs[1 - number_above]
                share = share / gate if op.type == "RealDiv" else share * gate
                share = to_shape_of(share, op.inputs[number_above])
            tensor = op.inputs[number_above]
        total.append(share)
    return tf.add_n(total)
