"""Calls of layers, recorded while a forward pass is traced.

During tracing, each layer has a temporary attribute `call` that records its outputs. This reaches
nested models, layers inside layers, and models with their own call method.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from .layer_names import NamedLayer


class LayerCall(NamedTuple):
    """A call of a layer while a model was traced.

    Parameters
    ----------
    path, layer
        The layer.
    outputs
        Its outputs, of any structure.
    number, inside
        The number of the call, and the numbers of the calls that it is inside of.
    first, end
        The range of its operations in the graph.
    """

    path: str
    layer: keras.layers.Layer
    outputs: Any
    number: int
    inside: tuple[int, ...]
    first: int
    end: int


Call: TypeAlias = Callable[..., Any]


@contextmanager
def with_calls(
    layers: Sequence[keras.layers.Layer], replace: Callable[[Any, Call], Call]
) -> Iterator[None]:
    """Give layers another call, made by a function of the layer and its own call, for a while.

    Other threads, which may call the model at the same time, and other graphs get the layer's own,
    such as a tf.function in the model, which runs only if it has no trace for the shapes of its
    inputs. Under the lock `kept_traces.tracing`, so that the calls of two traces do not mix.
    """
    graph, thread = tf.compat.v1.get_default_graph(), threading.get_ident()

    def call_of(own: Call, other: Call) -> Call:
        @functools.wraps(own)
        def call(*args: Any, **kwargs: Any) -> Any:
            here = tf.compat.v1.get_default_graph() is graph and threading.get_ident() == thread
            return (other if here else own)(*args, **kwargs)

        return call

    unique = list({id(layer): layer for layer in layers}.values())
    before = [vars(layer).get("call") for layer in unique]
    try:
        for layer in unique:
            vars(layer)["call"] = call_of(layer.call, replace(layer, layer.call))
        yield
    finally:
        for layer, own in zip(unique, before, strict=True):
            if own is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own


@contextmanager
def watched(layers: Sequence[NamedLayer]) -> Iterator[list[LayerCall]]:
    """Yield a list that records each layer call and its outputs, in the order of their end.

    Calls in other threads and graphs are left out.
    """
    seen: list[LayerCall] = []
    active: list[int] = []  # the numbers of the calls that have not returned
    paths = {id(layer): path for path, layer in layers}
    started = 0

    def watch(layer: keras.layers.Layer, original: Call) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal started
            number, first = started, _operations()
            started += 1
            active.append(number)
            try:
                outputs = original(*args, **kwargs)
            finally:
                active.pop()
            end = _operations()
            seen.append(LayerCall(paths[id(layer)], layer, outputs, number, (*active,), first, end))
            return outputs

        return call

    with with_calls([layer for _, layer in layers], watch):
        yield seen


def _operations() -> int:
    """Return the number of operations in the graph being traced."""
    return len(tf.compat.v1.get_default_graph().get_operations())
