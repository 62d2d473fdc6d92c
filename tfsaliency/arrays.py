"""Image batches as arrays: checks, batching, channel reduction, rescaling.

Shapes are named by axis throughout: n images, h rows, w columns, c channels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from .errors import ImageError, OptionError, check_choice, check_int, one_line

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]
Limits = tuple[float, float]  # the least and the largest value

# How PIL writes 8-bit pixels; other modes (16-bit, float) would be clipped by convert().
_PIL_MODES_BY_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_PIL_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

_FEW = 4  # channels; folding them one by one takes less time than a reduction


class _Reduction:
    """A reduction of the channels (n, h, w, c) of a tensor or an array to maps (n, h, w).

    Parameters
    ----------
    absolute
        Whether of absolute values.
    fold
        The reduction of two channels.
    reduce
        TensorFlow's reduction of an axis.
    """

    def __init__(self, absolute: bool, fold: np.ufunc, reduce: Callable[..., tf.Tensor]) -> None:
        self._fold = fold
        self._compiled = tf.function(
            lambda g: reduce(tf.abs(g) if absolute else g, axis=-1),
            autograph=False,
            reduce_retracing=True,
        )
        self._absolute = absolute

    def __call__(self, channels: Any) -> Any:
        few = 0 < (channels.shape[-1] or 0) <= _FEW
        # On a GPU, maps are copied to the host, and not the channels.
        if not few or (isinstance(channels, tf.Tensor) and "GPU" in channels.device):
            return self._compiled(channels)
        array = np.asarray(channels)
        each = (array[..., i] for i in range(array.shape[-1]))
        return functools.reduce(self._fold, map(np.abs, each) if self._absolute else each)


REDUCTIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "sum_abs": _Reduction(True, np.add, tf.reduce_sum),
    "max_abs": _Reduction(True, np.maximum, tf.reduce_max),
    "sum": _Reduction(False, np.add, tf.reduce_sum),
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
    _refuse_streams(images, what)
    batch = _to_array(images, shape, what)
    expected = f"one image {_text(shape)} or a batch (n, {_text(shape)[1:]}"
    received = batch.shape
    if batch.ndim == len(shape):
        batch = batch[np.newaxis]
    if batch.ndim != len(shape) + 1:
        raise ImageError(
            f"Wrong rank of {what}. Expected {expected}. Received: shape {received}."
            f"{_axis_remedy(shape, received)}"
        )
    if len(batch) == 0:
        raise ImageError(f"Empty batch of {what}. Expected {expected}. Received: {received}.")
    if any(s is not None and s != b for s, b in zip(shape, batch.shape[1:], strict=True)):
        raise ImageError(
            f"Wrong size of {what}. Expected {expected}. Received: shape {received}."
            f"{_axis_remedy(shape, received) or _size_remedy(shape, batch.shape[1:])}"
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


def cast_checked(batch: Array, limits: Limits, dtype: np.dtype[Any], what: str) -> Array:
    """Return a batch of finite values in another dtype, in which they are finite too.

    Parameters
    ----------
    batch, limits
        The batch, and its least and largest value.
    dtype
        The dtype of the model's input.
    what
        The name of the batch in error messages.

    Raises
    ------
    ImageError
        If a value is too large for the dtype.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        cast = batch.astype(dtype, copy=False)
        ends = np.asarray(limits, np.float64).astype(dtype)
    if tf.as_dtype(dtype).is_floating and not np.isfinite(ends.astype(np.float64)).all():
        raise ImageError(
            f"Expected {what} within the range of the model's {dtype}. Received: values from "
            f"{limits[0]:.3g} to {limits[1]:.3g}. Scale them."
        )
    return cast


