"""Units: the layers of a model that have weights of their own, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer with parameters of its own, which are randomized together.

    Parameters
    ----------
    path
        Its name, under those of the models and layers that it is in: "outer/inner".
    layer
        The caller's layer.
    parameters
        Its own weights that training changes, frozen or not; not those of layers inside it.
    statistics
        Its other weights, such as the moving mean and variance of a batch normalization.
    """

    path: str
    layer: keras.layers.Layer
    parameters: tuple[keras.Variable, ...]
    statistics: tuple[keras.Variable, ...]

    @property
    def weights(self) -> tuple[keras.Variable, ...]:
        """Parameters, then statistics."""
        return (*self.parameters, *self.statistics)


def list_units(layer: keras.layers.Layer) -> tuple[Unit, ...]:
    """Return all layers with parameters in a model or layer, from input to output, each once.

    Those inside nested models and custom layers count. The order is that of Model.layers, which
    for Sequential and Functional models is the order in which they are run.
    """
    seen: set[int] = set()
    units: list[Unit] = []
    for path, inner in _walk(layer, "", set()):
        # A wrapper may keep a weight of the layer that it wraps: it is that of the inner one.
        deeper = {id(w) for each in inner._flatten_layers(include_self=False) for w in each.weights}
        parameters, statistics = (_unseen(w, seen | deeper) for w in own_weights(inner))
        seen.update(map(id, (*parameters, *statistics)))
        if parameters:
            number = sum(unit.path.split("#")[0] == path for unit in units)
            name = f"{path}#{number + 1}" if number else path
            units.append(Unit(name, inner, parameters, statistics))
    return tuple(units)


def _walk(
    layer: keras.layers.Layer, path: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path or layer.name, layer
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _walk(inner, f"{path}/{inner.name}" if path else inner.name, seen)


def own_weights(layer: keras.layers.Layer) -> tuple[list[Any], list[Any]]:
    """Return parameters and statistics of a layer, without those of the layers inside it."""
    # A weight of a frozen layer stays in the first list, and only says that it is not trained.
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def _unseen(weights: Sequence[Any], seen: set[int]) -> tuple[Any, ...]:
    return tuple(weight for weight in weights if id(weight) not in seen)
