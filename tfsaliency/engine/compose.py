"""The trace of methods that have a composition, made of traces of their rules' gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ..methods.protocol import AttributionFunction, Attributions, LayerOutputs
from ..methods.rules import Rule, gradient
from ..methods.table import Method
from .gradients import Gradients, Trace, with_other_weights
from .model_io import weights_of
from .subject import DEFAULT_LAYER, Subject

# (layer, rule, the method's name) -> the trace of the gradients with respect to that layer.
TraceAtLayer = Callable[[str, Rule, str], Trace]


def distinct_rules(methods: Sequence[Method]) -> dict[str, Rule]:
    """Return each rule once, by the name of the first method that follows it."""
    names: dict[Rule, str] = {}
    for method in methods:
        names.setdefault(method.backward_rule, method.name)
    return {name: rule for rule, name in names.items()}


def compose(
    trace: Trace, methods: Sequence[Method], subject: Subject, trace_at_layer: TraceAtLayer
) -> Trace:
    """Return the trace of the attributions of methods.

    Parameters
    ----------
    trace
        The trace of the gradients under distinct_rules(methods).
    methods
        The methods.
    subject
        What trace was made for.
    trace_at_layer
        Makes the traces that class activation maps need.
    """
    places = {rule: place for place, rule in enumerate(subject.rules.values())}
    traces_at_layers: dict[tuple[str, Rule], Trace] = {}

    def trace_of(layer: str, rule: Rule, name: str) -> Trace:
        if (layer, rule) not in traces_at_layers:
            traces_at_layers[layer, rule] = trace_at_layer(layer, rule, name)
        return traces_at_layers[layer, rule]

    def run(
        inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor, batch_size: tf.Tensor
    ) -> Gradients:
        first = trace.run(inputs, targets, scale)
        images = inputs[subject.inputs.explained]
        every = tf.range(tf.shape(images)[0])

        def run_at(trace: Trace, points: tf.Tensor, image_index: tf.Tensor) -> Gradients:
            return _run_at(trace, subject, inputs, first.targets, scale, points, image_index)

        def gradients(place: int, points: tf.Tensor, image_index: tf.Tensor) -> Attributions:
            repeated = points is images and image_index is every
            result = first if repeated else run_at(trace, points, image_index)
            return Attributions(result.gradients[place], result.scores, {})

        def at_layer(
            method: Method,
            points: tf.Tensor,
            image_index: tf.Tensor,
            layer: str | None,
            rule: Rule | None,
        ) -> LayerOutputs:
            name, rule = layer or DEFAULT_LAYER, rule or method.backward_rule
            result = run_at(trace_of(name, rule, method.name), points, image_index)
            dtype = points.dtype if points.dtype.size > tf.float32.size else tf.float32
            values, slopes = (tf.cast(t, dtype) for t in (result.layer, result.gradients[0]))
            return LayerOutputs(values, slopes, result.scores)

        def attributions(method: Method) -> Attributions:
            place = places[method.backward_rule]
            if method.composition is None:
                return Attributions(first.gradients[place], first.scores, {})
            attribute = AttributionFunction(
                functools.partial(gradients, place),
                batch_size,
                method.backward_rule is gradient,
                functools.partial(at_layer, method),
            )
            return method.composition(attribute, images, every)

        results = [attributions(method) for method in methods]
        return first._replace(
            gradients=tuple(result.values for result in results),
            details=tuple(result.details for result in results),
        )

    targets, scale = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    compiled: Any = tf.function(run, autograph=False).get_concrete_function(
        list(subject.specs), targets, scale, tf.TensorSpec((), tf.int32)
    )
    run_with = with_other_weights(compiled, weights_of(subject.model))
    return trace._replace(run=compiled, run_with=run_with, composed=True)


def _run_at(
    trace: Trace,
    subject: Subject,
    inputs: Sequence[tf.Tensor],
    targets: tf.Tensor,
    scale: tf.Tensor,
    points: tf.Tensor,
    image_index: tf.Tensor,
) -> Gradients:
    """Run a trace at points (k, h, w, c), with the targets and other inputs of image_index (k,)."""
    k, fixed = tf.shape(points)[0], subject.inputs.batch
    if fixed:  # the model takes batches of one size only: the last point pads it
        padded = tf.minimum(tf.range(fixed), k - 1)
        points, image_index = tf.gather(points, padded), tf.gather(image_index, padded)
    given = [tf.gather(array, image_index) for array in inputs]
    given[subject.inputs.explained] = points
    result = trace.run(given, tf.gather(targets, image_index), scale)
    return tf.nest.map_structure(lambda t: t[:k], result) if fixed else result
