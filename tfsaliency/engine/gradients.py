"""Scores and their gradients: one forward pass, and one backward pass per rule.

A Trace reads the model's variables at every call, so maps after fit or set_weights are never stale.
It can also run with other values. It holds no Python object of the model, and does not keep the
model alive.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..arrays import Array
from ..errors import ModelError
from ..methods.rules import gradient
from .cells import LayerChoice
from .clone import backward_rule, forget_custom_gradients
from .counts import Counts
from .coverage import Census, EngineName, check_coverage, check_passed, find_relus
from .graph_nodes import find_captured
from .graph_rewrite import differentiate_marked
from .heads import Head, Meaning, find_head, find_saturated, widen_head
from .layer_outputs import LayerForward
from .model_io import Forward, list_weights
from .randomness import draws_random_numbers, has_other_constants
from .scores import SimilarityTo, choose_targets, describe_score, score_head, score_values
from .subject import Subject

# Scores whose derivative may be rounded away by the final softmax or sigmoid.
_FLAT_SCORES = ("probability",)


class Gradients(NamedTuple):
    """The result of one call of a Trace.

    Parameters
    ----------
    targets
        The explained class indices, (n,).
    scores
        The differentiated scores, (n,).
    outputs
        The outputs of the model.
    gradients
        The gradient with respect to the images for each rule, (n, h, w, c); for a composed trace,
        the attributions of each method.
    saturated
        Whether the final softmax or sigmoid is so flat that the derivative is noise, (n,).
    details
        For a composed trace, the details of each method: (n,) by name.
    layer
        For a trace at a layer, the outputs of the layer, with respect to which gradients are taken.

    Scores and gradients are at least float32, even if the model computes in float16.
    """

    targets: tf.Tensor
    scores: tf.Tensor
    outputs: tf.Tensor
    gradients: tuple[tf.Tensor, ...]
    saturated: tf.Tensor
    details: tuple[Mapping[str, tf.Tensor], ...] = ()
    layer: tf.Tensor | tuple[()] = ()


class Trace(NamedTuple):
    """Compiled gradients of a model under some rules, with facts about them.

    Parameters
    ----------
    run
        Function (inputs, targets, scale) -> Gradients with the current weights of the model.
    run_with
        Function (weights, inputs, targets, scale) -> Gradients with other weights, in the order of
        the model's; None stands for an unchanged one.
    used
        The indices of the weights that the scores depend on, in the order of their use.
    others
        The number of other variables that the scores depend on.
    census
        The ReLUs between the images and the score.
    engine
        "model", "clone" or "graph".
    score
        The score in words.
    own_score
        Whether the score is a function of the caller.
    meaning
        The meaning of the outputs.
    classes
        The number of classes or outputs, 2 for a single sigmoid; None if unknown.
    random
        Whether the forward pass draws random numbers.
    half
        Whether anything is computed in float16. Then backward passes are multiplied by the scalar
        `scale`, and their results divided by it; otherwise `scale` is not used.
    low
        Whether anything is computed in float16 or bfloat16.
    composed
        Whether it computes attributions of compositions. Then run and run_with take another
        argument: the number of points to evaluate at a time, a scalar.
    choice
        For a trace at a layer, the layer and the places of its cells.
    choices
        For a composed trace, the layers of class activation maps, by the name of the method.
    counts
        For a composed trace, the counts of evaluated points, for progress.
    layers
        For a composed trace, the layers of relevance and their rules, by the name of the method.
    """

    run: Callable[..., Gradients]
    run_with: Callable[..., Gradients]
    used: tuple[int, ...]
    others: int
    census: Census
    engine: EngineName
    score: str
    own_score: bool
    meaning: Meaning
    classes: int | None
    random: bool
    half: bool
    low: bool
    composed: bool = False
    choice: LayerChoice | None = None
    choices: Mapping[str, tuple[LayerChoice, ...]] = MappingProxyType({})
    counts: Counts | None = None
    layers: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({})


def trace_gradients(subject: Subject, forward: Forward | LayerForward, engine: EngineName) -> Trace:
    """Trace the gradients of a model under several rules that share one forward pass.

    Parameters
    ----------
    subject
        The model, score and rules.
    forward
        Function from flat inputs to outputs, or to (outputs, tensors of the layer) if the subject
        has a layer. For modified rules, it has AttributionReLUs (engine "clone") or marked ReLU ops
        (engine "graph").
    engine
        "model", "clone" or "graph".

    Raises
    ------
    NoReluError, UncoveredReluError
        If a modified rule does not reach every ReLU.
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
            outputs, sources = (returned, (images,)) if subject.layer is None else returned
            head = find_head(outputs, subject.loss)
            head = head if subject.precision is None else widen_head(head)
            own, region, targets, scores = score_outputs(subject, head, inputs, targets)
        census = find_relus(sources, scores, marks)
        check_coverage(census, [name for name, rule in rules.items() if rule is not gradient])
        facts.update(describe_trace(subject, census, own, scores))
        facts["score"] = describe_score(subject.score, own, region)
        upstream = tf.ones_like(scores) * (tf.cast(scale, scores.dtype) if facts["half"] else 1)
        gradients = []
        for name, rule in rules.items():
            with backward_rule(rule, census.gates) as passed:
                if marks:
                    found = differentiate_marked(scores, sources, upstream)
                else:
                    found = _differentiate(tape, scores, sources, upstream)
            slopes = wide(_joined([_connected(each) for each in found]))
            if rule is not gradient:
                check_passed(census, passed, name)
            gradients.append(slopes / tf.cast(scale, slopes.dtype) if facts["half"] else slopes)
        values = () if subject.layer is None else wide(_joined(sources))
        flat = callable(subject.score) or subject.score in _FLAT_SCORES
        saturated = find_saturated(scores, own if flat else own._replace(ends=()))
        return Gradients(
            targets, wide(scores), head.outputs, tuple(gradients), saturated, layer=values
        )

    # Without autograph, as in Keras, errors are raised unchanged.
    function = tf.function(run, autograph=False, jit_compile=subject.jit_compile or None)
    state = _random_state()
    compiled = function.get_concrete_function(
        list(subject.specs), tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    )
    if _random_state() != state:  # by the model, or by another thread
        facts["random"] |= has_other_constants(forward, subject.specs)
    forget_custom_gradients(compiled.graph)
    run_with = with_other_weights(compiled, list_weights(subject.model))
    return Trace(compiled, run_with, engine=engine, **facts)


