"""Outputs of a layer inside a forward pass, recorded while the pass is traced.

During tracing, each layer has a temporary attribute `call` that records its outputs. This reaches
nested models, layers inside layers, and models with their own call method.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from ..errors import ModelError
from .cells import LayerChoice
from .layer_choice import LayerCall, choose_layer
from .layer_names import named_layers, path_of
from .model_io import Forward, Model
from .subject import LayerRequest


class LayerForward:
    """A forward pass that also returns the outputs of a layer.

    Calling it in a graph, with flat inputs, returns (outputs, tensors of the layer); there are
    several tensors if the layer is called once for each frame of a sequence. Then `choice` tells
    the layer and the places of its cells.

    Parameters
    ----------
    forward
        The forward pass of callee.
    model
        The caller's model, which names the layers.
    callee
        The model or its clone.
    request
        The layer.
    explained
        The index of the input that holds the images.

    Raises
    ------
    GeometryError
        When it is called: if no layer qualifies, or not the named one.
    OptionError
        When it is called: if no layer or several layers have the name.
    """

    choice: LayerChoice

    def __init__(
        self, forward: Forward, model: Model, callee: Model, request: LayerRequest, explained: int
    ) -> None:
        if not isinstance(callee, keras.Model):
            raise ModelError(
                "Expected a keras.Model, whose layers can be inspected, for a method that uses the "
                f"outputs of a layer. Received: {type(callee).__name__}."
            )
        self._forward, self._explained = forward, explained
        self._layers = named_layers(callee)
        if request.layer is not None:
            request = request._replace(layer=path_of(model, request.layer))
        self._request = request

    def __call__(self, arrays: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Return the outputs of the model, and the tensors of the layer."""
        with _watched(self._layers) as calls:
            outputs = self._forward(arrays)
        self.choice, tensors = choose_layer(
            calls, self._layers, self._request, arrays[self._explained], outputs
        )
        return outputs, tensors


@contextmanager
def _watched(layers: Sequence[tuple[str, keras.layers.Layer]]) -> Iterator[list[LayerCall]]:
    """Yield a list that records each layer call and its outputs, in order of execution."""
    seen: list[LayerCall] = []
    active: list[int] = []  # the numbers of the calls that have not returned
    mine = threading.get_ident()  # another thread may call the model at the same time
    before = {id(layer): vars(layer).get("call") for _, layer in layers}
    started = 0

    def watch(path: str, layer: keras.layers.Layer) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal started
            if threading.get_ident() != mine:
                return original(*args, **kwargs)
            number, first = started, _operations()
            started += 1
            active.append(number)
            try:
                outputs = original(*args, **kwargs)
            finally:
                active.pop()
            seen.append(LayerCall(path, layer, outputs, number, (*active,), first, _operations()))
            return outputs

        return call

    try:
        for path, layer in layers:
            vars(layer)["call"] = watch(path, layer)
        yield seen
    finally:
        for _, layer in layers:
            own = before[id(layer)]
            if own is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own


def _operations() -> int:
    """Return the number of operations in the graph being traced."""
    return len(tf.compat.v1.get_default_graph().get_operations())
