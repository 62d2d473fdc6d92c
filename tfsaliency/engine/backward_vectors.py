"""Traces of random vectors, passed back from one layer to those below under a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ..errors import ModelError, OpaqueModelError, OptionError, UncoveredReluError
from ..methods.rules import gradient
from .clone import backward_rule, forget_custom_gradients, inject
from .coverage import Coverage, check_coverage, check_passed, cover, find_relus
from .functions import Model
from .gradients import wide
from .graph_rewrite import differentiate_marked, retrace
from .layer_calls import LayerCall, watched
from .layer_names import NamedLayer, find_named, named_layers, path_of
from .model_io import Forward, has_visible_layers, make_forward
from .subject import Subject

_RANK = 4  # of the outputs of a layer with rows, columns and channels
_TINY = 1e-30  # a length below is that of a vector of zeros


class BackwardVectors(NamedTuple):
    """A compiled function of the cosines between random vectors that are passed back.

    Parameters
    ----------
    run
        Function (inputs, seed) -> for each rule and layer, the absolute cosines
        (pairs, n, h, w) between pairs of passed vectors, NaN where one is zero.
    layers
        The paths of the layers, from the highest to the lowest.
    channels
        The number of channels of each.
    start
        The path of the layer at which the vectors begin.
    coverage
        The number of ReLUs on the way that each rule governs.
    """

    run: Callable[..., list[list[tf.Tensor]]]
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    start: str
    coverage: dict[str, Coverage]


def trace_backward_vectors(
    subject: Subject, start: str | None, layers: Sequence[str] | None, draws: int
) -> BackwardVectors:
    """Trace random vectors of a layer back to the layers below it, under each rule.

    Parameters
    ----------
    subject
        The model and the rules.
    start, layers
        The layer at which vectors begin, and those at which they are compared; by default, the last
        layer with rows and columns, and the last one of each shape below it.
    draws
        The number of vectors at each position.

    Raises
    ------
    OptionError
        If a layer is unknown, has no rows and columns, or is not below the start.
    ModelError, NoReluError, UncoveredReluError
        If the layers cannot be inspected, or a rule does not reach every ReLU between.
    """
    if not isinstance(subject.model, keras.Model):
        raise ModelError(
            "Expected a keras.Model, whose layers can be inspected. Received: "
            f"{type(subject.model).__name__}."
        )
    if all(rule is gradient for rule in subject.rules.values()):
        return _trace(subject, start, layers, draws, "model")
    if has_visible_layers(subject.model):
        try:
            return _trace(subject, start, layers, draws, "clone")
        except (UncoveredReluError, OpaqueModelError):
            pass  # of layers that no clone can be made of: the graph engine reaches their ReLUs
    return _trace(subject, start, layers, draws, "graph")


def _trace(
    subject: Subject, start: str | None, layers: Sequence[str] | None, draws: int, engine: Any
) -> BackwardVectors:
    callee: Model = inject(subject.model) if engine == "clone" else subject.model
    forward = make_forward(subject.model, callee, subject.inputs, subject.output)
    known = named_layers(callee)
    chosen = _Chosen(subject.model, known, start, layers)
    watching: Any = _Watching(forward, known, chosen)
    if engine == "graph":
        watching = retrace(watching, subject.specs).forward
    coverage: dict[str, Coverage] = {}

    def run(inputs: list[tf.Tensor], seed: tf.Tensor) -> list[list[tf.Tensor]]:
        _, (first, *below) = watching(inputs)
        shape, keys = tf.shape(first), [tf.stack([seed, draw]) for draw in range(draws)]
        noises = [tf.random.stateless_normal(shape, key, dtype=first.dtype) for key in keys]
        scores = [tf.reduce_sum(first * noise, [1, 2, 3]) for noise in noises]
        census = find_relus(below, scores[0], engine == "graph")
        modified = [name for name, rule in subject.rules.items() if rule is not gradient]
        check_coverage(census, modified)
        found = []
        for name, rule in subject.rules.items():
            coverage[name] = cover(name, rule, census, engine)
            vectors = []
            for score in scores:
                with backward_rule(rule, census.gates) as passed:
                    vectors.append(_pass(score, below))
                if rule is not gradient:
                    check_passed(census, passed, name)
            found.append([_cosines(each) for each in zip(*vectors, strict=True)])
        return found

    compiled: Any = tf.function(run, autograph=False).get_concrete_function(
        list(subject.specs), tf.TensorSpec((), tf.int32)
    )
    forget_custom_gradients(compiled.graph)
    return BackwardVectors(compiled, *chosen.found(), coverage)


def _pass(score: tf.Tensor, below: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the gradients at the layers below; a layer that is not below is an error."""
    gradients = differentiate_marked(score, below, tf.ones_like(score))
    if any(each is None for each in gradients):
        raise OptionError(
            "Expected layers below the start, from which its outputs are computed. Received: one "
            "that is not. Use a lower layer, or a higher start."
        )
    return [tf.convert_to_tensor(each) for each in gradients]


