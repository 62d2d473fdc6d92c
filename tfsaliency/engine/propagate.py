"""Traces that pass a score down through the graph of a model by rules of relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..errors import ModelError, OptionError
from ..relevance.graph import Graph
from ..relevance.protocol import Propagation
from .coverage import find_relus
from .gradients import Gradients, Trace, describe_trace, score_outputs, wide, with_other_weights
from .heads import find_head, widen_head
from .model_io import Forward, list_weights
from .scores import describe_score
from .subject import Subject

_CURVED = ("probability", "log_probability")


def trace_relevance(subject: Subject, forward: Forward, propagation: Propagation) -> Trace:
    """Trace the relevance of images, with a baseline if the propagation needs one.

    Parameters
    ----------
    subject
        The model and the score.
    forward
        Function from flat inputs to outputs, whose operations are in the graph being traced.
    propagation
        The rules.

    Raises
    ------
    UncoveredLayerError
        If an operation has no rule.
    OptionError
        If the score is a probability, which is not a sum of relevance.
    """
    if subject.score in _CURVED:
        raise OptionError(
            "Expected score='logit', 'margin' or a callable of logits for relevance, which divides "
            f"the score among the inputs. Received: {subject.score!r}."
        )
    facts: dict[str, Any] = {}
    at = subject.inputs.explained

    def run(
        inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor, *baseline: tf.Tensor
    ) -> Gradients:
        own = tf.identity(inputs[at])
        outputs, twins = _twice(forward, inputs, at, own, baseline)
        head = find_head(outputs, subject.loss)
        before = head.before
        head = head if subject.precision is None else widen_head(head)
        scored, region, targets, scores = score_outputs(subject, head, inputs, targets)
        if before is None:
            raise TypeError("a head without the tensor before its activation")
        facts.update(describe_trace(subject, find_relus([own], scores), scored, scores))
        facts["score"] = describe_score(subject.score, scored, region)
        (seed,) = tf.gradients(scores, [before])
        graph = Graph([own], before)
        if seed is None or not graph.varies(before):
            raise ModelError("Expected a score that depends on the images. Received: another one.")
        result = propagation.run(graph, before, seed, scores, twins)
        flat = tf.zeros(tf.shape(scores), tf.bool)
        maps, details = wide(result.values), dict(result.details)
        return Gradients(targets, wide(scores), head.outputs, (maps,), flat, (details,))

    signature = [list(subject.specs), tf.TensorSpec((None,), tf.int32), tf.TensorSpec(())]
    if propagation.needs_baseline:
        signature.append(subject.specs[at])
    function: Any = tf.function(run, autograph=False)
    compiled = function.get_concrete_function(*signature)
    run_with = with_other_weights(compiled, list_weights(subject.model))
    return Trace(compiled, run_with, engine="graph", **facts)


def _twice(
    forward: Forward,
    inputs: Sequence[tf.Tensor],
    at: int,
    own: tf.Tensor,
    baseline: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, dict[Any, tf.Tensor]]:
    """Run a model on the images, and on a baseline if there is one.

    Returns
    -------
    The outputs for the images, and for each tensor of their graph the one of the baseline's.
    """
    inner = own.graph
    given = list(inputs)
    given[at] = own
    start = len(inner.get_operations())
    outputs = forward(given)
    if not baseline:
        return outputs, {}
    middle = len(inner.get_operations())
    given[at] = tf.identity(baseline[0])
    begin = len(inner.get_operations())
    forward(given)
    # Captured variables and constants come first, and in the first run alone.
    second = inner.get_operations()[begin:]
    first = inner.get_operations()[start:middle][-len(second) :]
    if [op.type for op in first] != [op.type for op in second]:
        raise ModelError(
            "Expected a model that runs the same operations for every image. Received: one that "
            "does not. Use methods='integrated_gradients'."
        )
    pairs = zip(first, second, strict=True)
    twins = {
        a.ref(): b for one, other in pairs for a, b in zip(one.outputs, other.outputs, strict=True)
    }
    return outputs, {**twins, own.ref(): given[at]}
