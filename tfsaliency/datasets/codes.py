"""Codes of maps in a data set: a byte for each value, or half precision.

A map is stored as its largest absolute value, the peak, and a code for each value:

    sqrt_uint8          c = round(255 sqrt(v / peak))            v = peak (c / 255)^2
    signed_sqrt_int8    c = round(127 sign(v) sqrt(|v| / peak))  v = peak sign(c) (c / 127)^2
    float16             c = v / peak                             v = peak c

The square root spends the levels on small values, of which maps consist: their order is kept.
benchmarks/README.md has sizes and errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..arrays import Array
from ..methods.table import Method

MapCode = Literal["sqrt_uint8", "signed_sqrt_int8", "float16"]
MapDtype = Literal["uint8", "float16"]

DTYPES: dict[MapCode, type[np.generic]] = {
    "sqrt_uint8": np.uint8,
    "signed_sqrt_int8": np.int8,
    "float16": np.float16,
}
_LEVELS = {"sqrt_uint8": 255, "signed_sqrt_int8": 127}


def choose_code(method: Method, reduction: str | None, dtype: MapDtype) -> MapCode:
    """Return the code of a method's maps."""
    if dtype == "float16":
        return "float16"
    return "sqrt_uint8" if method.is_never_negative(reduction) else "signed_sqrt_int8"


def encode_maps(maps: Array, code: MapCode) -> tuple[list[bytes], Array]:
    """Encode maps (n, ...).

    Returns
    -------
    The codes of each map, and the peaks (n,), float32. A map that is not finite has the peak NaN,
    and is decoded as NaN.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float32, copy=False)
    peaks = np.abs(flat).max(axis=1, initial=0.0)
    peaks = np.where(np.isfinite(peaks), peaks, np.float32(np.nan)).astype(np.float32)
    known = np.isfinite(peaks) & (peaks > 0)
    scaled = np.where(known[:, np.newaxis], flat, 0) / np.where(known, peaks, 1)[:, np.newaxis]
    if code == "float16":
        codes = scaled.astype(np.float16)
    else:
        roots = np.sqrt(np.abs(scaled)) * np.float32(_LEVELS[code])
        if code == "signed_sqrt_int8":
            roots = np.copysign(roots, scaled)
        codes = np.rint(roots).astype(DTYPES[code])
    return [each.tobytes() for each in codes], peaks


def decode_map(data: bytes, peak: float, shape: Sequence[int], code: MapCode) -> Array:
    """Decode a map, float32.

    >>> codes, peaks = encode_maps(np.array([[0.0, 0.25, 1.0]]), "sqrt_uint8")
    >>> decode_map(codes[0], peaks[0], (3,), "sqrt_uint8").round(2)
    array([0.  , 0.25, 1.  ], dtype=float32)
    """
    values = np.frombuffer(data, DTYPES[code]).astype(np.float32).reshape(tuple(shape))
    if code != "float16":
        values /= _LEVELS[code]
        values *= np.abs(values)
    return values * np.float32(peak)


def largest_error(code: MapCode) -> float:
    """Return the largest error of a decoded map, relative to its peak."""
    if code == "float16":
        return float(np.finfo(np.float16).eps)
    half = 0.5 / _LEVELS[code]
    return 2 * half + half**2
