"""Fingerprints of a model's attributes, to detect when a cached trace is stale.

A trace reads weights at every call, but everything else about a layer is constant in it: an
activation, a slope, a statistic, an array. Arrays are compared by a digest of their bytes, and
objects of the caller's own classes by their attributes, to a bounded depth. What Python does not
show as an attribute is not seen: globals, closures, and objects inside those. The attributes of a
Functional model itself are ignored: they change when it is compiled or fitted, and do not affect
its graph.
"""

from __future__ import annotations

import array
import functools
import hashlib
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import keras
import numpy as np
import tensorflow as tf

from .functions import Model
from .model_io import has_visible_layers

_PLAIN = frozenset((int, float, str, bool, bytes, complex, type(None)))
_BYTES = (bytearray, array.array)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_DEPTH = 4  # of containers and objects inside each other
_opaque: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
# Compared by identity: their attributes do not affect a trace, or are read at each call.
_OPAQUE = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType,
    keras.Model, keras.Variable, tf.Variable,
)  # fmt: skip
_OPAQUE_PACKAGES = ("keras", "tensorflow", "threading", "builtins", "functools")


def _names_of_keras() -> frozenset[str]:
    """Return the names of Keras's own attributes: lists of weights, losses and nodes."""
    layer = keras.layers.Layer(name="tfsaliency")
    layer.inner = keras.layers.Layer(name="tfsaliency")  # adds TensorFlow's tracking attributes
    own = {"inner", "autocast", "_dtype_policy"}
    return frozenset(vars(layer)) - own


_KERAS_OWN = _names_of_keras()


class _Attributes(NamedTuple):
    """The attributes of one layer.

    Parameters
    ----------
    total
        The number of attributes, with Keras's own.
    values
        Function from vars(layer) to the values of the other attributes.
    ids
        Their ids.
    fixed
        Whether equal ids mean equal values: no value can change in place.
    described
        Descriptions that distinguish the values.
    """

    total: int
    values: Callable[[dict[str, Any]], tuple[Any, ...]]
    ids: tuple[int, ...]
    fixed: bool
    described: list[Any]

    def are_of(self, layer: keras.layers.Layer) -> bool:
        """Return whether a layer has these attributes now."""
        attributes = vars(layer)
        if self.fixed and len(attributes) == self.total:
            with suppress(KeyError):
                if tuple(map(id, self.values(attributes))) == self.ids:
                    return True
        return _describe(layer)[0] == self.described


class Fingerprint:
    """The attributes of all layers of a model, without a reference to the model.

    Every call compares them, first by their ids. An id is unique only while its object is alive:
    the fingerprint keeps numbers and strings, and weak references to objects where possible.
    """

    def __init__(self, model: Model) -> None:
        self._layers: list[_Attributes] = []
        self._kept: list[Any] = []
        self._objects: list[ref[Any]] = []
        for layer in _layers_of(model):
            attributes = vars(layer)
            names = [name for name in attributes if name not in _KERAS_OWN]
            # At least two names, so that it returns a tuple.
            values = itemgetter(*names, names[-1]) if names else _nothing
            present = values(attributes)
            described, objects = _describe(layer)
            fixed = all(_is_fixed(value) or _is_opaque(value) for value in present)
            fixed = fixed and not _attributes(type(layer))
            ids = tuple(map(id, present))
            self._layers.append(_Attributes(len(attributes), values, ids, fixed, described))
            self._kept.extend(value for value in present if _is_fixed(value))
            for each in objects:
                if isinstance(each, np.generic):
                    self._kept.append(each)
                    continue
                with suppress(TypeError):  # some objects have no weak references
                    self._objects.append(ref(each))

    def matches(self, model: Model) -> bool:
        """Return whether a model has these attributes now."""
        layers = list(_layers_of(model))
        return (
            len(layers) == len(self._layers)
            and all(own.are_of(layer) for own, layer in zip(self._layers, layers, strict=True))
            and all(each() is not None for each in self._objects)
        )


def _nothing(attributes: dict[str, Any]) -> tuple[Any, ...]:
    return ()