def _cosines(vectors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the absolute cosines (pairs, n, h, w) of vectors (n, h, w, c); NaN for zeros."""
    vectors = [wide(each) for each in vectors]
    lengths = [tf.norm(each, axis=-1) for each in vectors]
    cosines = []
    for i in range(len(vectors)):
        for j in range(i):
            product = lengths[i] * lengths[j]
            cosine = tf.abs(tf.reduce_sum(vectors[i] * vectors[j], -1)) / product
            cosines.append(tf.where(product > _TINY, cosine, float("nan")))
    return tf.stack(cosines)


class _Chosen:
    """The layers of a profile, found in the calls of the first trace.

    Parameters
    ----------
    model
        The caller's model, of which layers may be given.
    known
        The layers of the model, or of its clone.
    start, layers
        The wanted layers; None for the default.
    """

    def __init__(
        self,
        model: keras.Model,
        known: Sequence[NamedLayer],
        start: str | None,
        layers: Sequence[str] | None,
    ) -> None:
        self._known = known
        self._start = None if start is None else self._path(model, start)
        self._layers = None if layers is None else [self._path(model, each) for each in layers]
        self._calls: list[LayerCall] = []

    def of(self, calls: Sequence[LayerCall]) -> list[LayerCall]:
        """Return the calls of the start and of the layers below it, from high to low."""
        last = {call.path: call for call in calls if _has_rows(call.outputs)}
        if not last:
            raise OptionError("Expected a model of layers (n, h, w, c). Received: one of others.")
        for path in (self._start, *(self._layers or ())):
            if path is not None and path not in last:
                raise OptionError(
                    "Expected layers of outputs (n, h, w, c), of more than one position. Received: "
                    f"{path!r}. Such layers: {', '.join(last)}."
                )
        ordered = sorted(last.values(), key=lambda call: call.end)
        first = last[self._start] if self._start else ordered[-1]
        below = [call for call in ordered if call.end < first.end]
        if self._layers is None:
            below = [call for call in _ancestors(first, below) if call.outputs.shape[-1] > 1]
            of_shape = {tuple(call.outputs.shape[1:]): call for call in below}
            chosen = [c for shape, c in of_shape.items() if shape != tuple(first.outputs.shape[1:])]
        else:
            chosen = [last[path] for path in self._layers]
        if not chosen:
            raise OptionError(f"Expected layers below {first.path!r}. Received: none.")
        self._calls = [first, *sorted(chosen, key=lambda call: -call.end)]
        return self._calls

    def found(self) -> tuple[tuple[str, ...], tuple[int, ...], str]:
        """Return the paths of the layers, their numbers of channels, and the path of the start."""
        first, *below = self._calls
        channels = tuple(int(call.outputs.shape[-1]) for call in below)
        return tuple(call.path for call in below), channels, first.path

    def _path(self, model: keras.Model, layer: Any) -> str:
        found = find_named(self._known, path_of(model, layer), [path for path, _ in self._known])
        if len(found) > 1:
            paths = ", ".join(path for path, _ in found)
            raise OptionError(f"Expected one layer. Received: {layer!r}, the name of {paths}.")
        return found[0][0]


class _Watching:
    """A forward pass that also returns the outputs of the chosen layers."""

    def __init__(self, forward: Forward, known: Sequence[NamedLayer], chosen: _Chosen) -> None:
        self._forward, self._known, self._chosen = forward, known, chosen

    def __call__(self, arrays: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        with watched(self._known) as calls:
            outputs = self._forward(arrays)
        return outputs, tuple(call.outputs for call in self._chosen.of(calls))


def _ancestors(first: LayerCall, below: list[LayerCall]) -> list[LayerCall]:
    """Return the calls from whose outputs those of the first one are computed."""
    found = tf.gradients(first.outputs, [call.outputs for call in below]) if below else []
    return [call for call, gradient in zip(below, found, strict=True) if gradient is not None]


def _has_rows(outputs: Any) -> bool:
    """Return whether outputs are one tensor (n, h, w, c) with more than one position."""
    if not tf.is_tensor(outputs) or outputs.shape.rank != _RANK or outputs.shape[-1] is None:
        return False
    return outputs.dtype.is_floating and tuple(outputs.shape[1:3]) != (1, 1)
