"""Image batches as arrays: checks, batching, channel reduction, rescaling.

Shapes are named by axis throughout: n images, h rows, w columns, c channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from .errors import ImageError, check_int, unknown_option

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]
Limits = tuple[float, float]  # the least and the largest value

# How PIL writes 8-bit pixels; other modes (16-bit, float) would be clipped by convert().
_PIL_MODES_BY_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_PIL_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

_FEW = 4  # channels; folding them one by one takes half the time of a reduction


def _folded(
    channels: tf.Tensor,
    fold: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    reduce: Callable[..., tf.Tensor],
) -> tf.Tensor:
    if channels.shape[-1] is None or channels.shape[-1] > _FEW:
        return reduce(channels, axis=-1)
    return functools.reduce(fold, tf.unstack(channels, axis=-1))


_compiled = functools.partial(tf.function, autograph=False, reduce_retracing=True)

ReductionName = Literal["sum_abs", "max_abs", "sum"]
REDUCTIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "sum_abs": _compiled(lambda g: _folded(tf.abs(g), tf.add, tf.reduce_sum)),
    "max_abs": _compiled(lambda g: _folded(tf.abs(g), tf.maximum, tf.reduce_max)),
    "sum": _compiled(lambda g: _folded(g, tf.add, tf.reduce_sum)),
}


def as_batch(images: Any, shape: Shape, what: str = "images") -> Array:
    """Return images as one checked array with a batch axis; see check_batch."""
    return check_batch(images, shape, what)[0]


def check_batch(images: Any, shape: Shape, what: str = "images") -> tuple[Array, Limits]:
    """Check images, and return them as one array with a batch axis, with the limits of its values.

    Parameters
    ----------
    images
        One image or a batch: a NumPy array, tf.Tensor or PIL image, or a list of these.
    shape
        The shape (h, w, c) of one image, with None for axes of any size.
    what
        Name of the images in error messages.

    Returns
    -------
    Array (n, h, w, c) of the dtype received, possibly the caller's own array, and its limits.

    Raises
    ------
    ImageError
        For a wrong rank, size, number of channels or dtype, an empty batch, NaN or infinity.
    """
    batch = _to_array(images, shape, what)
    expected = f"one image {_text(shape)} or a batch (n, {_text(shape)[1:]}"
    received = batch.shape
    if batch.ndim == len(shape):
        batch = batch[np.newaxis]
    if batch.ndim != len(shape) + 1:
        raise ImageError(f"Wrong rank of {what}. Expected {expected}. Received: shape {received}.")
    if len(batch) == 0:
        raise ImageError(f"Empty batch of {what}. Expected {expected}. Received: {received}.")
    if any(s is not None and s != b for s, b in zip(shape, batch.shape[1:], strict=True)):
        raise ImageError(
            f"Wrong size of {what}. Expected {expected}. Received: shape {received}. "
            f"{_size_remedy(shape, batch.shape[1:])}"
        )
    empty = not batch.size
    limits = (0.0, 0.0) if empty else (float(batch.min()), float(batch.max()))  # NaN if one is
    if not np.isfinite(limits).all():
        bad = int(np.size(batch) - np.isfinite(batch).sum())
        raise ImageError(
            f"Expected finite {what}. Received: {bad} values that are NaN or infinite. "
            "Replace them, or leave those images out."
        )
    return batch, limits


def batches(n: int, batch_size: int) -> Iterator[slice]:
    """Yield slices of at most batch_size that cover range(n).

    >>> list(batches(3, 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    check_int("batch_size", batch_size, 1)
    for start in range(0, n, int(batch_size)):
        yield slice(start, min(start + int(batch_size), n))


def resolve_reduction(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the channel reduction of that name, a function (n, h, w, c) -> (n, h, w)."""
    if not isinstance(name, str) or name not in REDUCTIONS:
        raise unknown_option("reduction", name, REDUCTIONS)
    return REDUCTIONS[name]


def rescale(maps: Array) -> Array:
    """Rescale each map to [0, 1] by its own minimum and maximum; a constant map becomes NaN.

    >>> rescale(np.array([[1.0, 2.0, 3.0]]))
    array([[0. , 0.5, 1. ]])
    """
    axes = tuple(range(1, maps.ndim))
    low = maps.min(axis=axes, keepdims=True)
    span = maps.max(axis=axes, keepdims=True) - low
    return (maps - low) / np.where(span > 0, span, np.nan).astype(maps.dtype)


def to_storable(array: Array) -> Array:
    """Return an array of a dtype that NumPy can store: float32 in place of bfloat16."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def pil_to_array(image: Image.Image, channels: int | None) -> Array:
    """Convert a PIL image to an array (h, w, c) of 0..255 with the channels a model expects."""
    if image.mode in _PIL_WIDE_MODES:
        raise ImageError(
            f"Expected an image of 8 bits a channel. Received: mode {image.mode!r}. "
            "Scale it to 0..255 and convert it first; a plain conversion would clip it."
        )
    mode = _PIL_MODES_BY_CHANNELS.get(channels or 3)
    if mode is None:
        raise ImageError(
            f"Expected an array for a model of {channels} channels. Received: a photo."
        )
    pixels = np.asarray(image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _to_array(images: Any, shape: Shape, what: str) -> Array:
    if isinstance(images, Image.Image):
        return pil_to_array(images, shape[-1])
    if isinstance(images, (list, tuple)) and len(images) > 0:
        return _stack([_to_array(image, shape, what) for image in images], what)
    try:
        array = np.asarray(images)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ImageError(
            f"Expected {what} as a NumPy array, tf.Tensor or PIL image. Received: {images!r:.200}."
        ) from error
    # bfloat16 is of NumPy kind "V"; everything else that is a number is u, i or f.
    if array.dtype.kind not in "uif" and array.dtype.name != "bfloat16":
        raise ImageError(
            f"Expected {what} of an integer or floating dtype. Received: dtype {array.dtype}."
            f"{' Files are read by tfsaliency.load_images.' if array.dtype.kind == 'U' else ''}"
        )
    return array


def _stack(arrays: Sequence[Array], what: str) -> Array:
    shapes = sorted({a.shape for a in arrays})
    if len(shapes) > 1:
        raise ImageError(
            f"Expected {what} of one shape to make a batch. Received: shapes "
            f"{', '.join(map(str, shapes[:5]))}. Resize them, or read them with load_images."
        )
    return np.stack(arrays)


def _size_remedy(shape: Shape, received: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return ""
    c = shape[-1]
    if received[0] == c and received[-1] != c:
        return "Channels come last: np.moveaxis(images, -3, -1)."
    if received[-1] != c:
        return f"Convert them to {c} channels, for a PIL image with image.convert()."
    return "Resize them first; tfsaliency.load_images(paths, model) does it for files."


def _text(shape: Shape) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
