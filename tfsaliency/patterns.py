"""What a ReLU looks like in a TensorFlow graph, and what only looks like one.

A node is looked at with its neighbours, in a graph that is being traced or in the body of a
function that it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Ops that are ReLUs, with the ReLU's slope as their derivative.
RELU_OPS = ("Relu", "Relu6", "LeakyRelu")

# A ReLU that a rule can govern; one written in other ops, or hidden; one that switches something
# else on and off; and an activation with a kink or a bend that is no ReLU.
RELU, WRITTEN, GATE, SMOOTH = "relu", "written", "gate", "smooth"

_SMOOTH_OPS = ("Elu", "Selu")
# Nobody can tell what these compute: a ReLU, for all that is known.
_OPAQUE_OPS = (
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule", "XlaLaunch", "TPUPartitionedCall",
    "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
)  # fmt: skip
_SAME_VALUE_OPS = ("Identity", "IdentityN", "Cast", "Reshape", "StopGradient", "Snapshot")
_HARD_SIGMOID_SHIFT, _HARD_SIGMOID_SPAN = 3.0, 6.0
_GATE_REACH = 8  # how many ops a hard sigmoid is written in, at most, on either side


class Node(NamedTuple):
    """An operation and its neighbours.

    Parameters
    ----------
    name, type
        As in the graph.
    value
        A function that returns the value of what is constant, else None.
    inputs, consumers
        Functions that return the nodes it computes from, and those that compute from it.
    """

    name: str
    type: str
    value: Callable[[], Any]
    inputs: Callable[[], list[Node]]
    consumers: Callable[[], list[Node]]


def of_operation(op: tf.Operation) -> Node:
    """Return the node of an operation of a graph that is being traced."""
    return Node(
        op.name,
        op.type,
        lambda: tf.get_static_value(op.outputs[0]) if op.outputs else None,
        lambda: [of_operation(tensor.op) for tensor in op.inputs],
        lambda: [of_operation(c) for tensor in op.outputs for c in tensor.consumers()],
    )


def of_definitions(definitions: Iterable[Any]) -> Iterator[Node]:
    """Yield the nodes of a GraphDef or of a function's body."""
    body = {definition.name: definition for definition in definitions}
    above = {name: _input_names(definition) for name, definition in body.items()}
    below: dict[str, list[str]] = {}
    for name, names in above.items():
        for other in names:
            below.setdefault(other, []).append(name)

    def node(name: str) -> Node:
        if name not in body:  # an argument of the function: not known, but there
            beneath = below.get(name, [])
            return Node(name, "Arg", lambda: None, list, lambda: [node(n) for n in beneath])
        definition = body[name]
        tensor = definition.attr["value"].tensor if definition.op == "Const" else None
        return Node(
            name,
            definition.op,
            lambda: None if tensor is None else tf.make_ndarray(tensor),
            lambda: [node(n) for n in above[name]],
            lambda: [node(n) for n in below.get(name, [])],
        )

    return map(node, body)


def kind(node: Node) -> str | None:
    """Return RELU, WRITTEN, GATE or SMOOTH for what is or resembles a ReLU, else None."""
    written = _is_written_relu(node)
    if node.type not in RELU_OPS and not written:
        return SMOOTH if node.type in _SMOOTH_OPS else WRITTEN if node.type in _OPAQUE_OPS else None
    if _is_hard_sigmoid(node):
        return GATE
    if written:
        return SMOOTH if _is_part_of_elu(node) else WRITTEN
    return WRITTEN if _is_half_of_prelu(node) else RELU


def _is_written_relu(node: Node) -> bool:
    """Tell whether a node is a maximum with zero, a choice or a mask by a comparison."""
    if node.type in ("Maximum", "Minimum"):
        return any(_is_zero(n) for n in node.inputs())
    if node.type in ("Select", "SelectV2"):
        return _is_comparison(node.inputs()[0])
    if node.type == "Mul":
        return any(n.type == "Cast" and _is_comparison(n.inputs()[0]) for n in node.inputs())
    return False


def _is_zero(node: Node) -> bool:
    value = node.value()
    if value is not None:
        return not np.any(value)
    if node.type == "Fill":
        return _is_zero(node.inputs()[1])
    passed_on = node.type in ("Identity", "Cast", "BroadcastTo") and bool(node.inputs())
    return node.type == "ZerosLike" or (passed_on and _is_zero(node.inputs()[0]))