def check_region(region: Any, n: int, axes: int) -> Array:
    """Return the region of n images as weights (n, positions), float32.

    Parameters
    ----------
    region
        A mask for all images, such as (h, w), or one for each, (n, h, w); boolean, or weights of at
        least 0.
    n
        The number of images.
    axes
        The number of axes of positions of the model's outputs.

    Raises
    ------
    OptionError
        If it is no such mask, or is empty for an image.

    >>> check_region([True, False], n=1, axes=1)
    array([[1., 0.]], dtype=float32)
    """
    weights: Array
    if np.ma.is_masked(region):
        raise OptionError(
            "Expected a region without masked values. Received: a masked array. Fill them: "
            "region.filled(0)."
        )
    try:
        exact = np.asarray(region).astype(np.float64)
        largest = exact.max(initial=0)
        weights = (exact / largest if largest > 0 else exact).astype(np.float32)
    except (TypeError, ValueError, RuntimeError):
        weights = np.zeros((), np.float32)
    if weights.ndim == axes:
        weights = np.repeat(weights[np.newaxis], n, axis=0)
    if weights.ndim != axes + 1 or len(weights) != n or not (weights >= 0).all():
        shape = getattr(region, "shape", type(region).__name__)
        raise OptionError(
            f"Expected region as a mask of {axes} axes for all images, or one for each of {n}, "
            f"boolean or weights of at least 0. Received: {shape}."
        )
    empty = np.flatnonzero(~(weights.reshape(n, -1) > 0).any(axis=1))
    if len(empty) or not np.isfinite(weights).all():
        raise OptionError(
            "Expected a region of at least one position, with finite weights. Received: none for "
            f"image {empty[0] if len(empty) else 'any'}. Leave region out for all positions."
        )
    return weights


def digest_array(array: Array) -> str:
    """Return a digest of an array: of its dtype, shape and values.

    >>> digest_array(np.zeros(2)) == digest_array(np.zeros((2, 1)))
    False
    """
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def batches(n: int, batch_size: int) -> Iterator[slice]:
    """Yield slices of at most batch_size that cover range(n).

    >>> list(batches(3, 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    check_int("batch_size", batch_size, 1)
    for start in range(0, n, int(batch_size)):
        yield slice(start, min(start + int(batch_size), n))


def resolve_indices(indices: Any, n: int) -> Array:
    """Return the indices (k,) of some of n items, given as one, several or a mask (n,).

    >>> resolve_indices(-1, 3), resolve_indices([True, False, True], 3)
    (array([2]), array([0, 2]))
    """
    try:
        given = np.atleast_1d(np.asarray(indices))
    except ValueError:  # lists of different lengths
        given = np.array([], object)
    mask = given.dtype.kind == "b" and given.shape == (n,)
    places = np.flatnonzero(given) if mask else given
    if (
        places.dtype.kind not in "iu"
        or places.ndim != 1
        or not places.size
        or places.min() < -n
        or places.max() >= n
    ):
        raise OptionError(
            f"Expected indices of {n} images, at least one, or a mask ({n},). "
            f"Received: {indices!r:.100}."
        )
    return places.astype(np.intp) % n  # n may be too large for the dtype


def resolve_reduction(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the channel reduction of that name, a function (n, h, w, c) -> (n, h, w)."""
    check_choice("reduction", name, REDUCTIONS)
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


def with_channels(image: Image.Image, channels: int | None) -> Image.Image:
    """Return a PIL image with the channels that a model expects; see pil_to_array."""
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
    if mode != "RGBA" and image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer)
    return image if image.mode == mode else image.convert(mode)


