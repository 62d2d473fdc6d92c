"""Fingerprints of a model's attributes, to detect when a cached trace is stale.

Weights are variables, and those are read at every call. Everything else about a layer is written
into a trace as it is: an activation, a slope, a statistic. The attributes of a Functional model
change when it is compiled or fitted, and say nothing about its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import ref

import keras
import numpy as np

from .model_io import Model, has_visible_layers

_PLAIN = frozenset((int, float, str, bool, bytes, complex, type(None)))


def _names_of_keras() -> frozenset[str]:
    """Return what Keras keeps in every layer for itself: lists of weights, losses and nodes."""
    layer = keras.layers.Layer(name="tfsaliency")
    layer.inner = keras.layers.Layer(name="tfsaliency")  # TensorFlow adds what it needs to track it
    own = {"inner", "autocast", "_dtype_policy"}
    return frozenset(vars(layer)) - own


_KERAS_OWN = _names_of_keras()


class _Attributes(NamedTuple):
    """The attributes of one layer.

    Parameters
    ----------
    total
        How many there are, Keras's own included.
    values
        vars(layer) -> the values of those that are not.
    ids
        Their ids.
    fixed
        Whether they are the same as long as the ids are: none is a list or a dict.
    described
        What tells each from another.
    """

    total: int
    values: Callable[[dict[str, Any]], tuple[Any, ...]]
    ids: tuple[int, ...]
    fixed: bool
    described: list[Any]

    def are_of(self, layer: keras.layers.Layer) -> bool:
        """Tell whether a layer has them now."""
        attributes = vars(layer)
        if self.fixed and len(attributes) == self.total:
            with suppress(KeyError):
                if tuple(map(id, self.values(attributes))) == self.ids:
                    return True
        return _describe(attributes)[0] == self.described


class Fingerprint:
    """The attributes of all layers of a model. It keeps no model alive.

    They are looked at in every call, and so by their ids first. An id may come again, but not while
    its object is alive: numbers and texts are kept, and of objects there are weak references, where
    there can be.
    """

    def __init__(self, model: Model) -> None:
        self._layers: list[_Attributes] = []
        self._kept: list[Any] = []
        self._objects: list[ref[Any]] = []
        for layer in _layers_of(model):
            attributes = vars(layer)
            names = [name for name in attributes if name not in _KERAS_OWN]
            values = itemgetter(*names, *names[-1:])  # two at least, or it returns no tuple
            present = values(attributes)
            described, objects = _describe(attributes)
            fixed = all(_is_fixed(value) or _is_object(value) for value in present)
            ids = tuple(map(id, present))
            self._layers.append(_Attributes(len(attributes), values, ids, fixed, described))
            self._kept.extend(value for value in present if _is_fixed(value))
            for each in objects:
                if isinstance(each, np.generic):
                    self._kept.append(each)
                    continue
                with suppress(TypeError):  # not everything can be referred to
                    self._objects.append(ref(each))

    def matches(self, model: Model) -> bool:
        """Tell whether a model has these attributes now."""
        layers = list(_layers_of(model))
        return (
            len(layers) == len(self._layers)
            and all(own.are_of(layer) for own, layer in zip(self._layers, layers, strict=True))
            and all(each() is not None for each in self._objects)
        )


def _layers_of(model: Model) -> Iterator[keras.layers.Layer]:
    for layer in model._flatten_layers() if isinstance(model, keras.Model) else ():
        if not isinstance(layer, keras.Model) or not has_visible_layers(layer):
            yield layer


def _is_fixed(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_fixed, value))
    return type(value) in _PLAIN


def _is_object(value: Any) -> bool:
    return not isinstance(value, (dict, list, tuple))


def _describe(attributes: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return what tells attributes from others, and the objects that are in it by their ids."""
    found: list[Any] = []
    objects: list[Any] = []
    for name, value in attributes.items():
        if name not in _KERAS_OWN:
            _append(found, objects, value)
    return found, objects


def _append(found: list[Any], objects: list[Any], value: Any, depth: int = 2) -> None:
    """Append a number or a text, what is in a container, or the id of an object."""
    if type(value) in _PLAIN:
        found.append(value)
    elif depth and not _is_object(value):
        found.append(len(value))
        for item in value.items() if isinstance(value, dict) else value:
            _append(found, objects, item, depth if type(value) is tuple else depth - 1)
    else:
        found.append(id(value))
        objects.append(value)
