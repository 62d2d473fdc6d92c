"""Names of layers: each layer of a model by its path, "outer/inner"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import keras

from ..errors import OptionError, unknown_option
from .clone import Borrowed
from .model_io import has_visible_layers

NamedLayer: TypeAlias = tuple[str, keras.layers.Layer]  # a path and its layer


def named_layers(model: keras.Model) -> list[NamedLayer]:
    """Return the layers of a model or of its clone by path, in order of execution, each once.

    Operations of a Functional model, such as a sum, count as layers. A path that occurs again has
    a number, "outer/inner#2".
    """
    seen: dict[str, int] = {}
    named = []
    for path, layer in _walk(model, "", {id(model)}):
        seen[path] = seen.get(path, 0) + 1
        named.append((f"{path}#{seen[path]}" if seen[path] > 1 else path, layer))
    return named


def _walk(outer: keras.layers.Layer, path: str, seen: set[int]) -> Iterator[NamedLayer]:
    for operation in _children(outer):
        inner = operation.operation if isinstance(operation, Borrowed) else operation
        if id(inner) not in seen:
            seen.add(id(inner))
            name = f"{path}/{inner.name}" if path else inner.name
            yield name, inner
            if isinstance(inner, keras.layers.Layer):
                yield from _walk(inner, name, seen)


def _children(layer: keras.layers.Layer) -> list[Any]:
    if has_visible_layers(layer):
        return list(getattr(layer, "operations", layer.layers))
    return list(layer._flatten_layers(include_self=False, recursive=False))


def path_of(model: keras.Model, layer: Any) -> str:
    """Return the path or the name of a layer, given as such, by its index, or as an object.

    Raises
    ------
    OptionError
        If it is no layer of the model.
    """
    if isinstance(layer, str):
        return layer
    if isinstance(layer, Integral):
        count, index = len(model.layers), int(layer)
        if not -count <= index < count:
            raise OptionError(f"Expected the index of one of {count} layers. Received: {layer}.")
        layer = model.layers[index]
    for path, each in named_layers(model):
        if each is layer:
            return path
    raise OptionError(
        f"Expected a layer of the model {model.name!r}. Received: {layer.name!r}, which is not "
        "inside it. Use the layer's name, or take the layer from model.layers."
    )


def find_named(layers: Sequence[NamedLayer], name: str, best: Sequence[str]) -> list[NamedLayer]:
    """Return the layers of a path or a name.

    Parameters
    ----------
    layers
        The layers by path.
    name
        The path, or the name of one or several layers.
    best
        The paths to suggest.

    Raises
    ------
    OptionError
        If there is none.
    """
    found = [each for each in layers if each[0] == name]
    found = found or [each for each in layers if each[1].name == name]
    if not found:
        raise unknown_option("layer", name, best or ["none"])
    return found
