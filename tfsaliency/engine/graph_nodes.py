"""Operations of a TensorFlow graph and of the functions that it calls, with their neighbors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

SHAPE_OPS = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
_LOOPS, _BRANCHES = ("While", "StatelessWhile"), ("If", "StatelessIf", "Case", "StatelessCase")
CONTROL_FLOW = (*_LOOPS, *_BRANCHES)  # their bodies are functions, differentiated op by op


class Node(NamedTuple):
    """An operation and its neighbors.

    Parameters
    ----------
    name, type
        As in the graph.
    varies
        Whether its value depends on the images.
    value
        Function that returns the value of a constant, or None for other nodes.
    inputs, consumers
        Functions that return the nodes it reads, and the nodes that read it.
    """

    name: str
    type: str
    varies: bool
    value: Callable[[], Any]
    inputs: Callable[[], list[Node]]
    consumers: Callable[[], list[Node]]


class Inner(NamedTuple):
    """A node inside a function that a graph calls, directly or indirectly.

    Parameters
    ----------
    name
        Its name, prefixed by the name of the function's caller.
    node, definition
        The node and its NodeDef.
    flows
        Whether only loops and branches lie between it and the graph: those are differentiated op by
        op, other functions as a whole.
    """

    name: str
    node: Node
    definition: Any
    flows: bool


def make_node(op: tf.Operation, influenced: Collection[tf.Operation]) -> Node:
    """Return the node of an operation in the graph being traced.

    Parameters
    ----------
    op
        The operation.
    influenced
        The operations that depend on the images.
    """
    return Node(
        op.name,
        op.type,
        op in influenced,
        lambda: tf.get_static_value(op.outputs[0]) if op.outputs else None,
        lambda: [make_node(tensor.op, influenced) for tensor in op.inputs],
        lambda: [make_node(c, influenced) for t in op.outputs for c in t.consumers()],
    )


def find_influenced(sources: Sequence[tf.Tensor]) -> set[tf.Operation]:
    """Return the operations that depend on the values of tensors, not only on their shapes."""
    influenced = {source.op for source in sources}
    for op in sources[0].graph.get_operations():  # in the order of creation: inputs come first
        if op.type not in SHAPE_OPS and any(tensor.op in influenced for tensor in op.inputs):
            influenced.add(op)
    return influenced


def find_captured(target: tf.Tensor) -> list[tf.Tensor]:
    """Return the captured tensors that a tensor is computed from, in the order of their use."""
    above = set()
    pending = [target.op]
    while pending:
        op = pending.pop()
        if op not in above:
            above.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    return [outside for outside, inside in target.graph.captures if inside.op in above]


def make_nodes(
    definitions: Iterable[Any], arguments: Mapping[str, Node] | None = None
) -> list[Node]:
    """Return the nodes of a GraphDef or of a function's body, in the order of the definitions.

    Parameters
    ----------
    definitions
        The NodeDefs.
    arguments
        The nodes that the caller passes as the function's arguments, where known.
    """
    body = {definition.name: definition for definition in definitions}
    known = arguments or {}
    above = {name: _input_names(definition) for name, definition in body.items()}
    below: dict[str, list[str]] = {}
    for name, names in above.items():
        for other in names:
            below.setdefault(other, []).append(name)

    pending = [name for name in below if name not in body and _may_vary(known.get(name))]
    pending += [name for name, definition in body.items() if definition.op == "Placeholder"]
    varying = set(pending)
    while pending:
        for name in below.get(pending.pop(), []):
            if name not in varying and body[name].op not in SHAPE_OPS:
                varying.add(name)
                pending.append(name)

    def node(name: str) -> Node:
        def consumers() -> list[Node]:
            return [node(n) for n in below.get(name, [])]

        if name not in body:
            passed = [known[name]] if name in known else []
            return Node(name, "Identity", name in varying, lambda: None, lambda: passed, consumers)
        definition = body[name]
        tensor = definition.attr["value"].tensor if definition.op == "Const" else None
        return Node(
            name,
            definition.op,
            name in varying,
            lambda: None if tensor is None else tf.make_ndarray(tensor),
            lambda: [node(n) for n in above[name]],
            consumers,
        )

    return list(map(node, body))


def inside(callers: Iterable[Inner], library: Mapping[str, Any]) -> Iterator[Inner]:
    """Yield the nodes of all functions that some nodes call, directly or indirectly.

    Parameters
    ----------
    callers
        Nodes of a graph, under their own names, with flows=True.
    library
        The graph's functions by name.
    """
    pending = list(callers)
    seen: set[tuple[str, bool]] = set()
    while pending:
        caller = pending.pop()
        flows = caller.flows and caller.definition.op in CONTROL_FLOW
        for name in sorted(_called(caller.definition)):
            if name not in library or (name, flows) in seen:
                continue
            seen.add((name, flows))
            body = library[name].node_def
            nodes = make_nodes(body, _passed(library[name], caller))
            for node, definition in zip(nodes, body, strict=True):
                inner = Inner(f"{caller.name}/{node.name}", node, definition, flows)
                pending.append(inner)
                yield inner


def _called(definition: Any) -> set[str]:
    attributes = definition.attr.values()
    names = {a.func.name for a in attributes} | {f.name for a in attributes for f in a.list.func}
    return names - {""}


def _passed(function: Any, caller: Inner) -> dict[str, Node]:
    """Return the nodes that a caller passes as arguments, where they are constant in a loop."""
    names = [argument.name for argument in function.signature.input_arg]
    operands = caller.node.inputs()[caller.definition.op in _BRANCHES :]
    if len(operands) != len(names):
        return {}
    passed = dict(zip(names, operands, strict=True))
    if caller.definition.op not in _LOOPS:
        return passed
    body = {definition.name: definition for definition in function.node_def}
    kept = {}
    for name, output in zip(names, function.signature.output_arg, strict=False):
        end = function.ret[output.name].split(":")[0]
        while end in body and body[end].op == "Identity":
            end = body[end].input[0].split(":")[0]
        if end == name:  # each iteration of the loop passes it on unchanged
            kept[name] = passed[name]
    return kept


def _may_vary(passed: Node | None) -> bool:
    return passed is None or passed.varies


def _input_names(definition: Any) -> list[str]:
    return [name.split(":")[0] for name in definition.input if not name.startswith("^")]
