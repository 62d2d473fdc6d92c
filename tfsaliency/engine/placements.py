"""Placements of all tensors of a traced graph, and what their cells lead to.

The rules of operations are applied in the order of the graph, inside called functions and loops
too. Then the graph is read backwards: which cells reach the outputs, and through which products of
two signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ..placement.joins import Place
from ..placement.parts import TOKENS, Placement, UnplaceableError, Unplaced, place_images
from ..placement.rules import PRODUCT, RULES, SLICES
from .coverage import between
from .graph_nodes import SHAPE_OPS

_CALLS, _LOOPS = ("PartitionedCall", "StatefulPartitionedCall"), ("While", "StatelessWhile")
OUTPUTS = "outputs"  # the end of a path, beside names of products


class Placements(NamedTuple):
    """The placements in one traced graph.

    Parameters
    ----------
    of
        The place of each tensor that depends on the images, by its reference.
    path
        The operations between the images and the outputs, in the graph's order.
    on_path
        The same as a set.
    products
        The operations on this path that multiply two signals, as attention does.
    ends
        For each tensor of the path, what its cells reach first: OUTPUTS, or an operand of a
        product, "name:number". Cells reach nothing if a slice behind them keeps other tokens only.
    """

    of: Mapping[Any, Place]
    path: Sequence[tf.Operation]
    on_path: frozenset[tf.Operation]
    products: Sequence[tf.Operation]
    ends: Mapping[Any, frozenset[str]]

    def place_of(self, tensor: tf.Tensor) -> Place:
        """Return the place of a tensor; None if it does not depend on the images."""
        return self.of.get(tensor.ref())

    def ends_of(self, tensor: tf.Tensor) -> frozenset[str]:
        """Return what the cells of a tensor reach first."""
        return self.ends.get(tensor.ref(), frozenset())

    def drops(self, tensor: tf.Tensor, output: tf.Tensor) -> bool:
        """Return whether an operation returns other tokens of a tensor, and none of its cells."""
        place, kept = self.place_of(tensor), self.place_of(output)
        if output.op.type not in SLICES or not isinstance(place, Placement):
            return False
        if not any(part.source == TOKENS for axis in place.axes for part in axis):
            return False
        return isinstance(kept, Placement) and not kept.places


def find_placements(images: tf.Tensor, outputs: tf.Tensor) -> Placements:
    """Place all tensors between the images and the outputs in the graph being traced."""
    of: dict[Any, Place] = {images.ref(): place_images(images.shape)}
    products: list[tf.Operation] = []
    _place_graph(images.graph.get_operations(), of, products)
    path = list(between([images], outputs))
    on_path = frozenset(path)
    products = [op for op in products if op in on_path]
    found = Placements(of, path, on_path, products, {})
    return found._replace(ends=_ends(found, outputs))


def _place_graph(
    operations: Iterable[tf.Operation], of: dict[Any, Place], products: list[tf.Operation]
) -> None:
    """Place the outputs of operations, which are in the order of execution."""
    for op in operations:
        inputs = [of.get(tensor.ref()) for tensor in op.inputs]
        if op.type in SHAPE_OPS or all(place is None for place in inputs):
            continue
        if op.type == "TensorListSetItem":
            inputs[0] = _list_of_same_index(op, of)
        for tensor, place in zip(op.outputs, _outputs(op, inputs, products), strict=False):
            of[tensor.ref()] = place


def _outputs(
    op: tf.Operation, inputs: Sequence[Place], products: list[tf.Operation]
) -> Sequence[Place]:
    n = len(op.outputs)
    try:
        if op.type in _CALLS:
            return _in_function(op, "f", inputs, products)
        if op.type in _LOOPS:
            return _in_loop(op, inputs, products)
        if op.type not in RULES:
            raise UnplaceableError(f"the operation {op.type}")
        found = list(RULES[op.type](op, inputs))
        return found + [Unplaced(f"the operation {op.type}")] * (n - len(found))
    except UnplaceableError as error:
        reason = str(error)
        if reason == PRODUCT:
            products.append(op)
        if "(" not in reason:
            reason = f"{reason} ({op.name})"
        return [Unplaced(reason)] * n


def _in_function(
    op: tf.Operation, name: str, inputs: Sequence[Place], products: list[tf.Operation]
) -> list[Place]:
    """Place the outputs of a function that an operation calls, an attribute of it by name."""
    body = op.graph._get_function(op.get_attr(name).name).graph
    of = {tensor.ref(): place for tensor, place in zip(body.inputs, inputs, strict=True)}
    inner: list[tf.Operation] = []
    _place_graph(body.get_operations(), of, inner)
    products += [op] * bool(inner)
    return [of.get(tensor.ref()) for tensor in body.outputs]


def _in_loop(
    op: tf.Operation, inputs: Sequence[Place], products: list[tf.Operation]
) -> list[Place]:
    """Place the outputs of a loop, whose state depends on the images from its second step on."""
    first = _in_function(op, "body", inputs, [])
    state = [new if old is None else old for old, new in zip(inputs, first, strict=True)]
    return _in_function(op, "body", state, products)


def _list_of_same_index(op: tf.Operation, of: Mapping[Any, Place]) -> Place:
    """Return the place of the list from which the item is computed that an operation writes.

    A recurrent layer reads its inputs and writes its outputs with one index: the outputs have the
    places of the inputs.
    """
    above, pending = set(), [op.inputs[2].op]
    while pending:
        each = pending.pop()
        if each not in above:
            above.add(each)
            pending.extend(tensor.op for tensor in each.inputs)
    readers = [each for each in above if each.type == "TensorListGetItem"]
    lists = {each.inputs[0].ref() for each in readers if of.get(each.inputs[0].ref()) is not None}
    same = all(each.inputs[1] is op.inputs[1] for each in readers)
    return of[lists.pop()] if same and len(lists) == 1 else Unplaced("a loop over several lists")


def _ends(found: Placements, outputs: tf.Tensor) -> dict[Any, frozenset[str]]:
    products = {op.name for op in found.products}
    ends: dict[Any, frozenset[str]] = {outputs.ref(): frozenset({OUTPUTS})}
    for op in reversed(found.path):
        for tensor in op.outputs:
            reached: frozenset[str] = ends.get(tensor.ref(), frozenset())
            for consumer in tensor.consumers():
                if consumer.name in products:
                    reached |= {f"{consumer.name}:{i}" for i in _operands(consumer, tensor)}
                elif consumer in found.on_path:
                    kept = [out for out in consumer.outputs if not found.drops(tensor, out)]
                    reached = reached.union(*(ends.get(out.ref(), frozenset()) for out in kept))
            ends[tensor.ref()] = reached
    return ends


def _operands(op: tf.Operation, tensor: tf.Tensor) -> list[int]:
    return [number for number, operand in enumerate(op.inputs) if operand is tensor]
