"""Input ranges of well-known networks, to detect wrong preprocessing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import keras

# The range of a photo's values after each preprocessing.
_CAFFE = (-123.68, 255.0 - 103.939)
_TF = (-1.0, 1.0)
_TORCH = (-0.485 / 0.229, (1 - 0.406) / 0.225)
_RAW = (0.0, 255.0)
_LITE = (-127.0 / 128.0, 1.0)

# By the complete name of a model, in lower case.
_RANGES: dict[str, tuple[float, float]] = {
    r"vgg(16|19)": _CAFFE,
    r"resnet(50|101|152)": _CAFFE,
    r"resnet(50|101|152)v2": _TF,
    r"xception": _TF,
    r"inception_(v3|resnet_v2)": _TF,
    r"mobilenet(v2)?_\d\.\d+_\d+": _TF,
    r"mobilenetv3(small|large)": _RAW,
    r"densenet(121|169|201)": _TORCH,
    r"nasnet(_mobile|_large|mobile|large)?": _TF,
    r"efficientnet(b\d|v2-(b\d|s|m|l))": _RAW,
    r"convnext_(tiny|small|base|large|xlarge)": _RAW,
    r"squeezenet": _CAFFE,
    r"efficientnet_lite0": _LITE,
}
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)


def find_trained_range(model: Any, index: int = 0) -> tuple[float, float] | None:
    """Return the range of values on which a model was trained; None if unknown.

    It knows the networks of this package and of keras.applications, and models that pass their
    input to one of these unchanged. Networks are identified by their names, so a network that was
    retrained on another range is not detected.

    Parameters
    ----------
    model
        A Keras model; other models are unknown.
    index
        The index of the input.

    >>> find_trained_range(keras.applications.MobileNetV2(weights=None))
    (-1.0, 1.0)
    """
    for candidate in _candidates(model, index):
        if not isinstance(candidate, keras.Model):
            continue
        values = _of_name(candidate.name.lower())
        if values is not None:
            scales = any(isinstance(layer, _SCALING) for layer in candidate.layers)
            return values if scales or values != _RAW else None
    return None


@functools.cache
def _of_name(name: str) -> tuple[float, float] | None:
    found = (values for pattern, values in _RANGES.items() if re.fullmatch(pattern, name))
    return next(found, None)


def _candidates(model: Any, index: int) -> Iterator[Any]:
    yield model
    yield from _fed_directly(model, index)


def _fed_directly(model: Any, index: int) -> list[Any]:
    """Return the nested models that receive one of the model's inputs unchanged."""
    if isinstance(model, keras.Sequential):
        return model.layers[:1]
    inputs = (getattr(model, "inputs", None) or [])[index : index + 1]
    # The nodes of this model; a layer may also have nodes in others.
    rows = getattr(model, "_nodes_by_depth", {}).values()
    nodes = [node for row in rows for node in row]
    return [n.operation for n in nodes if any(t is i for t in n.input_tensors for i in inputs)]
