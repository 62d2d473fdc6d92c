"""The graph between the images and the score, read backwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

# Operations that read a shape, and no value.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")

_BROKEN = ("StopGradient", "PreventGradient")  # identities without a derivative


class Graph:
    """The operations between sources and a target of a graph being traced.

    Parameters
    ----------
    sources
        The tensors that receive relevance.
    target
        The tensor from which it comes.

    Attributes
    ----------
    path
        The operations on a way of floating-point tensors from a source to the target, in order.
    """

    def __init__(self, sources: Sequence[tf.Tensor], target: tf.Tensor) -> None:
        self.sources = list(sources)
        self._roots = {source.ref() for source in sources}
        self._varying = set(self._roots)
        above = operations_above(target)
        self.path: list[tf.Operation] = []
        for op in target.graph.get_operations():  # in the order of creation: inputs come first
            if op.type in _SHAPES or not any(map(self.varies, op.inputs)):
                continue
            self._varying.update(output.ref() for output in op.outputs)
            if op in above and not self._roots & {output.ref() for output in op.outputs}:
                self.path.append(op)
        self._on_path = set(self.path)

    def varies(self, tensor: tf.Tensor) -> bool:
        """Return whether a tensor of floats, or a list of these, depends on the sources."""
        flows = tensor.dtype.is_floating or tensor.dtype == tf.variant
        return bool(flows and tensor.ref() in self._varying)

    def is_source(self, tensor: tf.Tensor) -> bool:
        """Return whether a tensor is one of the sources."""
        return tensor.ref() in self._roots

    def varying_inputs(self, op: tf.Operation) -> list[int]:
        """Return the numbers of the inputs that depend on the sources."""
        return [i for i, tensor in enumerate(op.inputs) if self.varies(tensor)]

    def is_read_once(self, tensor: tf.Tensor) -> bool:
        """Return whether one operation of the path reads a tensor, once."""
        readers = [c for c in tensor.consumers() if c in self._on_path]
        return len(readers) == 1 and sum(t is tensor for t in readers[0].inputs) == 1


def operations_above(target: tf.Tensor) -> set[tf.Operation]:
    """Return the operations from which a tensor is computed."""
    above, pending = set[Any](), [target.op]
    while pending:
        op = pending.pop()
        if op not in above:
            above.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    return above


# What an operation passes down: pairs of a tensor and its share.
Passed = Iterable[tuple[tf.Tensor, tf.Tensor]]


def walk(
    graph: Graph,
    target: tf.Tensor,
    seed: tf.Tensor,
    step: Callable[[tf.Operation, list[tf.Tensor | None]], Passed],
) -> list[tf.Tensor]:
    """Pass a seed at the target down to the sources.

    Parameters
    ----------
    graph, target
        The graph and its end.
    seed
        The values at the target, of its shape.
    step
        Function (operation, values at its outputs) -> pairs of a tensor above it and values there;
        None stands for an output that receives nothing.

    Returns
    -------
    The values at the sources, zeros where nothing arrives.
    """
    arriving: dict[Any, list[tf.Tensor]] = {target.ref(): [seed]}
    for op in reversed(graph.path):
        values = [_sum(arriving.pop(output.ref(), [])) for output in op.outputs]
        if any(value is not None for value in values):
            for tensor, value in step(op, values):
                arriving.setdefault(tensor.ref(), []).append(value)
    found = [_sum(arriving.get(source.ref(), [])) for source in graph.sources]
    return [
        tf.zeros_like(source) if value is None else value
        for source, value in zip(graph.sources, found, strict=True)
    ]


def _sum(values: Sequence[tf.Tensor]) -> tf.Tensor | None:
    if not values:
        return None
    return values[0] if len(values) == 1 else tf.add_n(list(values))


def pull(
    op: tf.Operation, values: Sequence[tf.Tensor | None], numbers: Sequence[int]
) -> list[tf.Tensor]:
    """Pull values at the outputs of an operation back to some inputs, by its own derivative."""
    pairs = [(o, v) for o, v in zip(op.outputs, values, strict=True) if v is not None]
    outputs, given = [o for o, _ in pairs], [v for _, v in pairs]
    inputs = [op.inputs[i] for i in numbers]
    if op.type in _BROKEN:
        return given
    # An input may be computed from another one, which is none of this operation's concern.
    return list(
        tf.gradients(
            outputs, inputs, given, stop_gradients=[*op.inputs], unconnected_gradients="zero"
        )
    )


def apply_again(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the output of an operation of one output for other inputs of the same types."""
    attributes = {k: v for k, v in op.node_def.attr.items() if not k.startswith("_")}
    types = [output.dtype for output in op.outputs]
    made = op.graph.create_op(op.type, list(inputs), types, attrs=attributes)
    return made.outputs[0]


def to_shape_of(values: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Sum values over the axes along which a tensor was broadcast."""
    if values.shape.is_fully_defined() and values.shape == tensor.shape:
        return values
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(tensor), s1=tf.shape(values)).r0
    return tf.reshape(tf.reduce_sum(values, axes), tf.shape(tensor))
