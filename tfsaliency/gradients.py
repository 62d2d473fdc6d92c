"""Scores and their gradients with respect to the images: one forward pass, one backward a rule.

A Trace has a pure function of (weights, images, targets), and the same bound to the variables of
the model, which it reads at every call: a map after fit or set_weights is never stale. It holds
no Python object of the model, so it can be kept without keeping the model alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.framework import ops as _tf_ops

from .census import Found, check_coverage, find_relus
from .errors import ModelError
from .injection import backward_rule
from .rules import Rule, gradient
from .scores import Score, choose_targets, describe_score, find_head, score_values


class Gradients(NamedTuple):
    """What one call of a Trace returns.

    Parameters
    ----------
    targets
        The class indices that were explained, (n,).
    scores
        The scores that were differentiated, (n,).
    outputs
        What the model returned, as it is.
    gradients
        For each rule the gradient with respect to the images, (n, h, w, c).

    Scores and gradients are at least float32, whatever the model computes in.
    """

    targets: tf.Tensor
    scores: tf.Tensor
    outputs: tf.Tensor
    gradients: tuple[tf.Tensor, ...]


class Trace(NamedTuple):
    """Compiled gradients of a model under some rules, and what is known of them.

    Parameters
    ----------
    run
        (images, targets) -> Gradients, with the present values of the model's variables.
    run_with
        (weights, images, targets) -> Gradients, with other values, in the order of the variables.
    found
        The census of its ReLUs.
    score
        What is differentiated, in words.
    classes
        The number of outputs, None where they are not (n, classes).
    """

    run: Callable[[tf.Tensor, tf.Tensor], Gradients]
    run_with: Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor], Gradients]
    found: Found
    score: str
    classes: int | None


def trace_gradients(
    forward: Callable[[tf.Tensor], tf.Tensor],
    weights: Sequence[keras.Variable],
    image: tf.TensorSpec,
    rules: Mapping[str, Rule],
    score: str | Score,
) -> Trace:
    """Trace the gradients of a model under several rules that share one forward pass.

    Parameters
    ----------
    forward
        images (n, h, w, c) -> outputs; with an AttributionReLU for each ReLU if a rule needs it.
    weights
        The variables that forward reads.
    image
        Shape (n, h, w, c), n None, and dtype of the images.
    rules
        The rule of each method, by the method's name.
    score
        A key of SCORES or a callable.

    Raises
    ------
    NoReluError, UncoveredReluError
        Where a modified rule would not be what its name says.
    ModelError
        If the score does not depend on the images.
    """
    known: dict[str, Any] = {}

    def run_with(values: list[tf.Tensor], images: tf.Tensor, targets: tf.Tensor) -> Gradients:
        with tf.GradientTape(persistent=len(rules) > 1, watch_accessed_variables=False) as tape:
            tape.watch(images)
            state = list(zip(weights, values, strict=True))
            with keras.StatelessScope(state, initialize_variables=False):
                head = find_head(forward(images))
            targets = choose_targets(head, targets)
            scores = score_values(score, head, targets)
        found = find_relus(images, scores)
        check_coverage(found, [name for name, rule in rules.items() if rule is not gradient])
        known.update(
            found=found,
            score=describe_score(score, head),
            classes=head.outputs.shape[-1] if head.outputs.shape.rank == 2 else None,
        )
        slopes = [_backward(tape, scores, images, rule) for rule in rules.values()]
        return Gradients(targets, _wide(scores), head.outputs, tuple(map(_wide, slopes)))

    values = [tf.TensorSpec(w.shape, w.dtype) for w in weights]
    targets = tf.TensorSpec((None,), tf.int32)
    pure = _compiled(run_with, values, image, targets)
    _forget_custom_gradients(pure.graph)
    # Reading the variables inside of one function is ten times faster than reading them one by
    # one to pass their values: of ResNet50's 320, 2 ms instead of 26.
    bound = _compiled(lambda x, t: pure([w.value for w in weights], x, t), image, targets)
    return Trace(bound, pure, **known)


def _compiled(function: Callable[..., Gradients], *specs: Any) -> Any:
    # Keras does not use autograph either; without it errors come out as they were raised.
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def _backward(tape: tf.GradientTape, scores: tf.Tensor, images: tf.Tensor, rule: Rule) -> tf.Tensor:
    with backward_rule(rule):
        slope = tape.gradient(scores, images)
    if slope is None:
        raise ModelError(
            "The score does not depend on the images in a way that can be differentiated. "
            "Expected floating-point operations all the way from the input to the score; "
            "a cast to integers, an argmax or a stop_gradient breaks it."
        )
    return slope


def _wide(tensor: tf.Tensor) -> tf.Tensor:
    return tensor if tensor.dtype.size >= tf.float32.size else tf.cast(tensor, tf.float32)


def _forget_custom_gradients(graph: tf.Graph) -> None:
    """Drop this graph's entries from TensorFlow's registry of gradient functions.

    tf.custom_gradient leaves one there for each call, for good, and each holds the whole graph:
    some 3 MB for a model of ten ReLUs. Nothing differentiates this graph again.
    """
    registered = _tf_ops.gradient_registry._registry
    for op in graph.get_operations():
        if op.type == "IdentityN":
            name = op.node_def.attr["_gradient_op_type"].s.decode()
            if name.startswith("CustomGradient-"):
                registered.pop(name, None)
