"""Attention in a traced graph, and what its weights say of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ..errors import UncoveredLayerError
from .blocks import find_block
from .graph import Graph, apply_again
from .operations import CONTROL, MOVES, PRODUCTS, is_elementwise


class Attention(NamedTuple):
    """One call of attention.

    Parameters
    ----------
    weights
        The softmax, (n, ..., queries, keys).
    scores, product
        The operations that multiply queries with keys, and weights with values.
    """

    weights: tf.Tensor
    scores: tf.Operation
    product: tf.Operation

    @property
    def queries(self) -> int:
        """The number of queries."""
        return int(self.weights.shape[-2])

    @property
    def keys(self) -> int:
        """The number of keys."""
        return int(self.weights.shape[-1])


def find_attention(graph: Graph, images: int | None = None) -> list[Attention]:
    """Find all attention between the images and the score, in the order of the graph.

    Parameters
    ----------
    graph
        The graph.
    images
        The number of images, if it is known; the first axis of all weights must be this.

    Raises
    ------
    UncoveredLayerError
        If there is none, or some that is not among all tokens of one image.
    """
    found = []
    for op in graph.path:
        if op.type in CONTROL:
            raise _refused(f"{op.type} ({op.name}), whose inside is not seen")
        if op.type not in (*PRODUCTS, "Mul") or len(graph.varying_inputs(op)) != 2:
            continue
        for tensor in op.inputs:
            softmax = _up(tensor, graph)
            if softmax.type == "Softmax" and op.type in PRODUCTS:
                scores = _up(softmax.inputs[0], graph)
                if scores.type in PRODUCTS and len(graph.varying_inputs(scores)) == 2:
                    found.append(Attention(softmax.outputs[0], scores, op))
    if not found:
        raise _refused("a network in which no softmax of a product multiplies another signal")
    tokens = found[0].keys
    for each in found:
        shape = each.weights.shape
        if images is not None and shape[0] != images:
            raise _refused(f"windows or other parts of images ({each.weights.op.name})")
        if each.keys != tokens or each.queries not in (tokens, 1):
            raise _refused(
                f"{each.queries} queries and {each.keys} keys ({each.weights.op.name}), where "
                f"{found[0].weights.op.name} has {tokens} tokens"
            )
    return found


def _refused(what: str) -> UncoveredLayerError:
    return UncoveredLayerError(
        "Expected a network whose attention is among all tokens of an image. "
        f"Received: {what}. Use a class activation map, or methods='occlusion'."
    )


def _up(tensor: tf.Tensor, graph: Graph) -> tf.Operation:
    """Return the operation that computes a tensor, before moves, scales, shifts and masks."""
    op = tensor.op
    while op.type in MOVES or is_elementwise(op, graph):
        numbers = graph.varying_inputs(op)
        if not numbers or graph.is_source(op.inputs[numbers[0]]):
            break
        op = op.inputs[numbers[0]].op
    return op


def rollout(found: Sequence[Attention], slopes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the product of (A + I) / 2 over all attention, in the rows that the score reads.

    A is the mean over heads.

    References
    ----------
    Abnar, Zuidema 2020, arXiv:2005.00928.
    """
    total = _identity(found)
    for each in found:
        weights = _over_heads(each.weights)
        residual = each.queries == each.keys
        total = (weights @ total + total) / 2 if residual else weights @ total
    return _read_rows(total, slopes[-1])


def generic_attention(found: Sequence[Attention], slopes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return R in the rows that the score reads, where each attention makes R of R + A R.

    A is the mean over heads of max(A * dF/dA, 0).

    References
    ----------
    Chefer, Gur, Wolf 2021, arXiv:2103.15679.
    """
    total = _identity(found)
    for each, slope in zip(found, slopes, strict=True):
        weights = _over_heads(tf.nn.relu(each.weights * slope))
        total = weights @ total + total if each.queries == each.keys else weights @ total
    own = _read_rows(total, slopes[-1])
    # Of the identity, which stands for the tokens themselves, nothing is an answer.
    return own - _read_rows(_identity(found), slopes[-1]) if found[-1].queries > 1 else own


def legrad(found: Sequence[Attention], slopes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the sum over blocks of max(dF/dA, 0), in the mean over heads and queries.

    Each slope is that of the score which the head reads from the tokens of this block.

    References
    ----------
    Bousselham et al. 2024, arXiv:2404.03214.
    """
    parts = [tf.reduce_mean(_over_heads(tf.nn.relu(slope)), axis=1) for slope in slopes]
    return tf.add_n(parts)


def _over_heads(weights: tf.Tensor) -> tf.Tensor:
    """Return the mean over all axes between the images and the queries, (n, queries, keys)."""
    axes = list(range(1, weights.shape.rank - 2))
    return tf.reduce_mean(weights, axes) if axes else weights


def _identity(found: Sequence[Attention]) -> tf.Tensor:
    first = found[0].weights
    return tf.eye(found[0].keys, batch_shape=[tf.shape(first)[0]], dtype=first.dtype)


def _read_rows(total: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Return the mean of the rows (n, keys) that the score reads, of (n, queries, keys).

    These are the queries of the last attention on which it depends: the class token, or all.
    """
    axes = [axis for axis in range(1, slope.shape.rank) if axis != slope.shape.rank - 2]
    read = tf.cast(tf.reduce_any(slope != 0, axes), total.dtype)
    share = tf.math.divide_no_nan(read, tf.reduce_sum(read, 1, keepdims=True))
    return tf.einsum("nq,nqk->nk", share, total)


def block_scores(graph: Graph, found: Sequence[Attention], target: tf.Tensor) -> list[tf.Tensor]:
    """Return the logits that the end of the network reads from the tokens of each block.

    The tokens of a block are the last sum of a residual connection behind its attention.

    Raises
    ------
    UncoveredLayerError
        If there is no such sum.
    """
    places = {op: number for number, op in enumerate(graph.path)}
    sums = [op for op in graph.path if _is_residual(op, graph, found[0].keys)]
    starts = [places[each.product] for each in found if each.queries == each.keys]
    ends = [*(places[each.scores] for each in found[1 : len(starts)]), len(places)]
    outputs = []
    for start, end in zip(starts, ends, strict=True):
        behind = [op for op in sums if start < places[op] < end]
        if not behind:
            raise _refused("attention without a residual connection behind it")
        outputs.append(behind[-1].outputs[0])
    return [*(replay(graph, outputs[-1], each, target) for each in outputs[:-1]), target]


def _is_residual(op: tf.Operation, graph: Graph, tokens: int) -> bool:
    """Return whether an operation adds two signals of all tokens."""
    if op.type not in ("AddV2", "Add") or len(graph.varying_inputs(op)) != 2:
        return False
    shape = op.outputs[0].shape
    of_tokens = shape.rank == 3 and shape[1] in (tokens, None)
    block = find_block(op, graph) if of_tokens else None
    return of_tokens and (block is None or block.kind != "normalization")


def replay(graph: Graph, tensor: tf.Tensor, other: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the target for another tensor in the place of one."""
    known: dict[Any, tf.Tensor] = {tensor.ref(): other}
    for op in graph.path:
        if any(each.ref() in known for each in op.inputs):
            inputs = [known.get(each.ref(), each) for each in op.inputs]
            if len(op.outputs) != 1:
                raise _refused(f"{op.type} ({op.name}) behind the last block")
            known[op.outputs[0].ref()] = apply_again(op, inputs)
    return known[target.ref()]
