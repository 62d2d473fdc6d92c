"""Random numbers in the forward pass of a traced model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

_RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal|Bernoulli|RngReadAndSkip")
_SEEDED = re.compile(r"^Stateless")  # of equal seeds, they return equal numbers


def draws_random_numbers(scores: tf.Tensor) -> bool:
    """Return whether scores depend on random numbers that differ from call to call.

    Numbers of a constant seed do not. Numbers that are drawn while the model is traced, by NumPy or
    Python, are constants of the graph: see has_other_constants.
    """
    graph = scores.graph.as_graph_def()
    bodies = {f.signature.name: f for f in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    return any(_is_random(nodes, name, bodies, set()) for name in _above(nodes, [scores.op.name]))


def has_other_constants(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> bool:
    """Return whether two traces of a function have other constants: it draws while it is traced."""

    def constants() -> list[bytes]:
        traced = tf.function(lambda *arrays: function(arrays), autograph=False)
        graph = traced.get_concrete_function(*specs).graph.as_graph_def()
        nodes = [*graph.node, *(n for body in graph.library.function for n in body.node_def)]
        return [n.attr["value"].tensor.SerializeToString() for n in nodes if n.op == "Const"]

    return constants() != constants()


def _is_random(
    nodes: Mapping[str, Any], name: str, bodies: Mapping[str, Any], visited: set[str]
) -> bool:
    """Return whether a node, or a function that it calls, draws random numbers."""
    node = nodes[name]
    if _RANDOM.search(node.op):
        if not _SEEDED.search(node.op):
            return True
        seeds = [each.lstrip("^").split(":")[0] for each in node.input[1:]]
        above = _above(nodes, [seed for seed in seeds if seed in nodes])
        constant = all(nodes[n].input or nodes[n].op == "Const" for n in above)
        return not constant or any(seed not in nodes for seed in seeds)
    for attribute in node.attr.values():
        for called in (attribute.func, *attribute.list.func):
            if called.name in bodies and called.name not in visited:
                visited.add(called.name)
                body = bodies[called.name]
                inner = {each.name: each for each in body.node_def}
                ends = [end.split(":")[0] for end in body.ret.values()]
                reached = _above(inner, [end for end in ends if end in inner])
                if any(_is_random(inner, each, bodies, visited) for each in reached):
                    return True
    return False


def _above(nodes: Mapping[str, Any], ends: list[str]) -> set[str]:
    """Return the names of the nodes from which the ends are computed, and of the ends."""
    found: set[str] = set()
    pending = list(ends)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            inputs = (each.lstrip("^").split(":")[0] for each in nodes[name].input)
            pending.extend(each for each in inputs if each in nodes)
    return found
