"""Checks of inputs that the networks of this package share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import ImageError


def rgb_as_float(x: Any) -> Any:
    """Return RGB images (..., 3) in floating point: a float64 array, float32, or a tensor's dtype.

    Raises
    ------
    ImageError
        If the last axis is not three channels.
    """
    if tuple(x.shape[-1:]) != (3,):
        raise ImageError(f"Expected RGB images (..., 3). Received: shape {tuple(x.shape)}.")
    if isinstance(x, np.ndarray):
        return x.astype(x.dtype if x.dtype == np.float64 else np.float32)
    x = keras.ops.convert_to_tensor(x)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        x = keras.ops.cast(x, "float32")
    return x