def _is_comparison(node: Node) -> bool:
    """Tell whether a node compares something that varies with a constant."""
    if node.type not in ("Greater", "GreaterEqual", "Less", "LessEqual"):
        return False
    return sum(n.value() is None and not _is_zero(n) for n in node.inputs()) == 1


def _is_hard_sigmoid(node: Node) -> bool:
    """Tell whether a node is the clip of clip(x + 3, 0, 6) / 6, alone or times something."""
    above = _walk(node, lambda n: n.inputs(), (*_SAME_VALUE_OPS, "Maximum", "Minimum"))
    if not any(_adds(n, _HARD_SIGMOID_SHIFT) for n in above):
        return False
    steps = (*_SAME_VALUE_OPS, "Maximum", "Minimum", "Mul")
    below = list(_walk(node, lambda n: n.consumers(), steps))
    clipped = node.type == "Relu6" or any(
        n.type == "Minimum" and _has_constant(n, _HARD_SIGMOID_SPAN) for n in [node, *below, *above]
    )
    return clipped and any(_divides(n, _HARD_SIGMOID_SPAN) for n in below)


def _adds(node: Node, value: float) -> bool:
    return node.type in ("Add", "AddV2", "BiasAdd") and _has_constant(node, value)


def _divides(node: Node, value: float) -> bool:
    if node.type in ("RealDiv", "Div", "DivNoNan"):
        return _is_constant(node.inputs()[1], value)
    return node.type == "Mul" and _has_constant(node, 1 / value)


def _has_constant(node: Node, value: float) -> bool:
    return any(_is_constant(n, value) for n in node.inputs())


def _is_constant(node: Node, value: float) -> bool:
    while node.type in ("Identity", "Cast") and node.inputs():
        node = node.inputs()[0]
    found = node.value()
    if found is None or np.size(found) == 0:
        return False
    number = np.asarray(found)
    if number.dtype.kind not in "uif" and number.dtype.name != "bfloat16":
        return False
    # bfloat16 has eight binary digits.
    return bool(np.allclose(number.astype(np.float64), value, rtol=2**-8))


def _walk(
    node: Node, step: Callable[[Node], Sequence[Node]], through: tuple[str, ...]
) -> list[Node]:
    """Return the nodes reached from node by steps that go on through ops of some types only."""
    found: dict[str, Node] = {}
    pending = list(step(node))
    while pending and len(found) < _GATE_REACH * 4:
        near = pending.pop()
        if near.name not in found:
            found[near.name] = near
            if near.type in through:
                pending.extend(step(near))
    return list(found.values())


def _is_half_of_prelu(node: Node) -> bool:
    """Tell whether a ReLU is one of the two of max(x, 0) - alpha * max(-x, 0)."""
    if node.type != "Relu" or not node.inputs():
        return False
    (source,) = node.inputs()[:1]
    negated = source.type == "Neg"
    if negated:
        partners = source.inputs()[0].consumers()
    else:
        partners = [r for n in source.consumers() if n.type == "Neg" for r in n.consumers()]
    ends = _sums(node)
    return any(p.type == "Relu" and p.name != node.name and ends & _sums(p) for p in partners)


def _sums(node: Node) -> set[str]:
    """Return the names of the sums that a node is a term of, times something or not."""
    below = _walk(node, lambda n: n.consumers(), (*_SAME_VALUE_OPS, "Mul", "Neg"))
    return {n.name for n in below if n.type in ("Add", "AddV2", "Sub", "AddN")}


def _is_part_of_elu(node: Node) -> bool:
    """Tell whether a node is part of an ELU or CELU that is written in other ops."""
    if node.type in ("Select", "SelectV2"):
        above = _walk(node, lambda n: n.inputs(), (*_SAME_VALUE_OPS, "Mul"))
        return any(n.type in _SMOOTH_OPS for n in above)
    if node.type not in ("Maximum", "Minimum"):
        return False
    sources = [n for n in node.inputs() if not _is_zero(n)]
    clipped = [c for n in sources for c in n.consumers() if c.type == "Minimum"]
    below = [
        n
        for c in clipped
        if any(map(_is_zero, c.inputs()))
        for n in _walk(c, lambda n: n.consumers(), (*_SAME_VALUE_OPS, "Mul", "RealDiv"))
    ]
    return any(n.type in ("Exp", "Expm1") for n in below)


def _input_names(definition: Any) -> list[str]:
    return [name.split(":")[0] for name in definition.input if not name.startswith("^")]
