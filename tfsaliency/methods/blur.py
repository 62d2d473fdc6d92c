"""Gaussian blurs inside the graph."""

from __future__ import annotations

import tensorflow as tf

from ..errors import OptionError

_NARROW = 0.01  # pixels; a narrower Gaussian does not blur
_TAILS = 6.0  # standard deviations; what lies beyond is negligible


def blurred(images: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Return images (k, ..., c) convolved with a Gaussian of sigma pixels, zero-padded.

    Raises
    ------
    OptionError
        If there are no positions.
    """
    if images.shape.rank < 3:
        raise OptionError(
            "Expected images, sequences or volumes to blur. Received: features "
            f"{images.shape[1:]}, which have no neighbors. Use another baseline or method."
        )
    for axis in range(1, images.shape.rank - 1):
        wide = images.dtype if images.dtype.size > tf.float32.size else tf.float32
        weights = tf.cast(_gaussian(tf.shape(images)[axis], tf.cast(sigma, wide)), images.dtype)
        mixed = tf.tensordot(weights, images, [[1], [axis]])
        order = [*range(1, axis + 1), 0, *range(axis + 1, images.shape.rank)]
        images = tf.transpose(mixed, order)
    return images


def _gaussian(size: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Return the matrix (size, size) of a blur along one axis; for sigma 0, the identity."""
    places = tf.range(-size + 1, size)
    narrow = tf.maximum(sigma, tf.cast(_NARROW, sigma.dtype))
    reach = tf.math.ceil(_TAILS * narrow)
    total = tf.reduce_sum(tf.exp(-tf.square(tf.range(-reach, reach + 1) / narrow) / 2))
    row = tf.exp(-tf.square(tf.cast(places, sigma.dtype) / narrow) / 2) / total
    at = tf.range(size)
    return tf.gather(row, at[:, tf.newaxis] - at + size - 1)
