"""Perturbed images: what takes the place of pixels, and in which order pixels are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from ..arrays import Array, digest_array
from ..errors import OptionError, check_number, unknown_option
from ..methods.completeness import resolve_baseline
from ..tables import BaselineName
from .metric import Context

BASELINES = get_args(BaselineName)
_NOISE = 0.01  # of the image's range: noisy linear imputation
_NEAR, _FAR = 1 / 6, 1 / 12  # weights of the 4 neighbors, and of the 4 diagonal ones
_SOLVED, _MOST = 1e-6, 2000  # relative residual of the imputation, and its largest number of steps


def check_baseline(baseline: Any) -> Any:
    """Return a baseline, a name of BASELINES, a number or an array, or raise OptionError."""
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise unknown_option("baseline", baseline, BASELINES)
    elif np.ndim(baseline) == 0:
        check_number("baseline", baseline, -np.inf)
    return baseline


def check_image_baseline(baseline: Any) -> Any:
    """Return a baseline that is an image, whatever is left of the image, or raise OptionError."""
    if isinstance(baseline, str) and baseline == "linear":
        raise OptionError(
            "Expected a baseline of a fixed image here: a number, an array, 'mean', 'blur' or "
            "'uniform'. Received: 'linear', which depends on the pixels that are left."
        )
    return check_baseline(baseline)


def cover(context: Context, masks: Iterator[Array], baseline: Any) -> Iterator[Array]:
    """Yield the image with the pixels of each mask (h, w) replaced, (h, w, c).

    Parameters
    ----------
    context
        The image.
    masks
        The pixels to replace, bool.
    baseline
        A number, an array (h, w, c), "mean" (the mean color of the image), "blur" (the image
        blurred by a tenth of its smaller side), "uniform" (noise from the image's smallest to its
        largest value), or "linear" (noisy linear imputation: each value is the weighted mean of
        its neighbors, plus normal noise of .01 of the image's range).
    """
    image = context.image
    if isinstance(baseline, str) and baseline == "linear":
        yield from _imputed(context, masks)
        return
    other = fill(context, baseline)
    for mask in masks:
        yield np.where(mask[..., np.newaxis], other, image)


def name_baseline(baseline: Any) -> Any:
    """Return a baseline as a key: a name, a number, or the digest of an array."""
    return digest_array(np.asarray(baseline)) if np.ndim(baseline) else baseline


def fill(context: Context, baseline: Any) -> Array:
    """Return the image that consists of a baseline, (h, w, c); see cover."""
    key = "filled", name_baseline(baseline)
    return np.asarray(context.once(key, lambda: _fill(context, baseline)))


def _fill(context: Context, baseline: Any) -> Array:
    image = context.image
    check_image_baseline(baseline)
    if isinstance(baseline, str) and baseline == "uniform":
        low, high = image.min(), image.max()
        noise = context.generator("uniform").uniform(low, high, image.shape)
        return noise.astype(image.dtype)
    resolved = resolve_baseline(baseline, tf.constant(image[np.newaxis]))
    return np.asarray(resolved, image.dtype).reshape(image.shape)


def orders(maps: Array, context: Context) -> Array:
    """Return the pixels of each map from the highest value to the lowest, (m, pixels).

    Equal values are ordered by lot, in the same way for all maps.
    """
    m, pixels = len(maps), maps[0].size
    lot = context.once(
        ("lot", pixels), lambda: context.generator("ties").permutation(pixels).astype(np.int32)
    )
    flat = maps.reshape(m, pixels)[:, lot]
    return np.asarray(lot[np.argsort(-flat, axis=1, kind="stable")])


def ranks(maps: Array, context: Context) -> Array:
    """Return the place (m, h, w) of each pixel from the highest value, 0, to the lowest."""
    order = orders(maps, context)
    places = np.empty(order.shape, np.int32)
    np.put_along_axis(places, order, np.arange(order.shape[1], dtype=np.int32)[np.newaxis], axis=1)
    return places.reshape(maps.shape)


def replace_in_order(
    context: Context, order: Array, counts: Sequence[int], baseline: Any
) -> Iterator[Array]:
    """Yield the image with the first pixels of an order replaced, (h, w, c), for each count.

    An image is valid until the next one: only what is new is written into it.
    """
    point = context.image.copy()
    flat, other = (each.reshape(order.size, -1) for each in (point, fill(context, baseline)))
    done = 0
    for count in counts:
        new = order[done:count]
        flat[new] = other[new]
        done = count
        yield point


def cells(shape: tuple[int, int], side: int) -> Array:
    """Return the number of the square of this side that each pixel lies in, (h, w)."""
    y, x = (np.arange(length) // side for length in shape)
    return y[:, np.newaxis] * (x[-1] + 1) + x


def _imputed(context: Context, masks: Iterator[Array]) -> Iterator[Array]:
    """Yield the image with the pixels of masks (h, w) imputed; batch_size masks at a time."""
    image = context.image
    noise = context.generator("imputation").normal(0, _NOISE * np.ptp(image), image.shape)
    pending: list[Array] = []

    def solved() -> Iterator[Array]:
        marked = np.stack(pending)[..., np.newaxis]
        values = impute(image, marked)
        yield from np.where(marked, values + noise, image)

    for mask in masks:
        pending.append(mask)
        if len(pending) == context.batch_size:
            yield from solved()
            pending = []
    if pending:
        yield from solved()


def impute(image: Array, missing: Array) -> Array:
    """Return images (k, h, w, c) whose missing values are the weighted means of their neighbors.

    Parameters
    ----------
    image
        (h, w, c).
    missing
        (k, h, w, 1), bool. An image without any other pixel becomes its mean.

    References
    ----------
    Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods",
    arXiv:2202.00449, appendix: weights 1/6 and 1/12, without the neighbors outside of the image.
    """
    known = ~missing
    total = known.sum(axis=(1, 2), keepdims=True)
    exact = image.astype(np.float64)  # sums of float16 overflow
    mean = np.where(known, exact, 0).sum(axis=(1, 2), keepdims=True) / np.maximum(total, 1)
    mean = np.where(total > 0, mean, exact.mean(axis=(0, 1)))
    start = np.where(known, exact, mean).astype(np.float32)
    solution = _solve(tf.constant(start), tf.constant(missing.astype(np.float32)))
    return np.where(total > 0, np.asarray(solution), start).astype(image.dtype)


@tf.function(autograph=False, reduce_retracing=True)
def _solve(start: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    """Solve for missing values by conjugate gradients, from a start (k, h, w, c)."""
    square = tf.constant([[_FAR, _NEAR, _FAR], [_NEAR, 0.0, _NEAR], [_FAR, _NEAR, _FAR]])
    channels = start.shape[-1]
    kernel = tf.tile(square[:, :, tf.newaxis, tf.newaxis], [1, 1, channels, 1])
    strides, axes = (1, 1, 1, 1), (1, 2, 3)
    weight = tf.nn.conv2d(
        tf.ones_like(start[:1, :, :, :1]), square[:, :, tf.newaxis, tf.newaxis], strides, "SAME"
    )

    def excess(values: tf.Tensor) -> tf.Tensor:
        """Return the weighted differences from the neighbors, at missing values."""
        around = tf.nn.depthwise_conv2d(values, kernel, strides, "SAME")
        return missing * (weight * values - around)

    def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(a * b, axes, keepdims=True)

    def step(
        values: tf.Tensor, residual: tf.Tensor, direction: tf.Tensor, size: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        along = excess(direction)
        length = tf.math.divide_no_nan(size, dot(direction, along))
        values, residual = values + length * direction, residual - length * along
        new = dot(residual, residual)
        turned = residual + tf.math.divide_no_nan(new, size) * direction
        return values, residual, turned, new

    residual = -excess(start)
    size = dot(residual, residual)
    values, *_ = tf.while_loop(
        lambda v, r, d, now: tf.reduce_any(now > size * _SOLVED**2),
        step,
        (start, residual, residual, size),
        maximum_iterations=_MOST,
    )
    return values
