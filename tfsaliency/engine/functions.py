"""Models that do not declare their inputs: functions, signatures and subclassed models; digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from ..arrays import Array, Shape
from ..errors import ImageError, ModelError, one_line

Model: TypeAlias = keras.Model | Callable[..., Any]
_RANK_OF_AN_IMAGE = 3


def call_function(function: Callable[..., Any], packed: Any) -> Any:
    """Call a function; signatures of a SavedModel take their inputs only by name."""
    positional, named = getattr(function, "structured_input_signature", None) or ((None,), {})
    by_name = packed if isinstance(packed, Mapping) else {min(named, default=""): packed}
    try:
        return function(packed) if positional or not named else function(**by_name)
    except (TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        # Raised by NumPy, .numpy() and predict() for a symbolic tensor.
        name = getattr(function, "__name__", type(function).__name__)
        reason = one_line(error, 200)
        raise ModelError(
            f"Cannot trace {name}: {reason} Expected a function of TensorFlow operations from a "
            "batch to outputs, without NumPy, .numpy() or predict(). Pass the Keras model itself, "
            "or lambda x: model(x)."
        ) from error


def find_signature(model: Model) -> tf.TensorSpec | None:
    """Return the declared input of a tf.function or a signature of a SavedModel, if it has one."""
    positional, named = getattr(model, "structured_input_signature", None) or (None, {})
    declared: Any = positional or getattr(model, "input_signature", None) or named
    flat = [each for each in tf.nest.flatten(declared) if isinstance(each, tf.TensorSpec)]
    return flat[0] if len(flat) == 1 and flat[0].shape.rank else None


def named_inputs(model: Model) -> dict[str, tf.TensorSpec]:
    """Return the inputs of a SavedModel's signature by name, in the order of keras.tree.flatten."""
    positional, named = getattr(model, "structured_input_signature", None) or ((None,), {})
    known = not positional and all(isinstance(each, tf.TensorSpec) for each in named.values())
    return {name: named[name] for name in sorted(named)} if known else {}


def find_rank(model: Model, images: Any) -> int:
    """Return the rank of one image of a model without symbolic inputs.

    A built model knows it. A function does not: an array is a batch, unless the function takes
    three axes only as those of one image.

    Raises
    ------
    ImageError
        If the function takes both.
    """
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    known = [s for s in shapes.values() if isinstance(s, tuple) and len(s) > 1]
    if len(known) == 1 == len(shapes):
        return len(known[0]) - 1
    listed = isinstance(images, (list, tuple)) and len(images) > 0
    first = images[0] if listed else images
    if isinstance(model, keras.Model) or isinstance(first, Image.Image) or first is None:
        return _RANK_OF_AN_IMAGE
    shape = (len(images), *np.shape(first)) if listed else tuple(np.shape(first))
    if len(shape) != _RANK_OF_AN_IMAGE:
        return max(len(shape) - 1, 1)
    as_batches, as_image = (_takes(model, each) for each in ((None, *shape[1:]), (1, *shape)))
    if as_batches and as_image and shape[-1] == 1:
        raise ImageError(
            f"Expected images with a batch axis, because the function takes {shape} both as one "
            "image and as a batch. Pass images[np.newaxis] for one image; for a batch of "
            "sequences, a tf.function with input_signature=[tf.TensorSpec((None, t, 1))]."
        )
    return _RANK_OF_AN_IMAGE - 1 if as_batches else _RANK_OF_AN_IMAGE


def _takes(function: Callable[..., Any], shape: Shape) -> bool:
    """Return whether a function can be traced for a batch of this shape."""
    try:
        traced = tf.function(lambda x: call_function(function, x), autograph=False)
        traced.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    except Exception:  # of the caller's function
        return False
    return True


def digest_weights(model: keras.Model) -> bytes:
    """Return a digest of the weights of a model, not of its other variables, such as seeds."""
    return digest_arrays(weight.numpy() for weight in model.weights)


def digest_arrays(arrays: Iterable[Array | None]) -> bytes:
    """Return a digest of the bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"" if array is None else array.tobytes())
    return digest.digest()
