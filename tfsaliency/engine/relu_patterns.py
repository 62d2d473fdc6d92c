"""Recognition of ReLUs in a TensorFlow graph, and of operations that resemble them.

A node is classified with its neighbors, in the graph being traced or in the body of a function that
it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph_nodes import Node

# Ops that are ReLUs; their derivative is the ReLU's slope.
RELU_OPS = ("Relu", "Relu6", "LeakyRelu")

# Kinds: a ReLU that a rule can govern; one written in other ops; one that gates another signal; and
# an activation that is not a ReLU.
RELU, WRITTEN, GATE, SMOOTH = "relu", "written", "gate", "smooth"

_SMOOTH_OPS = ("Elu", "Selu")
# The computation of these ops is unknown, so they may be ReLUs.
_OPAQUE_OPS = (
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule", "XlaLaunch", "TPUPartitionedCall",
    "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
)  # fmt: skip
_SAME_VALUE_OPS = (
    "Identity", "IdentityN", "Cast", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "Snapshot",
    "BroadcastTo", "Tile",
)  # fmt: skip
_COMPARISONS = ("Greater", "GreaterEqual", "Less", "LessEqual")
_LOGIC = ("LogicalNot", "LogicalAnd", "LogicalOr")
_HARD_SIGMOID_SHIFT, _HARD_SIGMOID_SPAN = 3.0, 6.0
_NEAR = 32  # the largest number of nodes to inspect around one


def kind(node: Node) -> str | None:
    """Return RELU, WRITTEN, GATE or SMOOTH if a node is or resembles a ReLU, else None."""
    written = _is_written_relu(node)
    if node.type not in RELU_OPS and not written:
        return SMOOTH if node.type in _SMOOTH_OPS else WRITTEN if node.type in _OPAQUE_OPS else None
    if _is_hard_sigmoid(node):
        return GATE
    if written:
        return SMOOTH if _is_part_of_elu(node) else WRITTEN
    return WRITTEN if other_halves(node) else RELU


def other_halves(node: Node) -> set[str]:
    """Return the names of the ReLUs that form a PReLU with this one: max(x, 0) - a max(-x, 0)."""
    if node.type != "Relu" or not node.inputs():
        return set()
    source = _bare(node.inputs()[0])
    base = _bare(_negated(source) or source)
    near = _walk(base, lambda n: n.consumers(), (*_SAME_VALUE_OPS, "Neg", "Mul"))
    ends = _sums(node)
    return {
        n.name for n in near if n.type == "Relu" and n.name != node.name
        and _is_negation(source) != _is_negation(_bare(n.inputs()[0])) and ends & _sums(n)
    }  # fmt: skip


def _is_written_relu(node: Node) -> bool:
    """Return whether a node is a maximum with zero, or a choice or mask by a comparison."""
    if node.type in ("Maximum", "Minimum"):
        a, b = node.inputs()
        return _is_zero(a) or _is_zero(b) or _is_multiple(a, b) or _is_multiple(b, a)
    if node.type == "ClipByValue":
        return any(map(_is_zero, node.inputs()[1:]))
    if node.type in ("Max", "Min"):
        stacked = _bare(node.inputs()[0])
        return stacked.type in ("Pack", "ConcatV2") and any(map(_is_zero, stacked.inputs()))
    if node.type in ("Select", "SelectV2"):
        return _compares(node.inputs()[0])
    if node.type in ("Mul", "MulNoNan"):
        return any(map(_compares, node.inputs()))
    return False


def _is_zero(node: Node) -> bool:
    value = node.value()
    if value is not None:
        return not np.any(value)
    inputs = node.inputs()
    if node.type == "Fill":
        return _is_zero(inputs[1])
    if node.type == "Mul":
        return any(map(_is_zero, inputs))
    if node.type in ("Add", "AddV2", "Sub"):
        return all(map(_is_zero, inputs))
    return node.type == "ZerosLike" or (
        node.type in _SAME_VALUE_OPS and bool(inputs) and _is_zero(inputs[0])
    )


def _is_multiple(node: Node, other: Node) -> bool:
    """Return whether a node is a constant multiple of another."""
    node, other = _bare(node), _bare(other)
    if node.type != "Mul" or not other.varies:
        return False
    a, b = map(_bare, node.inputs())
    return (a.name == other.name and not b.varies) or (b.name == other.name and not a.varies)


def _compares(node: Node) -> bool:
    """Return whether a node derives from a comparison of a varying value with a constant."""
    found = _walk_from(node, lambda n: n.inputs(), (*_SAME_VALUE_OPS, *_LOGIC))
    return any(
        n.type in _COMPARISONS
        and n.varies
        and any(not side.varies or _is_zero(side) for side in n.inputs())
        for n in found
    )


def _is_hard_sigmoid(node: Node) -> bool:
    """Return whether a node is the clip in clip(x + 3, 0, 6) / 6, alone or in a product."""
    if node.type not in ("Relu", "Relu6", "Maximum", "Minimum", "ClipByValue"):
        return False
    steps = (*_SAME_VALUE_OPS, "Relu", "Maximum", "Minimum")
    above = _walk(node, lambda n: n.inputs(), steps)
    if not any(_adds(n, _HARD_SIGMOID_SHIFT) for n in above):
        return False
    below = _walk(node, lambda n: n.consumers(), (*steps, "Mul"))
    clips = ("Minimum", "ClipByValue")
    clipped = node.type == "Relu6" or any(
        n.type in clips and _has_constant(n, _HARD_SIGMOID_SPAN) for n in (node, *below, *above)
    )
    return clipped and any(_divides(n, _HARD_SIGMOID_SPAN) for n in below)


def _adds(node: Node, value: float) -> bool:
    if node.type == "Sub":
        return _is_constant(node.inputs()[1], -value)
    return node.type in ("Add", "AddV2", "BiasAdd") and _has_constant(node, value)


def _divides(node: Node, value: float, factors: bool = True) -> bool:
    """Return whether a node, or a factor of its product, divides by a value."""
    if node.type in ("RealDiv", "Div", "DivNoNan"):
        return _is_constant(node.inputs()[1], value)
    if node.type != "Mul":
        return False
    return _has_constant(node, 1 / value) or (
        factors and any(_divides(_bare(n), value, factors=False) for n in node.inputs())
    )


def _has_constant(node: Node, value: float) -> bool:
    return any(_is_constant(n, value) for n in node.inputs())


def _is_constant(node: Node, value: float) -> bool:
    number = _number(node)
    # bfloat16 has eight binary digits.
    return number is not None and bool(np.allclose(number, value, rtol=2**-8))


def _number(node: Node) -> Any:
    """Return the value of a constant of numbers, else None."""
    while node.type in ("Identity", "Cast") and node.inputs():
        node = node.inputs()[0]
    found = node.value()
    if found is None or np.size(found) == 0:
        return None
    number = np.asarray(found)
    numeric = number.dtype.kind in "uif" or number.dtype.name == "bfloat16"
    return number.astype(np.float64) if numeric else None


def _bare(node: Node) -> Node:
    """Follow identity-like ops to the node whose value they pass on."""
    while node.inputs():
        if node.type in ("Add", "AddV2") and any(map(_is_zero, node.inputs())):
            node = next((n for n in node.inputs() if not _is_zero(n)), node.inputs()[0])
        elif node.type in _SAME_VALUE_OPS:
            node = node.inputs()[0]
        else:
            break
    return node


def _negated(node: Node) -> Node | None:
    """Return the node that a node negates, possibly scaled, else None."""
    if node.type == "Neg":
        return node.inputs()[0]
    if node.type == "Mul":
        for factor, other in (node.inputs(), node.inputs()[::-1]):
            number = _number(factor)
            if number is not None and np.all(number < 0):
                return other
    return None


def _is_negation(node: Node) -> bool:
    return _negated(node) is not None


def _walk(
    node: Node, step: Callable[[Node], Sequence[Node]], through: tuple[str, ...]
) -> list[Node]:
    """Return the nodes reached from a node through ops of given types."""
    found: dict[str, Node] = {}
    pending = list(step(node))
    while pending and len(found) < _NEAR:
        near = pending.pop(0)
        if near.name not in found:
            found[near.name] = near
            if near.type in through:
                pending.extend(step(near))
    return list(found.values())


def _walk_from(
    node: Node, step: Callable[[Node], Sequence[Node]], through: tuple[str, ...]
) -> list[Node]:
    """Return the node, and the nodes of _walk if the node has one of the given types."""
    return [node, *(_walk(node, step, through) if node.type in through else [])]


def _sums(node: Node) -> set[str]:
    """Return the names of the sums in which a node is a term, possibly scaled."""
    below = _walk(node, lambda n: n.consumers(), (*_SAME_VALUE_OPS, "Mul", "Neg"))
    return {n.name for n in below if n.type in ("Add", "AddV2", "Sub", "AddN")}


def _is_part_of_elu(node: Node) -> bool:
    """Return whether a node is part of an ELU or CELU written in other ops."""
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
