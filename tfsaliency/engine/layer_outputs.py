"""Forward passes that also return the outputs of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from ..errors import ModelError
from .cells import LayerChoice
from .clone import forget_custom_gradients
from .functions import Model
from .layer_calls import watched
from .layer_choice import choose_layer
from .layer_names import named_layers, path_of
from .model_io import Forward
from .subject import LayerRequest, Subject

# The batch size in the graph that is searched: a prime, so that no other axis is taken for it.
IMAGES = 1009


class LayerForward:
    """A forward pass that also returns the outputs of a layer.

    Calling it in a graph, with flat inputs, returns (outputs, tensors of the layer); there are
    several tensors if the layer is called once for each frame of a sequence. The layer is chosen in
    a graph of its own, where all shapes are known.

    Parameters
    ----------
    forward
        The forward pass of callee.
    callee
        The model or its clone.
    subject
        The subject of the differentiation, with the caller's model and the layer.

    Attributes
    ----------
    choice
        The layer and the places of its cells.

    Raises
    ------
    GeometryError
        If no layer qualifies, or not the named one.
    OptionError
        If no layer or several layers have the name.
    """

    def __init__(self, forward: Forward, callee: Model, subject: Subject) -> None:
        request = subject.layer or LayerRequest()
        if not isinstance(callee, keras.Model):
            raise ModelError(
                "Expected a keras.Model, whose layers can be inspected, for a method that uses the "
                f"outputs of a layer. Received: {type(callee).__name__}."
            )
        if request.layer is not None:
            request = request._replace(layer=path_of(subject.model, request.layer))
        self._forward, self._layers = forward, named_layers(callee)
        found: list[tuple[LayerChoice, tuple[int, ...]]] = []

        def search(*arrays: tf.Tensor) -> tf.Tensor:
            with watched(self._layers) as calls:
                outputs = forward(arrays)
            images = arrays[subject.inputs.explained]
            found.append(choose_layer(calls, self._layers, request, images, outputs))
            return outputs

        n = subject.inputs.batch or IMAGES
        specs = [tf.TensorSpec((n, *spec.shape[1:]), spec.dtype) for spec in subject.specs]
        traced = tf.function(search, autograph=False).get_concrete_function(*specs)
        forget_custom_gradients(traced.graph)
        ((self.choice, self._numbers),) = found

    def __call__(self, arrays: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Return the outputs of the model, and the tensors of the layer."""
        with watched(self._layers) as calls:
            outputs = self._forward(arrays)
        by_number = {call.number: call.outputs for call in calls}
        return outputs, tuple(by_number[number] for number in self._numbers)
