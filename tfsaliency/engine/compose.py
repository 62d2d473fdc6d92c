"""The trace of methods that have a composition, made of traces of their rules' gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .compositions import Explain, Explained, Features
from .gradients import Gradients, Trace, with_other_weights
from .methods import Method
from .rules import Rule, gradient


class Setting(NamedTuple):
    """What methods are composed for.

    Parameters
    ----------
    inputs
        Shape, with n None, and dtype of each input.
    explained
        Which of the inputs gets a map.
    batch
        The number of images in a batch, where the model fixes it.
    weights
        The model's, for which other values may be given.
    at_layer
        (layer or None, rule, the method's name) -> the trace of the gradients under the rule with
        respect to what the layer returns.
    """

    inputs: Sequence[tf.TensorSpec]
    explained: int
    batch: int | None
    weights: Sequence[keras.Variable]
    at_layer: Callable[[str | None, Rule, str], Trace]


def rules_of(methods: Sequence[Method]) -> dict[str, Rule]:
    """Return each rule once, by the name of the first method that follows it."""
    names: dict[Rule, str] = {}
    for method in methods:
        names.setdefault(method.rule, method.name)
    return {name: rule for rule, name in names.items()}


def compose(trace: Trace, methods: Sequence[Method], setting: Setting) -> Trace:
    """Return the trace of the attributions of methods.

    Parameters
    ----------
    trace
        That of the gradients under rules_of(methods).
    methods, setting
        What it is made for.
    """
    places = {rule: place for place, rule in enumerate(rules_of(methods).values())}
    at_layers: dict[tuple[str | None, Rule], Trace] = {}

    def trace_at(layer: str | None, rule: Rule, name: str) -> Trace:
        if (layer, rule) not in at_layers:
            at_layers[layer, rule] = setting.at_layer(layer, rule, name)
        return at_layers[layer, rule]

    def run(
        inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor, at_once: tf.Tensor
    ) -> Gradients:
        first = trace.run(inputs, targets, scale)
        images = inputs[setting.explained]
        every = tf.range(tf.shape(images)[0])

        def run_at(trace: Trace, points: tf.Tensor, rows: tf.Tensor) -> Gradients:
            k = tf.shape(points)[0]
            if setting.batch:  # the model takes batches of one size only: the last fills it up
                whole = tf.minimum(tf.range(setting.batch), k - 1)
                points, rows = tf.gather(points, whole), tf.gather(rows, whole)
            given = [tf.gather(array, rows) for array in inputs]
            given[setting.explained] = points
            found = trace.run(given, tf.gather(first.targets, rows), scale)
            return tf.nest.map_structure(lambda t: t[:k], found) if setting.batch else found

        def gradients(place: int, points: tf.Tensor, rows: tf.Tensor) -> Explained:
            asked_again = points is images and rows is every
            found = first if asked_again else run_at(trace, points, rows)
            return Explained(found.gradients[place], found.scores, {})

        def features(
            method: Method, points: tf.Tensor, rows: tf.Tensor, layer: str | None, rule: Rule | None
        ) -> Features:
            found = run_at(trace_at(layer, rule or method.rule, method.name), points, rows)
            dtype = points.dtype if points.dtype.size > tf.float32.size else tf.float32
            values, slopes = (tf.cast(t, dtype) for t in (found.features, found.gradients[0]))
            return Features(values, slopes, found.scores)

        def explained(method: Method) -> Explained:
            place = places[method.rule]
            if method.composition is None:
                return Explained(first.gradients[place], first.scores, {})
            at, of_layer = functools.partial(gradients, place), functools.partial(features, method)
            explain = Explain(at, at_once, method.rule is gradient, of_layer)
            return method.composition(explain, images, every)

        made = [explained(method) for method in methods]
        return first._replace(
            gradients=tuple(found.values for found in made),
            details=tuple(found.details for found in made),
        )

    targets, scale = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    compiled: Any = tf.function(run, autograph=False).get_concrete_function(
        list(setting.inputs), targets, scale, tf.TensorSpec((), tf.int32)
    )
    others = with_other_weights(compiled, setting.weights)
    return trace._replace(run=compiled, run_with=others, composed=True)
