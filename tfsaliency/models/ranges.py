"""Input ranges on which networks were trained, to detect wrong preprocessing."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from ..arrays import Array

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
# Layers that keep the range of values.
_KEEPING = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.CenterCrop,
    keras.layers.Cropping2D,
    keras.layers.Resizing,
    keras.layers.ZeroPadding2D,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
)
_STANDARD = (_RAW, (0.0, 1.0), (-1.0, 1.0))
_NEAR = 0.02  # of the range
_MARGIN = 0.1  # of the range
_DEVIATIONS, _REACH = 2.0, 100.0  # standard deviations of a Normalization: usual, and beyond
# The least variation: of the range of networks by name, whose preprocessing may be done twice, and
# in standard deviations.
_LEAST_BY_NAME, _LEAST_DEVIATIONS = 0.02, 0.08


class TrainedRange(NamedTuple):
    """The values on which a network was trained.

    Parameters
    ----------
    low, high
        The usual range.
    margin
        Distance from it at which values are unusual.
    least
        Variation of all images below which they are unusual.
    small
        An image that varies within -small to small is unusual: as in [0, 1] instead of [0, 255].
    """

    low: float
    high: float
    margin: float
    least: float
    small: float = 0.0


class _Affine(NamedTuple):
    """The function scale * x + offset of the values of an image, for each channel or all."""

    scale: Array
    offset: Array

    def then(self, scale: Any, offset: Any) -> _Affine:
        """Return this function followed by another."""
        return _Affine(self.scale * np.asarray(scale), self.offset * scale + np.asarray(offset))

    def before(self, low: Any, high: Any, margin: Any, least: Any) -> TrainedRange | None:
        """Return the range of values before the function, for a range behind it."""
        if not np.all(self.scale):
            return None
        try:
            ends = [(np.asarray(end) - self.offset) / self.scale for end in (low, high)]
            widths = [np.abs(np.asarray(width) / self.scale) for width in (margin, least)]
        except ValueError:  # of other axes
            return None
        lowest, highest = float(np.min(ends)), float(np.max(ends))
        return TrainedRange(lowest, highest, float(np.max(widths[0])), float(np.min(widths[1])))


def find_trained_range(model: Any, index: int = 0) -> TrainedRange | None:
    """Return the range of values on which a model was trained; None if unknown.

    It is known for the networks of this package and of keras.applications, and from the Rescaling
    and Normalization layers at the start of a model, also in front of these networks. Networks are
    identified by their names, so one that was retrained on another range is not detected.

    Parameters
    ----------
    model
        A Keras model; other models are unknown.
    index
        The index of the input.

    >>> find_trained_range(keras.applications.MobileNetV2(weights=None))[:2]
    (-1.0, 1.0)
    >>> find_trained_range(keras.Sequential([keras.Input((8, 8, 3)),
    ...                                      keras.layers.Rescaling(1 / 255)]))[:2]
    (0.0, 255.0)
    """
    applied = _Affine(np.ones(()), np.zeros(()))
    for layer in _first_layers(model, index):
        if isinstance(layer, keras.Model):
            values = _of_name(layer.name.lower())
            if values is None:
                continue
            if (applied.scale != 1).any():  # whoever scales images for it knows their range
                break
            scales = any(isinstance(inner, _SCALING) for inner in layer.layers)
            span = values[1] - values[0]
            known = TrainedRange(*values, _MARGIN * span, _LEAST_BY_NAME * span)
            return known if scales or values != _RAW else None
        if isinstance(layer, keras.layers.Rescaling):
            applied = applied.then(layer.scale, layer.offset)
        elif isinstance(layer, keras.layers.Normalization):
            return _of_normalization(layer, applied)
        elif not isinstance(layer, _KEEPING) and not type(layer).__name__.startswith("Random"):
            break
    return None if (applied.scale == 1).all() else _standard(applied)


def _of_normalization(layer: Any, applied: _Affine) -> TrainedRange | None:
    """Return the range of a few standard deviations around the mean of a Normalization."""
    if layer.mean is None or layer.invert:
        return None
    mean, deviation = np.ravel(layer.mean), np.sqrt(np.ravel(layer.variance))
    if not deviation.all():
        return None
    usual = _DEVIATIONS * deviation
    return applied.before(
        mean - usual, mean + usual, _REACH * deviation, _LEAST_DEVIATIONS * deviation
    )


def _standard(applied: _Affine) -> TrainedRange | None:
    """Return the usual range of images that a function takes to another usual range."""
    for low, high in _STANDARD:
        ends = applied.scale * low + applied.offset, applied.scale * high + applied.offset
        for standard in _STANDARD:
            near = _NEAR * (standard[1] - standard[0])
            if all(np.abs(e - s).max() < near for e, s in zip(ends, standard, strict=True)):
                small = 1.0 if (low, high) == _RAW else 0.0
                return TrainedRange(low, high, _MARGIN * (high - low), 0.0, small)
    return None


@functools.cache
def _of_name(name: str) -> tuple[float, float] | None:
    found = (values for pattern, values in _RANGES.items() if re.fullmatch(pattern, name))
    return next(found, None)


def _first_layers(model: Any, index: int) -> Iterator[Any]:
    """Yield a model and the layers that change its input one after the other, also nested ones."""
    if not isinstance(model, keras.Model):
        return
    yield model
    for layer, place in _chain(model, index):
        if isinstance(layer, keras.Model):
            yield from _first_layers(layer, place)
        else:
            yield layer


def _chain(model: keras.Model, index: int) -> Iterator[tuple[Any, int]]:
    """Yield the layers through which an input goes, up to the first fork, and the input of each."""
    if isinstance(model, keras.Sequential):
        yield from ((layer, 0) for layer in model.layers)
        return
    tensors = (getattr(model, "inputs", None) or [])[index : index + 1]
    # The nodes of this model; a layer may also have nodes in others.
    nodes = [node for row in getattr(model, "_nodes_by_depth", {}).values() for node in row]
    while len(tensors) == 1:
        users = [n for n in nodes if any(t is tensors[0] for t in n.input_tensors)]
        if len(users) != 1:
            models = [user for user in users if isinstance(user.operation, keras.Model)]
            yield from ((user.operation, _place(user, tensors[0])) for user in models)
            return
        yield users[0].operation, _place(users[0], tensors[0])
        tensors = list(users[0].output_tensors)


def _place(node: Any, tensor: Any) -> int:
    return next(i for i, each in enumerate(node.input_tensors) if each is tensor)