def _layers_of(model: Model) -> Iterator[Any]:
    """Yield the layers of a model, and the operations of the caller that are no layers."""
    for layer in model._flatten_layers() if isinstance(model, keras.Model) else ():
        visible = isinstance(layer, keras.Model) and has_visible_layers(layer)
        if not visible:
            yield layer
        for operation in getattr(layer, "operations", ()) if visible else ():
            if not isinstance(operation, keras.layers.Layer) and _is_own(type(operation)):
                yield operation


def _is_fixed(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_fixed, value))
    return type(value) in _PLAIN


def _is_opaque(value: Any) -> bool:
    """Return whether a value is compared by its identity alone."""
    return not _is_own(value) if isinstance(value, type) else _is_opaque_kind(type(value))


def _is_opaque_kind(kind: type) -> bool:
    if kind not in _opaque:
        _opaque[kind] = _find_opaque(kind)
    return _opaque[kind]


def _find_opaque(kind: type) -> bool:
    changing = (np.ndarray, *_BYTES, *_CONTAINERS, functools.partial, types.MethodType)
    if issubclass(kind, changing):
        return False
    has_parts = hasattr(kind, "__dictoffset__") and kind.__dictoffset__ != 0
    own = _is_own(kind) and (has_parts or hasattr(kind, "__slots__"))
    return not own or issubclass(kind, _OPAQUE)


def _parts(value: Any) -> dict[str, Any]:
    """Return what a value consists of, by name."""
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "options": dict(value.keywords)}
    if isinstance(value, types.MethodType):
        owner = value.__self__
        return {"function": value.__func__, "owner": None if _is_opaque(owner) else owner}
    return _attributes(value)


def _is_own(kind: type) -> bool:
    """Return whether a class is one of the caller's."""
    return kind.__module__.partition(".")[0] not in _OPAQUE_PACKAGES


def _own_kinds(kind: type) -> list[type]:
    """Return a class and its bases, as far as they are the caller's."""
    return list(filter(_is_own, kind.__mro__)) if _is_own(kind) else []


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object or a class of the caller."""
    if isinstance(value, type):
        return {
            name: each
            for kind in _own_kinds(value)
            for name, each in list(vars(kind).items())
            if not name.startswith("__")
        }
    slots = {
        name: getattr(value, _mangled(kind, name), None)
        for kind in type(value).__mro__
        for name in _slots(kind)
        if name not in ("__dict__", "__weakref__")
    }
    held = getattr(value, "__dict__", {})
    if isinstance(value, keras.Operation):
        held = {name: each for name, each in held.items() if name not in _KERAS_OWN}
    return {**slots, **held}


def _slots(kind: type) -> tuple[str, ...]:
    slots = getattr(kind, "__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _mangled(kind: type, name: str) -> str:
    """Return the name under which Python keeps a private attribute of a class."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if private else name


def _describe(layer: keras.layers.Layer) -> tuple[list[Any], list[Any]]:
    """Return descriptions of a layer's attributes, and the objects that they identify by id."""
    found: list[Any] = []
    objects: list[Any] = []
    for name, value in [*vars(layer).items(), *_attributes(type(layer)).items()]:
        if name not in _KERAS_OWN:
            _append(found, objects, value)
    return found, objects


def _append(found: list[Any], objects: list[Any], value: Any, depth: int = _DEPTH) -> None:
    """Append the description of a value: a number, a string, a digest, its items, or an id."""
    if type(value) in _PLAIN:
        found.append(value)
    elif isinstance(value, _BYTES):
        found.append(bytes(value))
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            _append(found, objects, value.tolist(), depth)
        digest = hashlib.sha1(value.tobytes(), usedforsecurity=False)
        found.append((value.dtype.str, value.shape, digest.digest()))
    elif depth and isinstance(value, (set, frozenset)):
        found.append(sorted(map(repr, value)))
    elif type(value) is tuple or (depth and isinstance(value, _CONTAINERS)):
        found.append(len(value))
        for item in value.items() if isinstance(value, dict) else value:
            _append(found, objects, item, depth if type(value) is tuple else depth - 1)
    elif depth and not _is_opaque(value):
        found.append(id(value))
        objects.append(value)
        for name, item in _parts(value).items():
            found.append(name)
            _append(found, objects, item, depth - 1)
    else:
        found.append(id(value))
        objects.append(value)
