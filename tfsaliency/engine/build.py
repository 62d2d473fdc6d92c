"""Builder of traces: chooses an engine, and checks that it computes what the model computes.

The plain gradient uses the model itself (engine "model"). A modified rule uses a clone with
AttributionReLUs ("clone"), or, if that does not reach every ReLU, the traced graph with marked ops
("graph").
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..arrays import Array, batches
from ..display.progress import Progress
from ..errors import (
    GeometryError,
    ModelError,
    OpaqueModelError,
    OptionError,
    UncoveredReluError,
    one_line,
)
from ..methods.rules import Rule, gradient
from ..methods.table import Method
from ..relevance.protocol import Propagation
from .clone import inject
from .compose import Tracers, compose, distinct_rules
from .coverage import EngineName
from .folding import fold_normalization
from .functions import Model
from .gradients import Gradients, Trace, trace_gradients
from .graph_rewrite import retrace
from .layer_outputs import LayerForward
from .model_io import Batch, Forward, has_visible_layers, make_forward, pad
from .precision import lower_precision
from .propagate import trace_relevance
from .subject import LayerRequest, Subject
from .token_maps import trace_attention

# Tolerance between an engine's outputs and the model's, relative to the largest value.
_SAME, _SAME_HALF = 1e-3, 5e-2
_processes: dict[str, int] = {}  # the first that ran a trace
# float16 ranges from 6e-8 to 65504: backward passes are scaled up, by smaller factors if they
# overflow.
_HALF_SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0, 2.0**-5)


def build_trace(subject: Subject, methods: Sequence[Method], batch: Batch) -> Trace:
    """Trace methods with the first engine that reaches every ReLU and finds the logits.

    Parameters
    ----------
    subject
        The model, score and rules; the rules are those of the methods.
    methods
        The methods.
    batch
        Images on which to compare engines.

    Raises
    ------
    OpaqueModelError, NoReluError, UncoveredReluError, ModelError
    """
    if any(method.composition is not None for method in methods):
        subject = replace(subject, rules=distinct_rules(methods))
    trace = _with_meaning(subject, _trace_by_first_engine(subject, batch), batch)
    if all(method.composition is None for method in methods):
        return trace

    def trace_at_layer(request: LayerRequest, rule: Rule | None, name: str) -> Trace:
        at_layer = replace(subject, rules={name: rule} if rule else {}, layer=request)
        trace = _trace_by_first_engine(at_layer, batch)
        _check_batch_axis(trace, batch)
        return trace

    def trace_scores() -> Trace:
        return _trace_by_first_engine(replace(subject, rules={}), batch)

    def trace_by_rules(propagation: Propagation) -> Trace:
        retraced = retrace(_forward(subject, subject.model), subject.specs, marks=False)
        return trace_relevance(subject, retraced.forward, propagation)

    def trace_by_attention(kind: str) -> Trace:
        retraced = retrace(_forward(subject, subject.model), subject.specs, marks=False)
        return trace_attention(subject, retraced.forward, kind)

    make = Tracers(trace_at_layer, trace_scores, trace_by_rules, trace_by_attention)
    return compose(trace, methods, subject, make)


def _with_meaning(subject: Subject, trace: Trace, batch: Batch) -> Trace:
    """Return a trace with the meaning of its outputs, if their values tell: see Meaning.

    A callable score is run too, so that a wrong number of scores is found.
    """
    if not callable(subject.score) and (trace.meaning != "outputs" or trace.classes in (None, 1)):
        return trace
    outputs = _of_samples(trace, _samples(batch), lambda result: result.outputs)
    near = functools.partial(np.allclose, atol=_SAME_HALF if trace.low else _SAME)
    if trace.meaning != "outputs" or trace.classes in (None, 1):
        return trace
    finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    if not finite.any():  # a problem that is reported; nothing can be said about the meaning
        return trace._replace(meaning="classes")
    outputs = outputs[finite]
    if outputs.min() >= 0 and near(outputs.sum(axis=-1), 1):
        return trace._replace(meaning="classes")
    unit = outputs.ndim == 2 and near(np.linalg.norm(outputs, axis=-1), 1)
    return trace._replace(meaning="vector") if unit else trace


def _trace_by_first_engine(subject: Subject, batch: Batch) -> Trace:
    first: EngineName = "model"
    if any(rule is not gradient for rule in subject.rules.values()):
        first = "clone" if has_visible_layers(subject.model) else "graph"
    try:
        return _trace_by(first, subject, batch)
    except (UncoveredReluError, OpaqueModelError):
        if first == "graph":
            raise
    return _trace_by("graph", subject, batch)


def _trace_by(engine: EngineName, subject: Subject, batch: Batch) -> Trace:
    model = subject.model
    if engine != "model" and subject.precision is not None:
        # Outputs are compared in the precision of the model.
        _trace_by(engine, replace(subject, precision=None, jit_compile=False), batch)
    callee = inject(model) if engine == "clone" else model
    forward = own = _forward(subject, callee, fold=subject.fold)
    dropped = False
    if engine == "graph":
        retraced = retrace(forward, subject.specs)
        forward, dropped = retraced.forward, retraced.custom_gradients
    trace = trace_gradients(subject, forward, engine)
    if isinstance(own, LayerForward):
        trace = trace._replace(choice=own.choice)
    if engine != "model" and subject.precision is None:
        _check_outputs(trace, make_forward(model, model, subject.inputs, subject.output), batch)
        if dropped:
            _check_gradients(subject, engine, forward, _forward(subject, model), batch)
    return trace


def _forward(subject: Subject, callee: Model, fold: bool = False) -> Forward | LayerForward:
    """Return the forward pass of the model or its clone, in the subject's precision.

    At a layer nothing is folded, so that each has its own outputs.
    """
    forward = make_forward(subject.model, callee, subject.inputs, subject.output)
    if subject.precision is not None:
        forward = lower_precision(subject.precision, forward, callee)
    if subject.layer is None:
        return fold_normalization(forward, callee) if fold else forward
    return LayerForward(forward, callee, subject)


def run(
    trace: Trace,
    batch: Batch,
    part: slice,
    targets: Array,
    weights: Sequence[Array | None] | None = None,
    batch_size: int = 1,
) -> Gradients:
    """Run a trace on a part of a batch and its targets (n,).

    Uses the model's current weights, or others in the same order, with None for unchanged ones.
    Compositions evaluate batch_size points at a time, by default as many as there are images.
    """
    _check_process()
    call = trace.run if weights is None else functools.partial(trace.run_with, weights)
    n, targets = len(targets), pad(targets, batch.inputs.batch)
    with tf.init_scope():  # not recorded by a tape that the caller may have open
        given = [tf.constant(array) for array in batch.padded(part)], tf.constant(targets)
        sizes = [tf.constant(batch.inputs.batch or batch_size)] if trace.composed else []
        for scale in _HALF_SCALES if trace.half else (1.0,):
            result = _explaining_errors(trace, batch, call, *given, tf.constant(scale), *sizes)
            if not trace.half or all(_is_finite(g) for g in result.gradients):
                break
        if len(result.scores) != len(targets):
            raise OptionError(
                "Expected a score callable (outputs, targets) -> one float per image, (n,). "
                f"Received: {len(result.scores)} values for {len(targets)} images."
            )
        return tf.nest.map_structure(lambda t: t[:n], result) if len(targets) > n else result


def run_in_parts(
    trace: Trace,
    batch: Batch,
    targets: Array,
    batch_size: int,
    progress: Progress,
    weights: Sequence[Array | None] | None = None,
) -> Iterator[Gradients]:
    """Run a trace on a batch and its targets (n,), batch_size images at a time; see run.

    A batch of fixed size is divided into parts of that size.
    """
    progress.begin()
    counts = trace.counts
    for part in batches(len(targets), batch.inputs.batch or batch_size):
        n = len(targets[part])
        with progress.part(n, counts.start(n) if counts else None):
            result = run(trace, batch, part, targets[part], weights, batch_size)
        if counts:
            counts.learn(n)
        yield result


def _explaining_errors(trace: Trace, batch: Batch, call: Any, *arguments: Any) -> Gradients:
    """Call a trace; errors of TensorFlow that the caller's score or region makes say so."""
    try:
        result: Gradients = call(*arguments)
    except tf.errors.OpError as error:
        if len(batch.arrays) > len(batch.inputs.names):
            raise OptionError(
                "Expected a region of the positions of the model's outputs. Received: shape "
                f"{batch.arrays[-1].shape[1:]}. Resize the mask to them."
            ) from error
        if trace.own_score:
            two = " Of one output for two classes, they are 0 and 1." if trace.classes == 2 else ""
            raise OptionError(
                f"The score {trace.score} failed for the outputs and targets of these images: "
                f"{one_line(error, 200)} Expected a function (outputs, targets) -> one float per "
                f"image, (n,). Targets are the indices of classes.{two}"
            ) from error
        raise
    return result


