"""Outputs of a layer inside a forward pass, recorded while the pass is traced.

During tracing, each layer has a temporary attribute `call` that records its outputs. This reaches
nested models, layers inside layers, and models with their own call method.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from ..errors import ModelError, OptionError, unknown_option
from .clone import list_layers
from .coverage import between
from .model_io import Forward, Model
from .subject import DEFAULT_LAYER

# Flat inputs -> (outputs, outputs of a layer).
LayerForward: TypeAlias = Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]
_Seen: TypeAlias = list[tuple[keras.layers.Layer, Any]]
_LISTED = 10


def with_layer_outputs(forward: Forward, callee: Model, layer: str, explained: int) -> LayerForward:
    """Return a forward pass that also returns the outputs of a layer.

    Parameters
    ----------
    forward
        The forward pass of callee.
    callee
        The model or its clone.
    layer
        The layer's name; DEFAULT_LAYER for the last one with spatial outputs.
    explained
        The index of the input that holds the images.

    Raises
    ------
    ModelError
        If no layer qualifies, or the score does not depend on the layer's outputs.
    OptionError
        If no layer or several layers have the name.
    """
    if not isinstance(callee, keras.Model):
        raise ModelError(
            "Expected a keras.Model, whose layers can be inspected, for a method that uses the "
            f"outputs of a layer. Received: {type(callee).__name__}."
        )
    layers = list({id(inner): inner for inner in list_layers(callee)}.values())

    def run(arrays: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        with _watched(layers) as seen:
            outputs = forward(arrays)
        return outputs, _chosen(seen, layers, layer, arrays[explained], outputs)

    return run


@contextmanager
def _watched(layers: Iterable[keras.layers.Layer]) -> Iterator[_Seen]:
    """Yield a list that records each layer call and its outputs, in order of execution."""
    seen: _Seen = []
    mine = threading.get_ident()  # another thread may call the model at the same time
    before = {id(layer): vars(layer).get("call") for layer in layers}

    def watch(layer: keras.layers.Layer) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            if threading.get_ident() == mine:
                seen.append((layer, outputs))
            return outputs

        return call

    try:
        for layer in layers:
            vars(layer)["call"] = watch(layer)
        yield seen
    finally:
        for layer in layers:
            own = before[id(layer)]
            if own is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own


def _chosen(
    seen: _Seen,
    layers: Sequence[keras.layers.Layer],
    name: str,
    images: tf.Tensor,
    outputs: tf.Tensor,
) -> tf.Tensor:
    path = set(between(images, outputs))
    spatial = [
        (layer, tensor)
        for layer, tensor in seen
        if isinstance(tensor, tf.Tensor) and tensor.op in path and _is_spatial(tensor, images)
    ]
    candidates = list(dict.fromkeys(layer.name for layer, _ in spatial))
    listed = ", ".join(reversed(candidates[-_LISTED:])) or "none"
    if name == DEFAULT_LAYER:
        if not spatial:
            raise ModelError(
                "Expected a layer that returns a grid of features on the way from the images to "
                f"the score, {images.shape.rank} axes with channels last and several positions. "
                f"Received: {_shapes(seen) or 'no layers'}. Choose another method."
            )
        return spatial[-1][1]
    of_name = [layer for layer in layers if layer.name == name]
    if not of_name:
        raise unknown_option("layer", name, reversed(candidates) if candidates else ["none"])
    if len(of_name) > 1:
        raise OptionError(
            f"Expected the name of one layer. Received: {name!r}, the name of "
            f"{len(of_name)} layers. Candidates, from last to first: {listed}."
        )
    found = [tensor for layer, tensor in spatial if layer is of_name[0]]
    if not found:
        raise ModelError(
            f"Expected a layer that returns one grid of features, {images.shape.rank} axes with "
            "channels last and several positions, on the way from the images to the score and "
            f"not inside a tf.function. Received: {name!r}, which returns "
            f"{_shapes([each for each in seen if each[0] is of_name[0]]) or 'nothing here'}. "
            f"Candidates, from last to first: {listed}."
        )
    return found[-1]


def _is_spatial(tensor: tf.Tensor, images: tf.Tensor) -> bool:
    if tensor.shape.rank != images.shape.rank or not tensor.dtype.is_floating:
        return False
    return any(size != 1 for size in tensor.shape[1:-1])


def _shapes(seen: _Seen) -> str:
    shapes = [
        f"{layer.name} {tuple(getattr(outputs, 'shape', None) or ())}" for layer, outputs in seen
    ]
    return ", ".join(reversed(shapes[-_LISTED:]))
