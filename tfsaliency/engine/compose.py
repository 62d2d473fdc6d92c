"""Traces of methods with a composition, built from traces of their rules' gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from ..methods.protocol import AttributionFunction, Attributions, LayerOutputs
from ..methods.rules import Rule, gradient
from ..methods.table import Method
from ..relevance.protocol import Propagation
from .cells import LayerChoice
from .counts import Counts
from .gradients import Gradients, Trace, with_other_weights
from .model_io import list_weights
from .subject import LayerRequest, Subject

# Counts the points of some gradients, and returns these.
Count = Callable[[Gradients], Gradients]


def distinct_rules(methods: Sequence[Method]) -> dict[str, Rule]:
    """Return each distinct rule, by the name of the first method that differentiates by it."""
    names: dict[Rule, str] = {}
    for method in methods:
        if method.needs_gradient:
            names.setdefault(method.backward_rule, method.name)
    return {name: rule for rule, name in names.items()}


class Tracers(NamedTuple):
    """Functions that make the traces which compositions evaluate besides the gradient.

    Parameters
    ----------
    at_layer
        (layer, rule, name of the method) -> trace of the gradients at that layer; without a rule,
        of its outputs alone.
    scores
        () -> trace without gradients.
    relevance
        (propagation) -> trace of relevance.
    attention
        (kind) -> trace of attention.
    """

    at_layer: Callable[[LayerRequest, Rule | None, str], Trace]
    scores: Callable[[], Trace]
    relevance: Callable[[Propagation], Trace]
    attention: Callable[[str], Trace]


class _Traces:
    """The traces of one composed trace; those at a layer and of scores are made once.

    Attributes
    ----------
    choices, layers
        The layers of class activation maps and attention, and the layers and rules of relevance, by
        the name of the method.
    """

    def __init__(self, images: Trace, make: Tracers, gradients: bool) -> None:
        self.images, self._make = images, make
        self.scores = functools.cache(make.scores if gradients else lambda: images)
        self._at_layers: dict[tuple[LayerRequest, Rule | None], Trace] = {}
        self.choices: dict[str, list[LayerChoice]] = {}
        self.layers: dict[str, Sequence[tuple[str, str]]] = {}

    def at_layer(self, request: LayerRequest, rule: Rule | None, name: str) -> Trace:
        """Return the trace at a layer for a method."""
        if (request, rule) not in self._at_layers:
            self._at_layers[request, rule] = self._make.at_layer(request, rule, name)
        return self._noted(self._at_layers[request, rule], name)

    def relevance(self, propagation: Propagation, name: str) -> Trace:
        """Return a trace of relevance for a method."""
        made = self._make.relevance(propagation)
        self.layers[name] = propagation.layers
        return made

    def attention(self, kind: str, name: str) -> Trace:
        """Return a trace of attention for a method."""
        return self._noted(self._make.attention(kind), name)

    def _noted(self, trace: Trace, name: str) -> Trace:
        known = self.choices.setdefault(name, [])
        if trace.choice is not None and trace.choice not in known:
            known.append(trace.choice)
        return trace


def compose(trace: Trace, methods: Sequence[Method], subject: Subject, make: Tracers) -> Trace:
    """Return the trace of the attributions of methods.

    Parameters
    ----------
    trace
        The trace of the gradients under distinct_rules(methods).
    methods
        The methods.
    subject
        The subject of the trace.
    make
        The functions that make other traces.
    """
    counts = Counts([method.composition for method in methods])
    traces = _Traces(trace, make, bool(subject.rules))

    def run(
        inputs: list[tf.Tensor], targets: tf.Tensor, scale: tf.Tensor, batch_size: tf.Tensor
    ) -> Gradients:
        first = trace.run(inputs, targets, scale)
        every = tf.range(tf.shape(inputs[subject.inputs.explained])[0])
        call = _Call(traces, subject, inputs, first, every, scale, batch_size)
        results = [
            counts.finish(place, call.attributions(method, functools.partial(counts.add, place)))
            for place, method in enumerate(methods)
        ]
        return first._replace(
            gradients=tuple(result.values for result in results),
            details=tuple(result.details for result in results),
        )

    targets, scale = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
    compiled: Any = tf.function(run, autograph=False).get_concrete_function(
        list(subject.specs), targets, scale, tf.TensorSpec((), tf.int32)
    )
    run_with = with_other_weights(compiled, list_weights(subject.model))
    choices = {name: tuple(each) for name, each in traces.choices.items()}
    return trace._replace(
        run=compiled,
        run_with=run_with,
        composed=True,
        choices=choices,
        counts=counts,
        layers=traces.layers,
    )


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a composed trace, with the gradients at the images.

    Parameters
    ----------
    traces, subject
        The traces, and the subject of that of the gradients.
    inputs, first, every
        All inputs, the gradients at the images, and the indices of the images, (n,).
    scale, batch_size
        The scale of backward passes, and the number of points to evaluate at a time.
    """

    traces: _Traces
    subject: Subject
    inputs: Sequence[tf.Tensor]
    first: Gradients
    every: tf.Tensor
    scale: tf.Tensor
    batch_size: tf.Tensor

    def attributions(self, method: Method, count: Count) -> Attributions:
        """Return the attributions of a method at the images, and count the points it evaluates."""
        rule = method.backward_rule
        place = list(self.subject.rules.values()).index(rule) if method.needs_gradient else -1
        if method.composition is None:
            return Attributions(self.first.gradients[place], self.first.scores, {})
        attribute = AttributionFunction(
            functools.partial(self._gradients, place, count),
            self.batch_size,
            rule is gradient,
            functools.partial(self._at_layer, method, count),
            functools.partial(self._scores, count),
            functools.partial(self._relevance, method, count),
            functools.partial(self._attention, method, count),
        )
        images = self.inputs[self.subject.inputs.explained]
        return method.composition(attribute, images, self.every)

    def _gradients(
        self, place: int, count: Count, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        images = self.inputs[self.subject.inputs.explained]
        repeated = points is images and image_index is self.every
        result = (
            self.first if repeated else count(self._run_at(self.traces.images, points, image_index))
        )
        return Attributions(result.gradients[place], result.scores, {})

    def _scores(self, count: Count, points: tf.Tensor, image_index: tf.Tensor) -> tf.Tensor:
        images = self.inputs[self.subject.inputs.explained]
        if points is images and image_index is self.every:
            return self.first.scores
        return count(self._run_at(self.traces.scores(), points, image_index)).scores

    def _relevance(
        self,
        method: Method,
        count: Count,
        points: tf.Tensor,
        image_index: tf.Tensor,
        propagation: Propagation,
        baseline: tf.Tensor | None = None,
    ) -> Attributions:
        trace = self.traces.relevance(propagation, method.name)
        more = [] if baseline is None else [baseline]
        result = count(self._run_at(trace, points, image_index, *more))
        return Attributions(result.gradients[0], result.scores, result.details[0])

    def _attention(
        self,
        method: Method,
        count: Count,
        points: tf.Tensor,
        image_index: tf.Tensor,
        kind: str,
    ) -> Attributions:
        trace = self.traces.attention(kind, method.name)
        result = count(self._run_at(trace, points, image_index))
        return Attributions(result.gradients[0], result.scores, {})

    def _at_layer(
        self,
        method: Method,
        count: Count,
        points: tf.Tensor,
        image_index: tf.Tensor,
        layer: Any = None,
        rule: Rule | None = None,
        grid: tuple[int, ...] | None = None,
        prefix: int = 0,
        gradients: bool = True,
    ) -> LayerOutputs:
        request = LayerRequest(layer, grid, prefix)
        rule = (rule or method.backward_rule) if gradients else None
        trace = self.traces.at_layer(request, rule, method.name)
        result = count(self._run_at(trace, points, image_index))
        dtype = points.dtype if points.dtype.size > tf.float32.size else tf.float32
        if trace.choice is None:
            raise TypeError("a trace at the images instead of a layer")
        cells, slopes = trace.choice.cells, result.gradients or [tf.zeros_like(result.layer)]
        values, slope = (tf.cast(cells.arrange(t), dtype) for t in (result.layer, slopes[0]))
        return LayerOutputs(values, slope, result.scores, cells.grid)

    def _run_at(
        self, trace: Trace, points: tf.Tensor, image_index: tf.Tensor, *others: tf.Tensor
    ) -> Gradients:
        """Run a trace at points (k, h, w, c), with the targets and other inputs of image_index.

        Others are arrays (k, h, w, c) that the trace takes besides.
        """
        k, fixed = tf.shape(points)[0], self.subject.inputs.batch
        if fixed:  # for a model of fixed batch size: pads with the last point
            padded = tf.minimum(tf.range(fixed), k - 1)
            points, image_index = tf.gather(points, padded), tf.gather(image_index, padded)
            others = tuple(tf.gather(each, padded) for each in others)
        given = [tf.gather(array, image_index) for array in self.inputs]
        given[self.subject.inputs.explained] = points
        targets = tf.gather(self.first.targets, image_index)
        result = trace.run(given, targets, self.scale, *others)
        return tf.nest.map_structure(lambda t: t[:k], result) if fixed else result
