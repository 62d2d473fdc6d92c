"""Structural similarity (Wang et al. 2004) of maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..arrays import Array
from ..errors import OptionError
from .kinds import Similarity, absolute, diverging

_GAUSSIAN, _UNIFORM = 11, 5  # pixels, the size of the windows
_RANGE, _ADEBAYO_RANGE = 1.0, 2.0  # of maps in [0, 1] and in [-1, 1]
_K1, _K2 = 0.01, 0.03


def _gaussian_index(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the index at each place of a Gaussian window, sigma 1.5: (n, h - 10, w - 10)."""
    return tf.image.ssim(
        a, b, _RANGE, _GAUSSIAN, filter_sigma=1.5, k1=_K1, k2=_K2, return_index_map=True
    )


def _uniform_index(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the index at each place of a uniform window, with sample covariances.

    (2 ma mb + C1)(2 sab + C2) / ((ma^2 + mb^2 + C1)(sa^2 + sb^2 + C2)), (n, h - 4, w - 4).
    """

    def mean(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(x, _UNIFORM, 1, "VALID")

    c1, c2 = (_K1 * _ADEBAYO_RANGE) ** 2, (_K2 * _ADEBAYO_RANGE) ** 2
    unbiased = _UNIFORM**2 / (_UNIFORM**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    variances = unbiased * (mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2)
    index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (index / ((mean_a**2 + mean_b**2 + c1) * (variances + c2)))[..., 0]


def _similarity(name: str, preparation: Any, index: Any, window: int) -> Similarity:
    def features(maps: Array, mask: Array | None) -> tuple[Array, Array | None]:
        if min(maps.shape[1:]) < window:
            raise OptionError(
                f"The similarity {name!r} looks through windows of {window} x {window}. Expected "
                f"maps of at least that size. Received: {maps.shape[1]} x {maps.shape[2]}."
            )
        edge = window // 2
        inner = None if mask is None else mask[:, edge:-edge, edge:-edge]
        return maps[..., np.newaxis], inner

    def compare(a: tuple[Array, Array | None], b: tuple[Array, Array | None]) -> Array:
        # Maps whose constant parts are all that is seen are like each other in no way.
        values = index(tf.constant(a[0]), tf.constant(b[0])).numpy().astype(np.float64)
        if a[1] is None:
            return values.mean(axis=(1, 2))
        seen = a[1].sum(axis=(1, 2))
        total = np.where(a[1], values, 0.0).sum(axis=(1, 2))
        known = np.isfinite(values).all(axis=(1, 2)) & (seen > 0)
        return np.where(known, total / np.maximum(seen, 1), np.nan)

    return Similarity(name, preparation, features, compare)


# The default looks at maps in [0, 1] through a Gaussian window; that of Adebayo et al. at maps in
# [-1, 1] through a uniform one of 5 pixels. With a mask, the index is averaged over the windows
# whose centre is in it.
ssim = _similarity("ssim", absolute, _gaussian_index, _GAUSSIAN)
ssim_adebayo = _similarity("ssim_adebayo", diverging, _uniform_index, _UNIFORM)
