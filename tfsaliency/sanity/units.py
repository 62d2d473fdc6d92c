"""Units: the layers of a model that have their own weights, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True, eq=False)
class Unit:
    """A layer with its own parameters, which are randomized together.

    Parameters
    ----------
    path
        Its name, prefixed by the models and layers that contain it: "outer/inner".
    layer
        The caller's layer.
    parameters
        Its own trainable weights, frozen or not, without those of layers inside it.
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
    """List all layers with parameters in a model or layer, from input to output, each once.

    Layers inside nested models and custom layers are included. The order is that of Model.layers,
    which is the order of execution in Sequential and Functional models.
    """
    seen: set[int] = set()
    units: list[Unit] = []
    for path, inner in _walk(layer, "", set()):
        # A weight that a wrapper shares with the layer inside belongs to the inner layer.
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
    """Return parameters and statistics of a layer, without those of layers inside it."""
    # A weight of a frozen layer stays in the first list; only its flag changes.
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def _unseen(weights: Sequence[Any], seen: set[int]) -> tuple[Any, ...]:
    return tuple(weight for weight in weights if id(weight) not in seen)
