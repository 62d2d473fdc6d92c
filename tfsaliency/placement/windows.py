"""Placement behind windows that slide, blocks that move between axes, and resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..arrays import Array
from .cuts import crop, pad
from .joins import Place
from .operations import Rule, attribute, constant, new_shape_of, placed, shape_of
from .parts import (
    FREE,
    REPEAT,
    Placement,
    UnplaceableError,
    collapse,
    free,
    resample,
    reshape,
    size_of,
    slide,
    slide_back,
    transpose,
)

_CHANNELS_FIRST = "NCHW", "NCDHW"


def _convolution(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    return [_windows(op, placed(inputs[0]), _kernel(op, inputs[1]))]


def _kernel(op: tf.Operation, place: Place) -> list[int]:
    """Return the sizes of the kernel of a convolution, its second input."""
    if place is not None:
        raise UnplaceableError("a convolution whose kernel depends on the image")
    return shape_of(op.inputs[1])[: len(_spatial(op))]


def _pooling(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    if op.type == "MaxPoolV2":
        sizes = list(map(int, constant(op, 1)))
    else:
        sizes = list(op.get_attr("ksize" if op.type != "ExtractImagePatches" else "ksizes"))
    result = _windows(op, placed(inputs[0]), [sizes[axis] for axis in _spatial(op)])
    return [result] * len(op.outputs)


def _spatial(op: tf.Operation) -> list[int]:
    """Return the axes along which the windows of an operation slide."""
    first = attribute(op, "data_format", b"").decode() in _CHANNELS_FIRST
    rank = int(op.outputs[0].shape.rank)
    return list(range(2, rank)) if first else list(range(1, rank - 1))


def _windows(op: tf.Operation, place: Placement, kernel: Sequence[int]) -> Placement:
    """Return the placement after windows of some sizes slide along the spatial axes."""
    axes, counts = _spatial(op), shape_of(op.outputs[0], place)
    given = shape_of(op.inputs[0], place)
    for axis, before, stride, extent in _steps(op, axes, given, kernel):
        place = slide(place, axis, extent, stride, before, counts[axis])
    return _with_new_channels(place, axes, counts)


def _with_new_channels(
    place: Placement, spatial: Sequence[int], counts: Sequence[int]
) -> Placement:
    """Return the placement with other channels, each computed from all old ones."""
    (channels,) = set(range(1, len(counts))) - set(spatial)
    return collapse(place, channels).with_axis(channels, free(counts[channels]))


def _steps(
    op: tf.Operation, axes: Sequence[int], given: Sequence[int], kernel: Sequence[Any]
) -> list[tuple[int, int, int, int]]:
    """Return for each axis: its index, the padding before it, the stride, the window's extent."""
    strides = list(map(int, constant(op, 2))) if op.type == "MaxPoolV2" else op.get_attr("strides")
    name = "rates" if op.type in ("Dilation2D", "ExtractImagePatches") else "dilations"
    dilations = attribute(op, name, [1] * len(given))
    explicit = attribute(op, "explicit_paddings", [])
    steps = []
    for axis, size in zip(axes, kernel, strict=True):
        extent, stride = (int(size) - 1) * int(dilations[axis]) + 1, int(strides[axis])
        padding = op.get_attr("padding").decode()
        if padding == "EXPLICIT":
            before = int(explicit[2 * axis])
        elif padding == "SAME":
            count = -(-given[axis] // stride)
            before = max((count - 1) * stride + extent - given[axis], 0) // 2
        else:
            before = 0
        steps.append((axis, before, stride, extent))
    return steps


def _transposed_convolution(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    place, kernel = placed(inputs[2]), _kernel(op, inputs[1])
    axes, counts = _spatial(op), shape_of(op.outputs[0], place)
    for axis, before, stride, extent in _steps(op, axes, counts, kernel):
        place = slide_back(place, axis, extent, stride, before, counts[axis])
    return [_with_new_channels(place, axes, counts)]


def _to_batch(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    """Move blocks of positions into the batch axis, as a dilated convolution does."""
    place, blocks = placed(inputs[0]), [int(size) for size in constant(op, 1)]
    for axis, (before, after) in enumerate(constant(op, 2), start=1):
        place = pad(place, axis, int(before), int(after))
    batch, *sizes = map(size_of, place.axes)
    m = len(blocks)
    pairs = [side for n, b in zip(sizes, blocks, strict=False) for side in (n // b, b)]
    place = reshape(place, [batch, *pairs, *sizes[m:]])
    inner, outer = range(2, 2 * m + 1, 2), range(1, 2 * m + 1, 2)
    rest = range(2 * m + 1, len(place.axes))
    place = transpose(place, [*inner, 0, *outer, *rest])
    return [reshape(place, new_shape_of(op.outputs[0], place))]


def _from_batch(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    """Move blocks of positions back from the batch axis."""
    place, blocks = placed(inputs[0]), [int(size) for size in constant(op, 1)]
    batch, *sizes = map(size_of, place.axes)
    m = len(blocks)
    place = reshape(place, [*blocks, batch // math.prod(blocks), *sizes])
    pairs = [axis for i in range(m) for axis in (m + 1 + i, i)]
    place = transpose(place, [m, *pairs, *range(2 * m + 1, len(place.axes))])
    whole = [n * b for n, b in zip(sizes, blocks, strict=False)]
    place = reshape(place, [batch // math.prod(blocks), *whole, *sizes[m:]])
    for axis, (before, after) in enumerate(constant(op, 2), start=1):
        count = whole[axis - 1] - int(before) - int(after)
        place = crop(place, axis, int(before), 1, count)
    return [place]


def _to_depth(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    place, size = placed(inputs[0]), int(op.get_attr("block_size"))
    n, h, w, c = _sizes_channels_last(op, place)
    place = reshape(place, [n, h // size, size, w // size, size, c])
    place = transpose(place, [0, 1, 3, 2, 4, 5])
    return [reshape(place, new_shape_of(op.outputs[0], place))]


def _from_depth(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    place, size = placed(inputs[0]), int(op.get_attr("block_size"))
    n, h, w, c = _sizes_channels_last(op, place)
    place = reshape(place, [n, h, w, size, size, c // size**2])
    for axis in (3, 4):  # channels that become positions lie beside each other, inside a cell
        parts = [replace(p, source=REPEAT) if p.source == FREE else p for p in place.axes[axis]]
        place = place.with_axis(axis, tuple(parts))
    place = transpose(place, [0, 1, 3, 2, 4, 5])
    return [reshape(place, new_shape_of(op.outputs[0], place))]


def _sizes_channels_last(op: tf.Operation, place: Placement) -> list[int]:
    if attribute(op, "data_format", b"NHWC") != b"NHWC":
        raise UnplaceableError(f"{op.type} with channels first")
    return [size_of(axis) for axis in place.axes]


# The radius of the interpolation, in cells.
_RADIUS = {"ResizeBilinear": 1.0, "ResizeBicubic": 2.0, "ScaleAndTranslate": 5.0}


def _resize(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Placement]:
    place = placed(inputs[0])
    old, new = [*map(size_of, place.axes)], shape_of(op.outputs[0], place)
    for axis in (1, 2):
        if place.axes[axis]:
            before, after = old[axis], new[axis]
            positions = _positions(op, axis, before, after)
            radius = _RADIUS.get(op.type, 0.0) * max(before / after, 1)
            place = resample(place, axis, positions, radius)
        else:
            place = place.with_axis(axis, free(new[axis]))
    return [place]


def _positions(op: tf.Operation, axis: int, old: int, new: int) -> Array:
    """Return the position of each new cell among the old ones."""
    index = np.arange(new)
    if op.type == "ScaleAndTranslate":
        scale, moved = (float(constant(op, i)[axis - 1]) for i in (2, 3))
        return (index + 0.5 - moved) / scale - 0.5
    nearest = op.type == "ResizeNearestNeighbor"
    if attribute(op, "align_corners", False):
        positions = index * ((old - 1) / max(new - 1, 1))
        return np.round(positions) if nearest else positions
    if op.type == "ResizeArea":
        return (index + 0.5) * old / new - 0.5
    halves = 0.5 if attribute(op, "half_pixel_centers", False) else 0.0
    if nearest:
        return np.floor((index + halves) * old / new)
    return (index + halves) * old / new - halves


WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Dilation2D"), _convolution),
    **dict.fromkeys(
        ("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput"),
        _transposed_convolution,
    ),
    **dict.fromkeys(
        (
            "MaxPool",
            "MaxPoolV2",
            "MaxPool3D",
            "AvgPool",
            "AvgPool3D",
            "ExtractImagePatches",
            "MaxPoolWithArgmax",
        ),
        _pooling,
    ),
    **dict.fromkeys(
        ("ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor", "ResizeArea"), _resize
    ),
    "ScaleAndTranslate": _resize,
    "SpaceToBatchND": _to_batch,
    "BatchToSpaceND": _from_batch,
    "SpaceToDepth": _to_depth,
    "DepthToSpace": _from_depth,
}
