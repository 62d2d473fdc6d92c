"""The trace of methods that have a composition, made of the trace of their rules' gradients."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from .compositions import Explain, Explained
from .gradients import Gradients, Subject, Trace, with_other_weights
from .methods import Method
from .rules import Rule, gradient


def rules_of(methods: Sequence[Method]) -> dict[str, Rule]:
    """Return each rule once, by the name of the first method that follows it."""
    names: dict[Rule, str] = {}
    for method in methods:
        names.setdefault(method.rule, method.name)
    return {name: rule for rule, name in names.items()}


def compose(trace: Trace, methods: Sequence[Method], subject: Subject) -> Trace:
    """Return the trace of the attributions of methods.

    Parameters
    ----------
    trace
        That of the gradients under rules_of(methods).
    methods, subject
        What it is made for.
    """
    places = {rule: place for place, rule in enumerate(rules_of(methods).values())}

    def run(
        inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor, at_once: tf.Tensor
    ) -> Gradients:
        first = trace.run(inputs, targets, scale)
        images = inputs[subject.explained]

        def gradients(place: int, points: tf.Tensor, rows: tf.Tensor) -> Explained:
            given = [tf.gather(array, rows) for array in inputs]
            given[subject.explained] = points
            found = trace.run(given, tf.gather(first.targets, rows), scale)
            return Explained(found.gradients[place], found.scores, {})

        every = []
        for method in methods:
            place = places[method.rule]
            if method.composition is None:
                every.append(Explained(first.gradients[place], first.scores, {}))
            else:
                at = functools.partial(gradients, place)
                explain = Explain(at, at_once, method.rule is gradient)
                rows = tf.range(tf.shape(images)[0])
                every.append(method.composition(explain, images, rows))
        return first._replace(
            gradients=tuple(found.values for found in every),
            details=tuple(found.details for found in every),
        )

    targets, scale = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    compiled = tf.function(run, autograph=False).get_concrete_function(
        list(subject.inputs), targets, scale, tf.TensorSpec((), tf.int32)
    )
    others = with_other_weights(compiled, subject.weights)
    return trace._replace(run=compiled, run_with=others, composed=True)
