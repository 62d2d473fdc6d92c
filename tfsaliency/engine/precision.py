"""A forward pass whose layers compute in another precision than the model's own.

Only during tracing, layers have another dtype policy. Weights are unchanged, and cast when they are
read. This reaches nested models, layers inside layers, and models with their own call method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import keras
import tensorflow as tf

from ..errors import ModelError, TfSaliencyError, one_line
from .functions import Model
from .layer_names import named_layers
from .model_io import Forward, has_visible_layers

Precision = Literal["bfloat16"]
PRECISIONS = ("bfloat16",)


class _InOneThread(keras.dtype_policies.DTypePolicy):
    """The dtype policy of a layer in the thread that traces it in another precision."""

    def __init__(self, layer: keras.layers.Layer, precision: str) -> None:
        super().__init__(layer.variable_dtype)
        self._own, self._precision = layer.compute_dtype, precision
        self._thread = threading.get_ident()

    @property
    def compute_dtype(self) -> str:
        """The compute dtype; in other threads, which may also call the layer, its own."""
        mine = threading.get_ident() == self._thread
        return self._precision if mine else self._own


def lower_precision(precision: str, forward: Forward, callee: Model) -> Forward:
    """Return a forward pass whose layers compute in a precision.

    Parameters
    ----------
    precision
        One of PRECISIONS.
    forward
        The forward pass of callee.
    callee
        The model or its clone.

    Raises
    ------
    ModelError
        If callee has no layers, or they cannot compute in the precision, such as quantized ones.
    """
    if not isinstance(callee, keras.Model):
        raise ModelError(
            f"Expected a keras.Model, whose layers can compute in {precision}. "
            f"Received: {type(callee).__name__}. Prepare it without precision."
        )
    every = [callee, *(layer for _, layer in named_layers(callee))]
    layers = [layer for layer in every if not has_visible_layers(layer)]
    quantized = [layer.name for layer in layers if layer.dtype_policy.quantization_mode]
    if quantized:
        raise ModelError(
            f"Expected layers of floating point, to compute in {precision}. "
            f"Received: quantized ones, {', '.join(quantized[:5])}. Prepare the model without "
            "precision."
        )
    # Layers that compute in integers, such as an embedding of tokens, are left alone.
    floating = [layer for layer in layers if tf.as_dtype(layer.compute_dtype).is_floating]

    def run(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        with _lowered(floating, precision):
            try:
                return forward(arrays)
            except TfSaliencyError:
                raise
            except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
                raise ModelError(
                    f"The model's layers cannot compute in {precision}: "
                    f"{one_line(error)} Expected layers that follow their dtype "
                    "policy. Prepare the model without precision."
                ) from error

    return run


@contextmanager
def _lowered(layers: Sequence[keras.layers.Layer], precision: str) -> Iterator[None]:
    unique = {id(layer): layer for layer in layers}.values()
    own = [(layer, vars(layer)["_dtype_policy"]) for layer in unique]
    try:
        for layer in unique:
            vars(layer)["_dtype_policy"] = _InOneThread(layer, precision)
        yield
    finally:
        for layer, policy in own:
            vars(layer)["_dtype_policy"] = policy
