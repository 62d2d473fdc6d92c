"""Which ReLUs a traced model has, and which of them a modified rule reaches.

The census is taken of the graph that is differentiated, between the forward and the backward
pass: what it counts is what runs, however the model was written. Only operations on a path from
the images to the score count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from .errors import NoReluError, UncoveredReluError
from .injection import SITE_SCOPE

_RELU_OPS = ("Relu", "Relu6", "LeakyRelu")
_SITE = re.compile(rf"(?:.*/)?{SITE_SCOPE}(?:_\d+)?(?=/)")


class Found(NamedTuple):
    """The ReLUs between the images and the score of one traced model.

    Parameters
    ----------
    sites
        The names of the AttributionReLUs, one for each call of such a layer.
    others
        The names of all other ReLU operations.
    """

    sites: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What one rule did to the ReLUs of a model.

    Parameters
    ----------
    rule : str
        The method's name.
    relus : int
        How many ReLU operations lie between the images and the score.
    reached : int
        How many of them the rule governs: all, or there is no map.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> print(tfs.Coverage("guided_backprop", relus=26, reached=26))
    guided_backprop: 26 of 26 ReLUs
    """

    rule: str
    relus: int
    reached: int

    def __str__(self) -> str:
        return f"{self.rule}: {f'{self.reached} of {self.relus}' if self.relus else 'no'} ReLUs"


def find_relus(images: tf.Tensor, scores: tf.Tensor) -> Found:
    """Find every ReLU on a path from images to scores in the graph being traced."""
    sites: dict[str, None] = {}
    others: dict[str, None] = {}
    functions: dict[str, str] = {}
    for op in _between(images, scores):
        site = _SITE.match(op.name)
        if site:
            sites[site.group()] = None
        elif _is_relu(_of_operation(op)):
            others[op.name] = None
        functions.update({name: op.name for name in _called(op.node_def)})
    others.update(dict.fromkeys(_relus_in_functions(scores.graph, functions)))
    return Found(tuple(sites), tuple(others))


def check_coverage(found: Found, modified: Iterable[str]) -> None:
    """Raise where a modified rule would leave a ReLU alone, or has none to act on.

    Parameters
    ----------
    found
        The census.
    modified
        The names of the methods whose rule is not the gradient.

    Raises
    ------
    NoReluError, UncoveredReluError
    """
    listed = [repr(name) for name in modified]
    names = " and ".join(listed)
    hidden_sites = [name for name in found.others if SITE_SCOPE in name]
    if names and not found.sites and not found.others:
        raise NoReluError(
            f"Expected a model with ReLUs for {names}. Received: one that has none between its "
            "input and the score, so the map would be the plain gradient under another name. "
            "Use methods='gradient'."
        )
    if (names and found.others) or hidden_sites:
        left = found.others if names else tuple(hidden_sites)
        total = len(found.sites) + len(found.others)
        raise UncoveredReluError(
            f"{names or 'The gradient'} cannot reach {len(left)} of {total} ReLUs: "
            f"{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}. Expected each ReLU as a "
            "layer, the activation of a layer, or keras.ops.relu, in Sequential or Functional "
            "models. Write it as a keras.layers.ReLU"
            f"{', or use methods=' + repr('gradient') if names else ''}."
        )


def _between(source: tf.Tensor, target: tf.Tensor) -> Iterator[tf.Operation]:
    """Yield the operations on a path from source to target, in the order of the graph."""
    above = set()
    pending = [target.op]
    while pending:
        op = pending.pop()
        if op not in above:
            above.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    reached = {source.op}
    for op in source.graph.get_operations():  # in the order of creation: inputs come first
        if op in above and any(tensor.op in reached for tensor in op.inputs):
            reached.add(op)
            yield op


class _Node(NamedTuple):
    """An operation of a graph or of a function's body, and what it computes from."""

    type: str
    value: Any  # of a constant, else None
    inputs: Callable[[], list[_Node]]


def _of_operation(op: tf.Operation) -> _Node:
    value = tf.get_static_value(op.outputs[0]) if op.outputs else None
    return _Node(op.type, value, lambda: [_of_operation(tensor.op) for tensor in op.inputs])


def _of_body(node: tf.compat.v1.NodeDef, body: dict[str, tf.compat.v1.NodeDef]) -> _Node:
    value = tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None
    names = [name.split(":")[0] for name in node.input if not name.startswith("^")]
    # What is not in the body is an argument of the function: not known, but there.
    argument = _Node("Arg", None, list)
    return _Node(
        node.op, value, lambda: [_of_body(body[n], body) if n in body else argument for n in names]
    )


def _is_relu(node: _Node) -> bool:
    """Tell whether a node is a ReLU, or one written as a maximum, a choice or a mask."""
    if node.type in _RELU_OPS:
        return True
    if node.type in ("Maximum", "Minimum"):
        return any(_is_zero(n) for n in node.inputs())
    if node.type in ("Select", "SelectV2"):
        return _is_comparison(node.inputs()[0])
    if node.type == "Mul":
        return any(n.type == "Cast" and _is_comparison(n.inputs()[0]) for n in node.inputs())
    return False


def _is_zero(node: _Node) -> bool:
    if node.value is not None:
        return not np.any(node.value)
    if node.type == "Fill":
        return _is_zero(node.inputs()[1])
    passed_on = node.type in ("Identity", "Cast", "BroadcastTo") and bool(node.inputs())
    return node.type == "ZerosLike" or (passed_on and _is_zero(node.inputs()[0]))


def _is_comparison(node: _Node) -> bool:
    """Tell whether a node compares something that varies with a constant."""
    if node.type not in ("Greater", "GreaterEqual", "Less", "LessEqual"):
        return False
    return sum(n.value is None and not _is_zero(n) for n in node.inputs()) == 1


def _called(node: tf.compat.v1.NodeDef) -> set[str]:
    """Return the names of the functions that a node calls."""
    attributes = node.attr.values()
    names = {a.func.name for a in attributes} | {f.name for a in attributes for f in a.list.func}
    return names - {""}


def _relus_in_functions(graph: tf.Graph, callers: dict[str, str]) -> Iterator[str]:
    """Yield the ReLUs inside the functions that a graph calls, under the names of the callers."""
    if not callers:
        return
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    pending = list(callers.items())
    seen = set(callers)
    while pending:
        name, caller = pending.pop()
        if name not in library:
            continue
        body = {node.name: node for node in library[name].node_def}
        for node in body.values():
            if SITE_SCOPE in node.name or _is_relu(_of_body(node, body)):
                yield f"{caller}/{node.name}"
            for called in _called(node) - seen:
                seen.add(called)
                pending.append((called, f"{caller}/{node.name}"))
