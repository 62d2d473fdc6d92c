"""The values that well-known networks were trained on, to notice a wrong preprocessing."""

from __future__ import annotations

from typing import Any

import keras

# The least and the largest value of a photo after each preprocessing of keras.applications.
_CAFFE = (-123.68, 255.0 - 103.939)
_TF = (-1.0, 1.0)
_TORCH = (-0.485 / 0.229, (1 - 0.406) / 0.225)
_RAW = (0.0, 255.0)

# By the beginning of a model's name in lower case; longer beginnings first.
_RANGES: dict[str, tuple[float, float]] = {
    "vgg": _CAFFE,
    "resnet50v2": _TF,
    "resnet101v2": _TF,
    "resnet152v2": _TF,
    "resnet": _CAFFE,
    "xception": _TF,
    "inception": _TF,
    "mobilenetv3": _RAW,
    "mobilenet": _TF,
    "densenet": _TORCH,
    "nasnet": _TF,
    "efficientnet": _RAW,
    "convnext": _RAW,
    "squeezenet": _CAFFE,
}
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)


def trained_range(model: Any) -> tuple[float, float] | None:
    """Return the least and the largest value that a model was trained on, None if not known.

    Known are SqueezeNet and the models of keras.applications, and models that give their input
    to one of these as it is. They are known by their names: one that was trained on something
    else cannot be told apart.

    >>> trained_range(keras.applications.MobileNetV2(weights=None))
    (-1.0, 1.0)
    """
    for candidate in (model, *_fed_directly(model)):
        if not isinstance(candidate, keras.Model):
            continue
        name = candidate.name.lower()
        for beginning, values in _RANGES.items():
            if name.startswith(beginning):
                scales = any(isinstance(layer, _SCALING) for layer in candidate.layers)
                return values if scales or values != _RAW else None
    return None


def _fed_directly(model: Any) -> list[Any]:
    """Return the nested models that get the model's input as it is."""
    if isinstance(model, keras.Sequential):
        return model.layers[:1]
    inputs = {id(tensor) for tensor in getattr(model, "inputs", None) or []}
    # The nodes of this model: a layer may have some in others, too.
    rows = getattr(model, "_nodes_by_depth", {}).values()
    nodes = [node for row in rows for node in row]
    return [n.operation for n in nodes if any(id(tensor) in inputs for tensor in n.input_tensors)]
