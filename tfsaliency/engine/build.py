"""Which engine differentiates a model, and whether it computes what the model computes.

The plain gradient is taken of the model as it is ("model"). For a modified rule, AttributionReLUs
are put into a clone ("clone"); where that does not reach every ReLU, the ops of the traced graph
are marked ("graph").
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from .arrays import Array, Limits, batches
from .composing import Setting, compose, rules_of
from .endpoints import Forward, Inputs, Model, as_forward, has_visible_layers
from .errors import ModelError, OpaqueModelError, UncoveredReluError
from .gradients import Gradients, Subject, Trace, trace_gradients
from .injection import inject
from .methods import Method
from .precision import computing_in
from .rules import Rule, gradient
from .scores import Score
from .taps import TappedForward, tapped
from .tracing import retrace

# How far what an engine computes may be from what the model computes, as a part of the largest.
_SAME, _SAME_HALF = 1e-3, 5e-2
# float16 has no number below 6e-8, and none above 65504: backward passes are scaled up, by less
# where something overflows.
_HALF_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0, 2.0**-5)


class Batch(NamedTuple):
    """What the caller gave, checked.

    Parameters
    ----------
    images
        The images to explain as they were given, with a batch axis.
    arrays
        All inputs of the model as it gets them.
    inputs
        What the model takes.
    limits
        The least and the largest value of the images as the model gets them.
    """

    images: Array
    arrays: tuple[Array, ...]
    inputs: Inputs
    limits: Limits

    @property
    def images_in(self) -> Array:
        """The images as the model gets them."""
        return self.arrays[self.inputs.explained]

    def of(self, images: Array) -> Batch:
        """Return other images, as the model gets them, each with what the first has beside it."""
        arrays = [np.repeat(array[:1], len(images), axis=0) for array in self.arrays]
        arrays[self.inputs.explained] = images
        return self._replace(arrays=tuple(arrays))

    def filled(self, part: slice) -> list[Array]:
        """Return a part of all inputs, filled up to the size that the model fixes."""
        arrays = [array[part] for array in self.arrays]
        return [_filled(array, self.inputs.batch) for array in arrays]

    @property
    def signature(self) -> tuple[Any, ...]:
        """What a trace is made for: the names and shapes of the inputs."""
        return self.inputs.names, self.specs

    @property
    def specs(self) -> tuple[tf.TensorSpec, ...]:
        """Shape, with n None, and dtype of each input."""
        return tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in self.arrays)


class Computing(NamedTuple):
    """How a trace computes.

    Parameters
    ----------
    precision
        One of PRECISIONS; None for the model's own.
    jit_compile
        Whether XLA compiles it.
    """

    precision: str | None = None
    jit_compile: bool = False


class Tap(NamedTuple):
    """The layer whose outputs stand in the place of the images: by name, or the last of a kind."""

    layer: str | None


def new_trace(
    model: Model,
    output: str | int | None,
    score: str | Score,
    methods: Sequence[Method],
    batch: Batch,
    computing: Computing,
) -> Trace:
    """Trace by the first engine that reaches every ReLU and sees the end of the model.

    Parameters
    ----------
    model, output, score
        What is differentiated, see prepare.
    methods
        How.
    batch
        What the model gets.
    computing
        How it computes.

    Raises
    ------
    OpaqueModelError, NoReluError, UncoveredReluError, ModelError
    """
    composed = any(method.composition is not None for method in methods)
    asked = _Asked(model, output, score, {m.name: m.rule for m in methods}, batch, computing)
    if not composed:
        return _first_that_reaches(asked)

    def at_layer(layer: str | None, rule: Rule, name: str) -> Trace:
        return _first_that_reaches(asked._replace(rules={name: rule}, tap=Tap(layer)))

    trace = _first_that_reaches(asked._replace(rules=rules_of(methods)))
    explained, size = batch.inputs.explained, batch.inputs.batch
    return compose(trace, methods, Setting(batch.specs, explained, size, _weights(model), at_layer))


class _Asked(NamedTuple):
    """What a trace is asked for; see new_trace. The gradients are with respect to a tap, if any."""

    model: Model
    output: str | int | None
    score: str | Score
    rules: Mapping[str, Rule]
    batch: Batch
    computing: Computing
    tap: Tap | None = None

    def forward_of(self, callee: Model) -> Forward | TappedForward:
        """Return the forward pass of the model or of its clone, as it is differentiated."""
        forward = as_forward(self.model, callee, self.batch.inputs, self.output)
        if self.computing.precision is not None:
            forward = computing_in(self.computing.precision, forward, callee)
        if self.tap is None:
            return forward
        return tapped(forward, callee, self.tap.layer, self.batch.inputs.explained)


def _first_that_reaches(asked: _Asked) -> Trace:
    """Trace the gradients by the first engine that reaches every ReLU and sees the end."""
    first = "model"
    if any(rule is not gradient for rule in asked.rules.values()):
        first = "clone" if has_visible_layers(asked.model) else "graph"
    try:
        return _trace_by(first, asked)
    except (UncoveredReluError, OpaqueModelError):
        if first == "graph":
            raise
    return _trace_by("graph", asked)


def _trace_by(engine: str, asked: _Asked) -> Trace:
    model, batch, computing = asked.model, asked.batch, asked.computing
    if engine != "model" and computing.precision is not None:
        # What an engine computes is looked at in the precision of the model.
        _trace_by(engine, asked._replace(computing=Computing()))
    subject = Subject(
        asked.forward_of(inject(model) if engine == "clone" else model),
        _weights(model),
        batch.specs,
        batch.inputs.explained,
        asked.score,
        engine,
        at_layer=asked.tap is not None,
        wide_head=computing.precision is not None,
        jit_compile=computing.jit_compile,
    )
    dropped = False
    if engine == "graph":
        retraced = retrace(subject.forward, batch.specs)
        subject = subject._replace(forward=retraced.forward)
        dropped = retraced.custom_gradients
    trace = trace_gradients(subject, asked.rules)
    if engine != "model" and computing.precision is None:
        own = subject._replace(forward=asked.forward_of(model), engine="model")
        forward = as_forward(model, model, batch.inputs, asked.output)
        _check(trace, (subject, own) if dropped else (), forward, batch)
    return trace


def _weights(model: Model) -> Sequence[keras.Variable]:
    """Return the weights for which other values may be given."""
    return model.weights if isinstance(model, keras.Model) else []


def run(
    trace: Trace,
    batch: Batch,
    part: slice,
    targets: Array,
    weights: Sequence[Array | None] | None = None,
    at_once: int = 1,
) -> Gradients:
    """Run a trace on a part of a batch and its targets (n,).

    With the model's present weights, or with others in their order, None for one that stays.
    Compositions give the network at_once points at a time, or as many as there are images.
    """
    call = trace.run if weights is None else functools.partial(trace.run_with, weights)
    n, targets = len(targets), _filled(targets, batch.inputs.batch)
    with tf.init_scope():  # not recorded by a tape that the caller may have open
        given = [tf.constant(array) for array in batch.filled(part)], tf.constant(targets)
        sizes = [tf.constant(batch.inputs.batch or at_once)] if trace.composed else []
        for scale in _HALF_SCALES if trace.half else (1.0,):
            result = call(*given, tf.constant(scale), *sizes)
            if not trace.half or all(_is_finite(g) for g in result.gradients):
                break
        return tf.nest.map_structure(lambda t: t[:n], result) if len(targets) > n else result


def _filled(array: Array, size: int | None) -> Array:
    missing = (size or len(array)) - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _whole(batch: Batch, function: Callable[[slice], tf.Tensor]) -> Array:
    """Return what a function gives of all images, as many at a time as the model takes."""
    n = len(batch.images_in)
    parts = [function(part) for part in batches(n, batch.inputs.batch or n)]
    with tf.init_scope():  # a trace may be made while another is
        return np.concatenate([tf.cast(part, tf.float64).numpy() for part in parts])


def _check(
    trace: Trace,
    subjects: Sequence[Subject],
    forward: Forward,
    batch: Batch,
) -> None:
    """Raise ModelError where an engine does not compute what the model computes.

    The outputs are compared, for the first image and for noise (a black image may hide what
    differs), with those of the model's own forward pass; and the plain gradients of two subjects,
    where those of the model's own were dropped.
    """
    first = batch.images_in[:1]
    samples = batch.of(np.concatenate([first, _noise(first)]))
    target = np.zeros(len(samples.images_in), np.int32)

    def found(each: Trace, pick: Callable[[Gradients], tf.Tensor]) -> Array:
        return _whole(samples, lambda part: pick(run(each, samples, part, target[part])))

    mine = found(trace, lambda result: result.outputs)
    compared = [("outputs", mine, _outputs(forward, samples))]
    if subjects:
        pair = [
            trace_gradients(subject._replace(score=_energy), {"gradient": gradient})
            for subject in subjects
        ]
        slopes, own = (found(each, lambda result: result.gradients[0]) for each in pair)
        compared.append(("gradients", slopes, own))
    for what, mine, its in compared:
        # NaN is larger than any limit, and not less than what comes before it.
        difference = np.max([_difference(a, b) for a, b in zip(mine, its, strict=True)])
        if not difference <= (_SAME_HALF if trace.low else _SAME):
            raise ModelError(
                f"The {trace.engine} of the model with modified ReLUs does not compute what the "
                f"model computes: {what} differ by {difference:.3g} of the largest. Expected "
                "layers that return the same each time they are called with training=False, and "
                "no gradient of their own by tf.custom_gradient behind what the clone cannot "
                "reach. Use methods='gradient', which needs neither."
            )


def _noise(images: Array) -> Array:
    largest = np.abs(images.astype(np.float64)).max()
    noise = np.random.default_rng(0).normal(0.0, largest or 1.0, images.shape)
    return noise.astype(images.dtype)


def outputs_differ(
    trace: Trace, model: keras.Model, output: str | int | None, batch: Batch
) -> float:
    """Return by how much a trace with a model's weights differs from that model on one image.

    As a part of the largest output; the model may be another than the one that was traced.
    """
    weights = [weight.numpy() for weight in model.weights]
    first = batch.of(batch.images_in[:1])
    target = np.zeros(1, np.int32)
    mine = _whole(first, lambda part: run(trace, first, part, target, weights).outputs)
    return _difference(mine, _outputs(as_forward(model, model, batch.inputs, output), first))


def _outputs(forward: Forward, batch: Batch) -> Array:
    """Run a model as it is, eagerly."""

    def outputs(part: slice) -> tf.Tensor:
        with tf.init_scope():
            found = forward([tf.constant(array) for array in batch.filled(part)])
            return found[: len(batch.images_in[part])]

    return _whole(batch, outputs)


def _energy(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Score what depends on every output; not their sum, which a softmax makes constant."""
    squares = tf.square(tf.cast(outputs, tf.float32))
    return tf.reduce_sum(squares, axis=list(range(1, len(outputs.shape))))


def _difference(mine: Array, its: Array) -> float:
    """Return the largest difference of two arrays as a part of the largest value of the second."""
    if np.array_equal(mine, its, equal_nan=True):
        return 0.0
    largest = np.max(np.abs(its))
    return float(np.max(np.abs(mine - its)) / largest) if largest else np.inf


def _is_finite(tensor: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
