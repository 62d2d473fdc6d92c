"""Copies of layers and models with new random weights."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import keras

from ..engine.model_io import has_visible_layers
from ..errors import ModelError, OptionError, unknown_option
from ..tables import RandomizerName
from .randomizers import Randomizer, draw_weights, normal, resolve_randomizer
from .rebuild import copy_layer
from .units import Unit, list_units

_ORIGINAL = normal(0.01)


def randomize_layer(
    layer: keras.layers.Layer, *, randomizer: RandomizerName | Randomizer = _ORIGINAL, seed: int = 0
) -> keras.layers.Layer:
    """Return a copy of a built layer with new random weights.

    Parameters
    ----------
    layer
        A built layer or model; it is not changed. Layers inside it are randomized too.
    randomizer
        A key of RANDOMIZERS or a Randomizer; by default normal(0.01), weights and biases alike.
    seed
        The seed of the random numbers.

    Returns
    -------
    A layer of the same class, config and name, whose weights have the same shapes, (...).

    Raises
    ------
    OptionError
        If the randomizer is unknown, or the layer has no weights or cannot be copied by Keras.

    References
    ----------
    randomizeLearnableParameters of the MATLAB repository compare-gradient-attribution-maps.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> layer = keras.layers.Dense(100)
    >>> layer.build((None, 100))
    >>> bool(tfs.randomize_layer(layer).kernel.numpy().std() < 0.011)
    True
    """
    _check_layer(layer)
    fresh = copy_layer(layer)
    _assign(layer, fresh, range(len(list_units(layer))), resolve_randomizer(randomizer), seed)
    return fresh


def randomize_model_parameters(
    model: keras.Model,
    start: int | str,
    count: int = 0,
    *,
    randomizer: RandomizerName | Randomizer = _ORIGINAL,
    seed: int = 0,
) -> tuple[keras.Model, list[str]]:
    """Return a copy of a model with new random weights in some of its layers.

    Parameters
    ----------
    model
        A built Sequential or Functional model; it is not changed.
    start
        The first layer: an index into model.layers, or a name; "outer/inner" for a layer inside
        a nested model.
    count
        The number of following layers to randomize too, in the order of `layers` of the model that
        contains start. Layers without weights count, and are skipped.
    randomizer, seed
        As for randomize_layer.

    Returns
    -------
    The new model, and the names of the randomized layers, from input to output. Weights keep their
    shapes, (...).

    Raises
    ------
    OptionError
        If a layer or randomizer is unknown, count exceeds the number of layers, the layers have no
        weights, or Keras cannot copy the model.
    ModelError
        If the layers of the model cannot be inspected.

    References
    ----------
    parameterRandomization of the MATLAB repository compare-gradient-attribution-maps; Adebayo et
    al. 2018, arXiv:1810.03292.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...                           keras.layers.ReLU(), keras.layers.Dense(2, name="top")])
    >>> randomized, names = tfs.randomize_model_parameters(model, "hidden", count=2)
    >>> names
    ['hidden', 'top']
    """
    _check_layer(model)
    chosen = _layers_from(model, start, count)
    inside = {id(inner) for layer in chosen for inner in layer._flatten_layers()}
    units = list_units(model)
    positions = [position for position, unit in enumerate(units) if id(unit.layer) in inside]
    if not positions:
        raise OptionError(
            "Expected layers with weights to randomize. Received: "
            f"{', '.join(repr(layer.name) for layer in chosen)}, which have none."
        )
    fresh = copy_layer(model)
    _assign(model, fresh, positions, resolve_randomizer(randomizer), seed)
    return fresh, [units[position].path for position in positions]


def _assign(
    source: keras.layers.Layer,
    copy: Any,
    positions: Iterable[int],
    randomizer: Randomizer,
    seed: int,
) -> None:
    """Assign new weights to a copy, and check that only the intended layers differ."""
    units, copies = list_units(source), list_units(copy)
    if [_shapes(unit) for unit in units] != [_shapes(unit) for unit in copies]:
        raise OptionError(
            f"Keras's copy of {source.name!r} has other layers than the original. Expected "
            "layers that get_config describes. sanity_check needs no copy."
        )
    targeted = set()
    unchanged: list[str] = []
    for position in positions:
        drawn = draw_weights(units[position], randomizer, seed, position)
        unchanged += drawn.unchanged
        for weight, array in zip(copies[position].weights, drawn.arrays, strict=True):
            if array is not None:
                weight.assign(array)
                targeted.add(id(weight))
    differing = {
        id(new): not (old.numpy() == new.numpy()).all()
        for old, new in zip(source.weights, copy.weights, strict=True)
    }
    if any(differs for new, differs in differing.items() if new not in targeted):
        raise OptionError(f"Keras's copy of {source.name!r} has other weights than the original.")
    if not any(differing.values()):
        raise OptionError(
            f"The randomizer {randomizer.name!r} left all weights as they are: "
            f"{', '.join(unchanged)}. Expected weights that were trained, or a randomizer of more "
            "than one value."
        )


def _shapes(unit: Unit) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in unit.weights]


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Layer) or not list_units(layer):
        raise OptionError(
            "Expected a built Keras layer or model with weights to randomize. "
            f"Received: {layer!r:.100}."
        )


def _layers_from(model: keras.Model, start: int | str, count: int) -> list[keras.layers.Layer]:
    """Return the layer at start and the `count` layers that follow it in the same model."""
    holder = model
    if isinstance(start, str):
        *outer, name = start.split("/")
        for step in outer:
            holder = _visible(holder, start).layers[_index(holder, step)]
        index = _index(_visible(holder, start), name)
    else:
        index = _whole(start, "start")
    listed = _visible(holder, start).layers
    last = index + _whole(count, "count")
    if last >= len(listed):
        raise OptionError(
            f"Expected start and count within the {len(listed)} layers of {holder.name!r}. "
            f"Received: start={start!r} (layer {index}), count={count}."
        )
    return list(listed[index : last + 1])


def _whole(number: Any, what: str) -> int:
    try:
        value = -1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        value = -1
    if value < 0:
        raise OptionError(f"Expected {what} as a whole number from 0. Received: {number!r}.")
    return value


def _visible(model: Any, start: int | str) -> Any:
    if not isinstance(model, keras.Model) or not has_visible_layers(model):
        raise ModelError(
            f"Cannot inspect the layers of {model.name!r} in order. Expected a Sequential or "
            f"Functional model, and for start={start!r} a path through such models."
        )
    return model


def _index(model: keras.Model, name: str) -> int:
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise unknown_option(f"layer of {model.name!r}", name, names)
    return names.index(name)
