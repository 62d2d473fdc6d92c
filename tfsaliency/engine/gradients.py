"""Scores and their gradients with respect to the images: one forward pass, one backward a rule.

A Trace reads the variables of the model at every call: a map after fit or set_weights is never
stale. It can also run with other values in their place. It holds no Python object of the model,
so it can be kept without keeping the model alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ..arrays import Array
from ..errors import ModelError
from ..methods.rules import gradient
from .clone import backward_rule
from .coverage import Census, EngineName, check_coverage, check_passed, find_relus
from .graph_nodes import find_captured
from .graph_rewrite import differentiate_marked, forget_custom_gradients
from .layer_outputs import LayerForward
from .model_io import Forward, list_weights
from .scores import Head, choose_targets, describe_score, find_head, score_values, widen_head
from .subject import Subject

# The distance from 1 to the next number.
_EPSILONS = {tf.float16: 2**-10, tf.bfloat16: 2**-7, tf.float32: 2**-23, tf.float64: 2**-52}


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
        For each rule the gradient with respect to the images, (n, h, w, c); for each method of a
        composed trace its attributions.
    details
        Of a composed trace, what else is known of each method's: (n,) by name.
    layer
        Of a trace at a layer, the outputs of the layer: gradients are with respect to those.

    Scores and gradients are at least float32, whatever the model computes in.
    """

    targets: tf.Tensor
    scores: tf.Tensor
    outputs: tf.Tensor
    gradients: tuple[tf.Tensor, ...]
    details: tuple[Mapping[str, tf.Tensor], ...] = ()
    layer: tf.Tensor | tuple[()] = ()


class Trace(NamedTuple):
    """Compiled gradients of a model under some rules, and what is known of them.

    Parameters
    ----------
    run
        (inputs, targets, scale) -> Gradients, with the present values of the model's variables.
    run_with
        (weights, inputs, targets, scale) -> Gradients, with other values in the order of the
        model's weights; None for one that keeps its own.
    used
        The indices of the weights that the scores depend on, in the order of their use.
    others
        How many variables they depend on that are no weights of the model.
    census
        The ReLUs between the images and the score.
    engine
        "model", "clone" or "graph".
    score
        What is differentiated, in words.
    classes
        The number of outputs, None where they are not (n, classes).
    half
        Whether anything is computed in float16. Then backward passes are scaled, by the scalar
        scale, and their results divided by it; otherwise scale is not used.
    low
        Whether anything is computed in float16 or bfloat16.
    epsilon
        The distance from 1 to the next number in the dtype of the outputs.
    composed
        Whether it computes attributions of compositions. Then run and run_with take one argument
        more: how many points to give the network at a time, a scalar.
    """

    run: Callable[..., Gradients]
    run_with: Callable[..., Gradients]
    used: tuple[int, ...]
    others: int
    census: Census
    engine: EngineName
    score: str
    classes: int | None
    half: bool
    low: bool
    epsilon: float
    composed: bool = False


def trace_gradients(subject: Subject, forward: Forward | LayerForward, engine: EngineName) -> Trace:
    """Trace the gradients of a model under several rules that share one forward pass.

    Parameters
    ----------
    subject
        What is differentiated.
    forward
        Flat inputs -> outputs, or (outputs, layer outputs) if the subject has a layer. For modified
        rules with an AttributionReLU for each ReLU (engine "clone"), or with marked ReLU ops
        (engine "graph").
    engine
        "model", "clone" or "graph".

    Raises
    ------
    NoReluError, UncoveredReluError
        Where a modified rule would not be what its name says.
    ModelError
        If the score does not depend on the images.
    """
    rules = subject.rules
    marks = engine == "graph"
    facts: dict[str, Any] = {}

    def run(inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor) -> Gradients:
        images = inputs[subject.inputs.explained]
        with tf.GradientTape(persistent=len(rules) > 1, watch_accessed_variables=False) as tape:
            tape.watch(images)
            returned = forward(inputs)
            outputs, source = (returned, images) if subject.layer is None else returned
            head = find_head(outputs)
            head = head if subject.precision is None else widen_head(head)
            targets = choose_targets(head, targets)
            scores = score_values(subject.score, head, targets)
        census = find_relus(source, scores, marks)
        check_coverage(census, [name for name, rule in rules.items() if rule is not gradient])
        facts.update(_facts(subject, census, head, scores))
        upstream = tf.ones_like(scores) * (tf.cast(scale, scores.dtype) if facts["half"] else 1)
        gradients = []
        for name, rule in rules.items():
            with backward_rule(rule, census.gates) as passed:
                if marks:
                    found = differentiate_marked(scores, source, upstream)
                else:
                    found = tape.gradient(scores, source, output_gradients=upstream)
            wide = _wide(_connected(found))
            if rule is not gradient:
                check_passed(census, passed, name)
            gradients.append(wide / tf.cast(scale, wide.dtype) if facts["half"] else wide)
        values = () if subject.layer is None else _wide(source)
        return Gradients(targets, _wide(scores), head.outputs, tuple(gradients), layer=values)

    # Keras does not use autograph either; without it errors come out as they were raised.
    function = tf.function(run, autograph=False, jit_compile=subject.jit_compile or None)
    compiled = function.get_concrete_function(
        list(subject.specs), tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    )
    forget_custom_gradients(compiled.graph)
    run_with = with_other_weights(compiled, list_weights(subject.model))
    return Trace(compiled, run_with, engine=engine, **facts)


