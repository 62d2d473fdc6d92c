"""Scores and maps of points near an image, for the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays import Array
from ..engine.build import run
from ..engine.gradients import Trace
from ..engine.heads import describe_loss
from ..engine.model_io import Batch
from ..maps import Options, Reductions, explain
from ..methods.table import Method
from ..prepared import Prepared
from ..saliency_maps import SaliencyMaps
from .controls import Control
from .metric import Scored

ProbabilityFunction = Callable[[Array, Array], Array]
_ROUNDING = 1e-3  # of a sum of probabilities


@dataclass(frozen=True, eq=False)
class Scoring:
    """The network, the methods and the controls, at points of the images of a batch.

    Parameters
    ----------
    prepared, batch
        The prepared model and the images.
    methods, reduce
        The methods, and their channel reductions.
    controls
        The controls, by name.
    targets
        The explained class of each image, (n,).
    trace
        The trace of the scores alone.
    to_probabilities
        Function (outputs, targets (k,)) -> (k,); None if outputs are no probabilities.
    found
        What the network says about each image.
    batch_size
        The number of points to explain at a time.
    """

    prepared: Prepared
    batch: Batch
    methods: tuple[Method, ...]
    reduce: Reductions
    controls: Sequence[Control]
    targets: Array
    trace: Trace
    to_probabilities: ProbabilityFunction | None
    found: tuple[Scored, ...]
    batch_size: int = 32

    def scored(self, image: int, points: Array) -> Scored:
        """Return what the network says about points (k, h, w, c) of an image."""
        targets = np.repeat(self.targets[image], len(points))
        batch = self._at(image, points)
        result = run(self.trace, batch, slice(0, len(points)), targets)
        return _scored(result.scores, result.outputs, targets, self.to_probabilities)

    def maps(self, image: int, seed: int, points: Array) -> Array:
        """Return the maps (k, methods + controls, h, w) of points (k, h, w, c) of an image."""
        options = Options(
            np.repeat(self.targets[image], len(points)), None, self.batch_size, "ignore", 0
        )
        found = explain(self.prepared, self._at(image, points), self.methods, self.reduce, options)
        rng = np.random.default_rng([seed, image])
        drawn = [control(points, rng) for control in self.controls]
        return np.stack([*found.values(), *drawn], axis=1)

    def _at(self, image: int, points: Array) -> Batch:
        """Return a batch of points of an image, with the other inputs of the image."""
        k, explained = len(points), self.batch.inputs.explained
        arrays = list(self.batch.arrays)
        for i, each in enumerate(arrays):
            if i == explained:
                arrays[i] = points.astype(each.dtype, copy=False)
            else:
                arrays[i] = np.repeat(each[image : image + 1], k, axis=0)
        return replace(self.batch, images=points, arrays=tuple(arrays), problems=())


def make_scoring(
    prepared: Prepared,
    batch: Batch,
    methods: tuple[Method, ...],
    reduce: Reductions,
    controls: Sequence[Control],
    maps: SaliencyMaps,
    batch_size: int = 32,
) -> Scoring:
    """Return the scoring of the images that these maps explain."""
    trace = prepared.trace((), batch)
    _, logits = describe_loss(prepared._loss())
    function = _probability_function(maps, logits)
    places = [slice(i, i + 1) for i in range(len(maps.targets))]
    found = tuple(
        _scored(maps.scores[i], maps.outputs[i], maps.targets[i], function) for i in places
    )
    return Scoring(
        prepared, batch, methods, reduce, controls, maps.targets, trace, function, found, batch_size
    )


def _scored(
    scores: Any, outputs: Any, targets: Array, function: ProbabilityFunction | None
) -> Scored:
    scores = np.asarray(scores, np.float64)
    if function is None:
        return Scored(scores, scores)
    return Scored(scores, function(np.asarray(outputs, np.float64), targets))


def _probability_function(maps: SaliencyMaps, logits: bool) -> ProbabilityFunction | None:
    """Return the way from outputs to the probability of a class, by what the outputs are."""
    outputs, meaning = np.asarray(maps.outputs, np.float64), maps.meaning
    if meaning in ("binary", "binary_logit") and outputs[0].size == 1:
        return _of_one_output(meaning == "binary_logit")
    if meaning not in ("classes", "labels") or outputs.ndim != 2:
        return None
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    within = bool((outputs >= 0).all() and (outputs <= 1).all())
    if meaning == "labels":
        return _take if within and not logits else lambda o, targets: _take(_sigmoid(o), targets)
    if within and (np.abs(outputs.sum(axis=1) - 1) <= _ROUNDING).all():
        return _take
    return lambda o, targets: _take(_softmax(o), targets)


def _of_one_output(is_logit: bool) -> ProbabilityFunction:
    def function(outputs: Array, targets: Array) -> Array:
        one = outputs.reshape(len(targets))
        one = _sigmoid(one) if is_logit else one
        return np.where(targets == 0, 1 - one, one)

    return function


def _take(outputs: Array, targets: Array) -> Array:
    return np.take_along_axis(outputs, targets[:, np.newaxis], axis=1)[:, 0]


def _sigmoid(logits: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
