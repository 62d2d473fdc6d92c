"""Histograms of oriented gradients (Dalal and Triggs 2005) of maps, by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import OptionError
from .protocol import Mask, Similarity, absolute, centered, dot

_CELL, _CELLS, _ORIENTATIONS = 16, 3, 9  # pixels a cell, cells a block


def _histograms() -> Any:
    try:
        from skimage.feature import hog as histograms  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "The similarity 'hog' needs scikit-image. Install it with: pip install scikit-image."
        ) from error
    return histograms


def _features(maps: Array, masks: Sequence[Mask]) -> Array:
    histograms = _histograms()
    if min(maps.shape[1:]) < _CELL * _CELLS:
        raise OptionError(
            f"The similarity 'hog' needs blocks of {_CELLS} x {_CELLS} cells of {_CELL} pixels. "
            f"Expected maps of at least {_CELL * _CELLS} pixels a side. "
            f"Received: {maps.shape[1]} x {maps.shape[2]}. Use another similarity, such as 'ssim'."
        )
    vectors = [
        centered(
            histograms(
                np.nan_to_num(values),
                orientations=_ORIENTATIONS,
                pixels_per_cell=(_CELL, _CELL),
                cells_per_block=(_CELLS, _CELLS),
                block_norm="L2-Hys",
            )
        )
        for values in maps
    ]
    result = np.stack([vectors] * len(masks), axis=1)
    result[~np.isfinite(maps).all(axis=(1, 2))] = np.nan
    # A histogram of gradients is not defined on a subset of the pixels.
    result[:, [mask is not None for mask in masks]] = np.nan
    return result


hog = Similarity(
    "hog",
    absolute,
    _features,
    dot,
    "Correlation of histograms of oriented gradients (scikit-image)",
    images_only=True,
)