def score_outputs(
    subject: Subject, head: Head, inputs: Sequence[tf.Tensor], targets: tf.Tensor
) -> tuple[Head, tf.Tensor | None, tf.Tensor, tf.Tensor]:
    """Return the scored head, the region, the targets, and the scores of a model's outputs."""
    own = score_head(subject.score, head)
    region = subject.region_of(inputs, head)
    targets = choose_targets(subject.score, own, targets, region)
    return own, region, targets, score_values(subject.score, own, targets, region)


def _random_state() -> int:
    """Return a hash of NumPy's and Python's random state: a model may draw while it is traced."""
    _, keys, position, *_ = np.random.get_state(legacy=True)
    return hash((np.asarray(keys).tobytes(), position, random.getstate()))


def _differentiate(
    tape: tf.GradientTape,
    scores: tf.Tensor,
    sources: Sequence[tf.Tensor],
    upstream: tf.Tensor,
) -> list[tf.Tensor | None]:
    try:
        found: list[tf.Tensor | None] = tape.gradient(scores, sources, output_gradients=upstream)
        return found
    except LookupError as error:  # raised for an op without a gradient
        raise ModelError(
            f"Cannot differentiate the model: {error.args[0]} Expected operations that TensorFlow "
            "can differentiate. Explain the part of the model behind this operation."
        ) from error


def _joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the only tensor, or those of all frames (n, frames, ...)."""
    return tensors[0] if len(tensors) == 1 else tf.stack(tensors, axis=1)


def describe_trace(
    subject: Subject, census: Census, head: Head, scores: tf.Tensor
) -> dict[str, Any]:
    """Return the fields of a Trace that describe the traced model."""
    dtypes = _dtypes(scores.graph)
    half = tf.float16.as_datatype_enum in dtypes
    captured = [tensor for tensor in find_captured(scores) if tensor.dtype == tf.resource]
    used = _indices_of(captured, list_weights(subject.model))
    return {
        "used": used,
        "others": len(captured) - len(used),
        "census": census,
        "meaning": "vector" if isinstance(subject.score, SimilarityTo) else head.meaning,
        "own_score": callable(subject.score),
        "classes": head.classes,
        "random": draws_random_numbers(scores),
        "half": half,
        "low": half or tf.bfloat16.as_datatype_enum in dtypes,
    }


def with_other_weights(
    compiled: Any, weights: Sequence[keras.Variable]
) -> Callable[..., Gradients]:
    """Return a compiled function that reads other variables in place of some of the model's.

    A concrete function takes the handles of all variables that it reads as inputs, including those
    read in loops and inner functions, so it can be called with other handles. An array that is
    passed in the same place as in the last call, as in a cascade, is not copied again.
    """
    captured = list(compiled.captured_inputs)
    places = {id(tensor): place for place, tensor in enumerate(captured)}
    own = [(places.get(id(_variable(w).handle)), _variable(w).dtype) for w in weights]
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
                if place is None or value is None:  # not used by the score, or unchanged
                    continue
                handles[place] = handle_of(place, value, dtype)
            given = map(tf.convert_to_tensor, (*inputs, *others))
            return compiled._call_flat(list(given), handles)

    return run_with


def _indices_of(
    captured: Sequence[tf.Tensor], weights: Sequence[keras.Variable]
) -> tuple[int, ...]:
    """Return the indices of the weights that a graph captured, in its order."""
    index = {id(_variable(weight).handle): place for place, weight in enumerate(weights)}
    return tuple(index[id(tensor)] for tensor in captured if id(tensor) in index)


def _variable(weight: Any) -> tf.Variable:
    # In older versions of Keras, the weights of a TFSMLayer are TensorFlow variables.
    variable = weight if isinstance(weight, tf.Variable) else weight.value
    copies = getattr(variable, "values", None)  # of a distribution strategy, one for each device
    return copies[0] if isinstance(copies, (list, tuple)) else variable


def _connected(slope: tf.Tensor | None) -> tf.Tensor:
    if slope is None:
        raise ModelError(
            "The score does not depend on the images in a way that can be differentiated. "
            "Expected floating-point operations all the way from the input to the score; "
            "a cast to integers, an argmax or a stop_gradient breaks it."
        )
    return slope


def _dtypes(graph: tf.Graph) -> set[int]:
    """Return the dtypes in a graph and its functions, as TensorFlow's enum values."""
    bodies = (function.node_def for function in graph.as_graph_def().library.function)
    inner = {a.type for body in bodies for node in body for a in node.attr.values()}
    outputs = (output for op in graph.get_operations() for output in op.outputs)
    return inner | {output.dtype.as_datatype_enum for output in outputs}


def wide(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor in at least 32 bits."""
    return tensor if tensor.dtype.size >= tf.float32.size else tf.cast(tensor, tf.float32)