def _check_process() -> None:
    """Raise ModelError in a process that was forked after TensorFlow was used.

    TensorFlow's threads are not there, and it would wait for them forever.
    """
    first = _processes.setdefault("first", os.getpid())
    if first != os.getpid():
        raise ModelError(
            "Expected a process in which TensorFlow can run. Received: one that was forked after "
            "maps had been computed, without TensorFlow's threads. Start processes with "
            "multiprocessing.get_context('spawn')."
        )


def serves(trace: Trace, subject: Subject, batch: Batch) -> bool:
    """Return whether a trace for images of any size computes what the model does for these."""
    if trace.random:
        return False
    samples = _samples(batch)
    ours = _of_samples(trace, samples, lambda result: result.outputs)
    forward = make_forward(subject.model, subject.model, subject.inputs, subject.output)
    theirs = _run_eagerly(forward, samples)
    return _difference(ours, theirs.reshape(ours.shape)) <= (_SAME_HALF if trace.low else _SAME)


def output_rank(model: Model, batch: Batch, output: str | int | None) -> int:
    """Return the number of axes of a model's outputs, with the batch axis, by running one image."""
    forward = make_forward(model, model, batch.inputs, output)
    return _run_eagerly(forward, batch.with_images(batch.preprocessed[:1])).ndim