def _facts(subject: Subject, census: Census, head: Head, scores: tf.Tensor) -> dict[str, Any]:
    """Return the facts about a traced model that a Trace holds."""
    dtypes = _dtypes(scores.graph)
    half = tf.float16.as_datatype_enum in dtypes
    captured = [tensor for tensor in find_captured(scores) if tensor.dtype == tf.resource]
    used = _indices_of(captured, list_weights(subject.model))
    return {
        "used": used,
        "others": len(captured) - len(used),
        "census": census,
        "score": describe_score(subject.score, head),
        "classes": head.outputs.shape[-1] if head.outputs.shape.rank == 2 else None,
        "half": half,
        "low": half or tf.bfloat16.as_datatype_enum in dtypes,
        "epsilon": _EPSILONS.get(head.outputs.dtype, 0.0),
    }


def with_other_weights(
    compiled: Any, weights: Sequence[keras.Variable]
) -> Callable[..., Gradients]:
    """Return compiled with variables of its own in the place of some of the model's.

    A function gets the handles of the variables that it reads as inputs, those read in loops and
    inner functions included; so it can be called with the handles of others. An array that is
    given again where it was given last, as from step to step of a cascade, is not copied again.
    """
    captured = list(compiled.captured_inputs)
    places = {id(tensor): place for place, tensor in enumerate(captured)}
    own = [(places.get(id(v.handle)), v.dtype) for v in map(_variable, weights)]
    stand_ins: dict[int, tuple[Array, tf.Variable]] = {}
    lock = threading.Lock()

    def handle_of(place: int, value: Array, dtype: tf.DType) -> tf.Tensor:
        if place not in stand_ins:
            stand_ins[place] = value, tf.Variable(tf.cast(value, dtype), trainable=False)
        last, variable = stand_ins[place]
        if last is not value:
            variable.assign(tf.cast(value, dtype))
            stand_ins[place] = value, variable
        return variable.handle

    def run_with(
        values: Sequence[Array | None], inputs: Sequence[tf.Tensor], *others: tf.Tensor
    ) -> Gradients:
        with lock:
            handles = list(captured)
            for (place, dtype), value in zip(own, values, strict=True):
                if place is None or value is None:  # no score depends on it, or it stays
                    continue
                handles[place] = handle_of(place, value, dtype)
            given = map(tf.convert_to_tensor, (*inputs, *others))
            return compiled._call_flat(list(given), handles)

    return run_with


def _indices_of(
    captured: Sequence[tf.Tensor], weights: Sequence[keras.Variable]
) -> tuple[int, ...]:
    """Return which weights are among what a graph captured, in its order."""
    index = {id(_variable(weight).handle): place for place, weight in enumerate(weights)}
    return tuple(index[id(tensor)] for tensor in captured if id(tensor) in index)


def _variable(weight: Any) -> tf.Variable:
    # In older versions of Keras the weights of a TFSMLayer are variables of TensorFlow's.
    return weight if isinstance(weight, tf.Variable) else weight.value


def _connected(slope: tf.Tensor | None) -> tf.Tensor:
    if slope is None:
        raise ModelError(
            "The score does not depend on the images in a way that can be differentiated. "
            "Expected floating-point operations all the way from the input to the score; "
            "a cast to integers, an argmax or a stop_gradient breaks it."
        )
    return slope


def _dtypes(graph: tf.Graph) -> set[int]:
    """Return the dtypes, as TensorFlow numbers them, of a graph and of the functions in it."""
    bodies = (function.node_def for function in graph.as_graph_def().library.function)
    inner = {a.type for body in bodies for node in body for a in node.attr.values()}
    outputs = (output for op in graph.get_operations() for output in op.outputs)
    return inner | {output.dtype.as_datatype_enum for output in outputs}


def _wide(tensor: tf.Tensor) -> tf.Tensor:
    return tensor if tensor.dtype.size >= tf.float32.size else tf.cast(tensor, tf.float32)
