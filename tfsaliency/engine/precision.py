"""A forward pass whose layers compute in another precision than the model's own.

Layers are given another dtype policy while the pass is traced, and only then: weights stay as they
are, and are cast where they are read. That reaches nested models, layers inside layers, and models
with a call of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import keras
import tensorflow as tf

from ..errors import ModelError, TfSaliencyError
from .clone import list_layers
from .model_io import Forward, Model, has_visible_layers

Precision = Literal["bfloat16"]
PRECISIONS = ("bfloat16",)


class _InOneThread(keras.dtype_policies.DTypePolicy):
    """The dtype policy of a layer that computes in another precision where it is traced."""

    def __init__(self, layer: keras.layers.Layer, precision: str) -> None:
        super().__init__(layer.variable_dtype)
        self._own, self._precision = layer.compute_dtype, precision
        self._thread = threading.get_ident()

    @property
    def compute_dtype(self) -> str:
        """What the layer computes in; its own dtype for other threads, which may call it, too."""
        mine = threading.get_ident() == self._thread
        return self._precision if mine else self._own


def lower_precision(precision: str, forward: Forward, callee: Model) -> Forward:
    """Return a forward pass of the layers of callee in a precision.

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
        If callee has no layers, or they cannot compute in it, as quantized ones.
    """
    if not isinstance(callee, keras.Model):
        raise ModelError(
            f"Expected a keras.Model, whose layers can be told to compute in {precision}. "
            f"Received: {type(callee).__name__}. Prepare it without precision."
        )
    layers = [layer for layer in (callee, *list_layers(callee)) if not has_visible_layers(layer)]
    quantized = [layer.name for layer in layers if layer.dtype_policy.quantization_mode]
    if quantized:
        raise ModelError(
            f"Expected layers that compute in floating point, to be told to in {precision}. "
            f"Received: quantized ones, {', '.join(quantized[:5])}. Prepare the model without "
            "precision."
        )
    # What computes in integers, such as an embedding of tokens, goes on to.
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
                    f"{' '.join(str(error).split())[:300]} Expected layers that follow their dtype "
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