def outputs_differ(
    trace: Trace, model: keras.Model, output: str | int | None, batch: Batch
) -> float:
    """Return the difference between a model and a trace with its weights, on one image.

    The unit is the largest output; the traced model may be another one.
    """
    weights = [weight.numpy() for weight in model.weights]
    first = batch.with_images(batch.preprocessed[:1])
    target = np.zeros(1, np.int32)
    ours = _in_parts(first, lambda part: run(trace, first, part, target, weights).outputs)
    forward = make_forward(model, model, batch.inputs, output)
    return _difference(ours, _run_eagerly(forward, first))


def _check_outputs(trace: Trace, forward: Forward, batch: Batch) -> None:
    """Raise ModelError if an engine does not compute what the model computes.

    Compares the outputs with the model's own for the first image, and for noise, since a black
    image may hide a difference.
    """
    samples = _samples(batch)
    ours = _of_samples(trace, samples, lambda result: result.outputs)
    _compare(trace, "outputs", ours, _run_eagerly(forward, samples))


def _check_batch_axis(trace: Trace, batch: Batch) -> None:
    """Raise GeometryError unless the first axis of a layer's outputs is that of the images.

    The trace runs on one image and on two.
    """
    if batch.inputs.batch or trace.choice is None:
        return
    both = _samples(batch)
    one = both.with_images(both.preprocessed[:1])
    found = [len(_of_samples(trace, each, lambda result: result.layer)) for each in (one, both)]
    if found != [1, 2]:
        raise GeometryError(
            "Expected a layer whose first axis is the batch of images. Received: "
            f"{trace.choice.cells.grid.layer}, whose first axis is {found[0]} for one image and "
            f"{found[1]} for two. Choose another one with layer=."
        )


def _check_gradients(
    subject: Subject,
    engine: EngineName,
    forward: Forward | LayerForward,
    own: Forward | LayerForward,
    batch: Batch,
) -> None:
    """Raise ModelError if the plain gradient of an engine differs from the model's.

    It may differ if the model's custom gradients were dropped.
    """
    samples = _samples(batch)
    plain = replace(subject, rules={"gradient": gradient}, score=_energy, jit_compile=False)
    traces = [trace_gradients(plain, *each) for each in ((forward, engine), (own, "model"))]
    ours, theirs = (_of_samples(t, samples, lambda result: result.gradients[0]) for t in traces)
    _compare(traces[0], "gradients", ours, theirs)


def _samples(batch: Batch) -> Batch:
    """Return the first image of a batch, and noise of its size."""
    first = batch.preprocessed[:1]
    largest = np.abs(first.astype(np.float64)).max()
    noise = np.random.default_rng(0).normal(0.0, largest or 1.0, first.shape)
    return batch.with_images(np.concatenate([first, noise.astype(first.dtype)]))


def _of_samples(trace: Trace, samples: Batch, pick: Callable[[Gradients], tf.Tensor]) -> Array:
    target = np.zeros(len(samples.preprocessed), np.int32)
    return _in_parts(samples, lambda part: pick(run(trace, samples, part, target[part])))


def _compare(trace: Trace, what: str, ours: Array, theirs: Array) -> None:
    # Written so that NaN exceeds the limit.
    difference = np.max([_difference(a, b) for a, b in zip(ours, theirs, strict=True)])
    if not difference <= (_SAME_HALF if trace.low else _SAME):
        raise ModelError(
            f"The {trace.engine} of the model with modified ReLUs does not compute what the "
            f"model computes: {what} differ by {difference:.3g} of the largest. Expected "
            "layers that are deterministic with training=False, and no tf.custom_gradient in "
            "parts of the model that the clone cannot reach. Use methods='gradient', which "
            "needs neither."
        )


def _in_parts(batch: Batch, function: Callable[[slice], tf.Tensor]) -> Array:
    """Apply a function to all images, in slices of the model's batch size."""
    n = len(batch.preprocessed)
    parts = [function(part) for part in batches(n, batch.inputs.batch or n)]
    with tf.init_scope():  # a trace may be made while another is
        return np.concatenate([tf.cast(part, tf.float64).numpy() for part in parts])


def _run_eagerly(forward: Forward, batch: Batch) -> Array:
    """Run a model eagerly."""

    def outputs(part: slice) -> tf.Tensor:
        with tf.init_scope():
            returned = forward([tf.constant(array) for array in batch.padded(part)])
            return returned[: len(batch.preprocessed[part])]

    return _in_parts(batch, outputs)


def _energy(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return a score that depends on every output; the sum would be constant after a softmax."""
    squares = tf.square(tf.cast(outputs, tf.float32))
    return tf.reduce_sum(squares, axis=list(range(1, len(outputs.shape))))


def _difference(ours: Array, theirs: Array) -> float:
    """Return the largest difference of two arrays, relative to the largest value of the second."""
    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    largest = np.max(np.abs(theirs))
    return float(np.max(np.abs(ours - theirs)) / largest) if largest else np.inf


def _is_finite(tensor: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