def pil_to_array(image: Image.Image, channels: int | None) -> Array:
    """Convert a PIL image to an array (h, w, c) of 0..255 with the channels a model expects.

    Transparent pixels are put on white, unless the model expects four channels.
    """
    pixels = np.asarray(with_channels(image, channels))
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _to_array(images: Any, shape: Shape, what: str) -> Array:
    if isinstance(images, Image.Image):
        return pil_to_array(images, shape[-1])
    if isinstance(images, (list, tuple)) and len(images) > 0:
        return _stack([_to_array(image, shape, what) for image in images], what)
    if images is None:
        raise ImageError(f"Expected {what} as an array. Received: None.")
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise ImageError(
            f"Expected {what} without masked values. Received: {int(np.sum(images.mask))} masked. "
            "Fill them with a value that the model knows: images.filled(value)."
        )
    try:
        array = np.asarray(images)
    except Exception as error:  # of the caller's class, such as a torch tensor with a gradient
        raise ImageError(
            f"Expected {what} as a NumPy array, tf.Tensor or PIL image. Received: {images!r:.200} "
            f"({one_line(error, 200)}). A torch tensor becomes one by "
            "tensor.detach().cpu().numpy(), with channels moved to the last axis."
        ) from error
    # bfloat16 is of NumPy kind "V"; everything else that is a number is u, i or f.
    if array.dtype.kind not in "uif" and array.dtype.name != "bfloat16":
        raise ImageError(
            f"Expected {what} of an integer or floating dtype. Received: dtype {array.dtype}. "
            f"{_DTYPE_REMEDIES.get(array.dtype.kind, 'Convert them with astype.')}"
        )
    return array


_DTYPE_REMEDIES = {
    "U": "Files are read by tfsaliency.load_images.",
    "b": "Convert them with astype('float32').",
    "O": "Resize images of several sizes; convert numbers with astype('float32').",
    "c": "Explain their real or absolute values.",
}


def _refuse_streams(images: Any, what: str) -> None:
    """Raise ImageError for batches, with or without labels, instead of one batch."""
    arrays = hasattr(images, "shape") or hasattr(images, "__array__")
    if isinstance(images, Iterable) and not isinstance(images, Sized) and not arrays:
        raise ImageError(
            f"Expected {what} as one batch. Received: {type(images).__name__}, which yields "
            "batches. Use tfsaliency.saliency_map_batches."
        )
    if isinstance(images, tf.data.Dataset):
        raise ImageError(
            f"Expected {what} as one batch. Received: a tf.data.Dataset. Use "
            "tfsaliency.saliency_map_batches."
        )
    several = isinstance(images, (tuple, list)) and len(images) in (2, 3)
    arrays = several and all(hasattr(each, "shape") for each in images)
    if arrays and len(images[0].shape) > 1 and len(images[1].shape) < len(images[0].shape):
        raise ImageError(
            f"Expected {what} without labels. Received: a {type(images).__name__} of images and "
            "labels. Pass images, targets=labels; tfsaliency.saliency_map_batches takes batches "
            "with labels."
        )


def _stack(arrays: Sequence[Array], what: str) -> Array:
    shapes = sorted({a.shape for a in arrays})
    if len(shapes) > 1:
        raise ImageError(
            f"Expected {what} of one shape to make a batch. Received: shapes "
            f"{', '.join(map(str, shapes[:5]))}. Resize them, or read them with load_images."
        )
    return np.stack(arrays)


def _axis_remedy(shape: Shape, received: tuple[int, ...]) -> str:
    """Return the remedy for images without an axis of one channel; empty if that is not it."""
    positions = shape[:-1]
    own = received[-len(positions) :] if positions else ()
    fits = all(s in (None, r) for s, r in zip(positions, own, strict=False))
    if shape[-1] != 1 or len(received) not in (len(shape) - 1, len(shape)) or not fits:
        return ""
    return " Add the axis of channels: images[..., np.newaxis]."


def _size_remedy(shape: Shape, received: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return ""
    c = shape[-1]
    if received[0] == c and received[-1] != c:
        return " Channels come last: np.moveaxis(images, -3, -1)."
    if received[-1] != c:
        return f" Convert them to {c} channels, for a PIL image with image.convert()."
    return " Resize them first; tfsaliency.load_images(paths, model) does it for files."


def _text(shape: Shape) -> str:
    return "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
