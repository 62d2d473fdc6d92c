"""Traces of attention: what its weights say of the tokens, placed in the image."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import GeometryError
from ..placement.parts import Placement, UnplaceableError
from ..relevance.attention import (
    Attention,
    block_scores,
    find_attention,
    generic_attention,
    legrad,
    rollout,
)
from ..relevance.graph import Graph, operations_above
from .cells import Cells, LayerChoice, arrange
from .coverage import find_relus
from .gradients import Gradients, Trace, describe_trace, score_outputs, wide, with_other_weights
from .heads import Head, find_head, widen_head
from .layer_outputs import IMAGES
from .model_io import Forward, list_weights
from .placements import find_placements
from .scores import describe_score
from .subject import Subject

_READINGS = {"rollout": rollout, "generic_attention": generic_attention, "legrad": legrad}


def trace_attention(subject: Subject, forward: Forward, kind: str) -> Trace:
    """Trace the maps of attention, (n, h, w, 1).

    Parameters
    ----------
    subject
        The model and the score.
    forward
        Function from flat inputs to outputs, whose operations are in the graph being traced.
    kind
        "rollout", "generic_attention" or "legrad".

    Raises
    ------
    UncoveredLayerError
        If there is no attention among all tokens of an image.
    GeometryError
        If the tokens have no place in the image.
    """
    facts: dict[str, Any] = {}
    at = subject.inputs.explained
    cells = _find_cells(subject, forward)

    def run(inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor) -> Gradients:
        given = list(inputs)
        given[at] = own = tf.identity(inputs[at])
        head = find_head(forward(given), subject.loss)
        scored, targets, scores = _score(subject, head, inputs, targets)
        facts.update(describe_trace(subject, find_relus([own], scores), scored, scores))
        facts["score"] = describe_score(subject.score, scored, subject.region_of(inputs, head))
        graph = Graph([own], head.returned)
        found = find_attention(graph)
        slopes = _slopes(subject, graph, found, head, inputs, targets, scores, kind)
        tokens = _READINGS[kind](found, slopes)
        parts = tokens[..., tf.newaxis] * tf.ones([cells.parts[-1]], tokens.dtype)
        maps = cells.grid.to_image(wide(cells.arrange(parts)[..., :1]))
        flat = tf.zeros(tf.shape(scores), tf.bool)
        return Gradients(targets, wide(scores), head.outputs, (maps,), flat)

    signature = [list(subject.specs), tf.TensorSpec((None,), tf.int32), tf.TensorSpec(())]
    function: Any = tf.function(run, autograph=False)
    compiled = function.get_concrete_function(*signature)
    run_with = with_other_weights(compiled, list_weights(subject.model))
    return Trace(compiled, run_with, engine="graph", choice=LayerChoice(cells, ""), **facts)


def _score(
    subject: Subject, head: Head, inputs: list[tf.Tensor], targets: tf.Tensor
) -> tuple[Head, tf.Tensor, tf.Tensor]:
    """Return the scored head, the targets, and the scores."""
    head = head if subject.precision is None else widen_head(head)
    scored, _, targets, scores = score_outputs(subject, head, inputs, targets)
    return scored, targets, scores


def _slopes(
    subject: Subject,
    graph: Graph,
    found: list[Attention],
    head: Head,
    inputs: list[tf.Tensor],
    targets: tf.Tensor,
    scores: tf.Tensor,
    kind: str,
) -> list[tf.Tensor]:
    """Return the derivative of the score with respect to the weights of each attention.

    For LeGrad, it is the score that the head reads from the tokens of the same block.
    """
    weights = [each.weights for each in found]
    if kind != "legrad":
        return list(tf.gradients(scores, weights))
    slopes = []
    for each, returned in zip(weights, block_scores(graph, found, head.returned), strict=False):
        of_block = find_head(returned, subject.loss)
        _, _, score = _score(subject, of_block, inputs, targets)
        slopes.append(tf.gradients(score, each)[0])
    return slopes


def _find_cells(subject: Subject, forward: Forward) -> Cells:
    """Return the places of the tokens that the first attention reads."""
    found: list[Cells] = []
    at = subject.inputs.explained

    def search(*arrays: tf.Tensor) -> tf.Tensor:
        given = list(arrays)
        given[at] = images = tf.identity(arrays[at])
        outputs = forward(given)
        graph = Graph([images], outputs)
        attention = find_attention(graph, images.shape[0])
        found.append(_cells_before(attention[0], graph, images, outputs))
        return outputs

    n = subject.inputs.batch or IMAGES
    specs = [tf.TensorSpec((n, *spec.shape[1:]), spec.dtype) for spec in subject.specs]
    tf.function(search, autograph=False).get_concrete_function(*specs)
    return found[0]


def _cells_before(first: Attention, graph: Graph, images: tf.Tensor, outputs: tf.Tensor) -> Cells:
    """Return the cells of the last tensor of tokens before an attention that has a place."""
    placements = find_placements(images, outputs)
    reason = "no tensor of its tokens"
    queries, keys = map(operations_above, first.scores.inputs)
    for op in reversed(graph.path):
        shape = op.outputs[0].shape
        if op not in queries & keys or shape.rank != 3 or shape[1] != first.keys:
            continue
        place = placements.place_of(op.outputs[0])
        try:
            if isinstance(place, Placement):
                size = [int(n) for n in images.shape[1:-1]]
                return arrange(place, op.name.rpartition("/")[0] or op.name, size)
            reason = getattr(place, "reason", reason)
        except UnplaceableError as error:
            reason = str(error)
    raise GeometryError(
        "Expected attention among tokens that have a place in the image. Received: "
        f"{first.weights.op.name}: {reason}. Use methods='occlusion'."
    )
