"""Placement of the outputs of each TensorFlow operation, from the placement of its inputs.

An operation without a rule leaves its outputs unplaced.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from .cuts import choose, crop, pad
from .joins import Place, broadcast, combine, concatenate, stack
from .operations import Rule, attribute, constant, new_shape_of, placed, shape_of, size_at
from .parts import (
    REPEAT,
    Placement,
    UnplaceableError,
    Unplaced,
    collapse,
    free,
    has_places,
    reshape,
    size_of,
    transpose,
)
from .windows import WINDOW_RULES

# Operations that may take some tokens and leave others.
SLICES = ("StridedSlice", "Slice", "GatherV2", "Split", "SplitV", "Unpack")
_POINTWISE = """
Identity Cast StopGradient PreventGradient CheckNumerics Snapshot EnsureShape Abs Acos Acosh Asin
Asinh Atan Atanh Ceil Cos Cosh Elu Erf Erfc Exp Expm1 Floor Inv IsFinite IsInf IsNan LeakyRelu Log
Log1p LogicalNot Neg Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus
Softsign Sqrt Square Tanh Add AddN AddV2 Atan2 BiasAdd Div DivNoNan Equal FloorDiv FloorMod
Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mul MulNoNan Mod NotEqual
Pow RealDiv SquaredDifference Sub TruncateDiv Xdivy Xlogy ClipByValue Select SelectV2
FusedBatchNormV3 FusedBatchNormV2 FusedBatchNorm LRN Lgamma Digamma
FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
"""
PRODUCT = "a product of two signals, as in attention"


def _pointwise(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    if op.outputs[0].dtype == tf.variant:  # a list, which has the places of its stack
        return inputs[:1]
    return [broadcast(combine(inputs), op.outputs[0].shape)]


def _broadcast(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    return [broadcast(placed(inputs[0]), op.outputs[0].shape)]


def _each(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    return inputs


def _reshape(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    return [reshape(place, new_shape_of(op.outputs[0], place))]


def _transpose(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    return [transpose(placed(inputs[0]), map(int, constant(op, 1)))]


def _pad(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    for axis, (before, after) in enumerate(constant(op, 1)):
        place = pad(place, axis, int(before), int(after))
    return [place]


def _concatenate(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    *tensors, _ = op.inputs
    axis = int(constant(op, len(tensors))) % tensors[0].shape.rank
    return [concatenate(inputs[:-1], [size_at(tensor, axis) for tensor in tensors], axis)]


def _stack(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    axis = int(op.get_attr("axis")) % op.outputs[0].shape.rank
    return [stack([placed(place) for place in inputs], axis)]


def _unstack(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    axis = int(op.get_attr("axis")) % len(place.axes)
    return [_entry(place, axis, number) for number in range(len(op.outputs))]


def _entry(place: Placement, axis: int, number: int) -> Place:
    """Return the place of one entry of an axis; some may have none, such as single tokens."""
    try:
        return _without(crop(place, axis, number, 1, 1), axis)
    except UnplaceableError as error:
        return Unplaced(str(error))


def _without(place: Placement, axis: int) -> Placement:
    return place._replace(axes=(*place.axes[:axis], *place.axes[axis + 1 :]))


def _split(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    value, axis = (1, 0) if op.type == "Split" else (0, 2)
    place = placed(inputs[value])
    index = int(constant(op, axis)) % len(place.axes)
    sizes = [size_at(output, index) for output in op.outputs]
    starts = np.cumsum([0, *sizes])
    return [crop(place, index, int(s), 1, n) for s, n in zip(starts, sizes, strict=False)]


def _slice(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    counts = shape_of(op.outputs[0], place)
    for axis, begin in enumerate(constant(op, 1)):
        place = crop(place, axis, int(begin), 1, counts[axis])
    return [place]


def _strided_slice(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place, axis = placed(inputs[0]), 0
    for index in _indices(op, len(place.axes)):
        if index is None:
            place = place._replace(axes=(*place.axes[:axis], (), *place.axes[axis:]))
        elif isinstance(index, int):
            size = size_of(place.axes[axis])
            place = _without(crop(place, axis, index % size, 1, 1), axis)
            continue
        else:
            first, end, stride = index.indices(size_of(place.axes[axis]))
            place = crop(place, axis, first, stride, len(range(first, end, stride)))
        axis += 1
    return [place]


def _indices(op: tf.Operation, rank: int) -> list[slice | int | None]:
    """Return the index of each axis that a StridedSlice writes in brackets; None is a new axis."""
    begins, ends, strides = (constant(op, i).tolist() for i in (1, 2, 3))

    def is_set(mask: str, i: int) -> bool:
        return bool(op.get_attr(f"{mask}_mask") >> i & 1)

    given: list[list[slice | int | None]] = []
    named = sum(not is_set("new_axis", i) and not is_set("ellipsis", i) for i in range(len(begins)))
    for i, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if is_set("ellipsis", i):
            given.append([slice(None)] * (rank - named))
        elif is_set("new_axis", i):
            given.append([None])
        elif is_set("shrink_axis", i):
            given.append([begin])
        else:
            first = None if is_set("begin", i) else begin
            given.append([slice(first, None if is_set("end", i) else end, stride)])
    return [index for each in given for index in each]


def _gather(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    if attribute(op, "batch_dims", 0) or inputs[1] is not None:
        raise UnplaceableError("a choice of cells that depends on the image")
    place, entries = placed(inputs[0]), constant(op, 1)
    axis = int(constant(op, 2)) % len(place.axes)
    if entries.ndim > 1:
        raise UnplaceableError("a choice of cells in several axes")
    chosen = choose(place, axis, entries.reshape(-1) % size_of(place.axes[axis]))
    return [chosen if entries.ndim else _without(chosen, axis)]


def _reduce(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    axes = {int(axis) % len(place.axes) for axis in constant(op, 1).reshape(-1)}
    for axis in axes:
        place = collapse(place, axis)
    if not attribute(op, "keep_dims", False):
        for axis in sorted(axes, reverse=True):
            place = _without(place, axis)
    return [place]


def _along_last(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    axis = int(constant(op, 1)) % len(place.axes) if op.type in ("Cumsum", "Cumprod") else -1
    if has_places(place.axes[axis]):
        raise UnplaceableError(f"{op.type} over cells")
    return [place]


def _tile(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    for axis, copies in enumerate(map(int, constant(op, 1))):
        size = size_of(place.axes[axis])
        if copies == 1:
            continue
        if has_places(place.axes[axis]):
            raise UnplaceableError("copies of cells beside each other")
        tiled = free(size * copies)
        if size == 1 and tiled:
            tiled = (replace(tiled[0], source=REPEAT),)
        place = place.with_axis(axis, tiled)
    return [place]


def _reverse(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    place = placed(inputs[0])
    for axis in constant(op, 1):
        size = size_of(place.axes[axis])
        place = choose(place, int(axis), np.arange(size)[::-1])
    return [place]


def _matmul(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    flips = [bool(op.get_attr(name)) for name in names]
    if inputs[0] is not None and inputs[1] is not None:
        raise UnplaceableError(PRODUCT)
    first = inputs[1] is None
    place = placed(inputs[0] if first else inputs[1])
    # The summed axis is the last of the first operand and the last but one of the second.
    summed = -1 if first != flips[not first] else -2
    kept = place.axes[-3 - summed]
    place = collapse(place, len(place.axes) + summed)
    new = free(size_at(op.outputs[0], -1 if first else -2))
    last = (kept, new) if first else (new, kept)
    return [broadcast(place._replace(axes=(*place.axes[:-2], *last)), op.outputs[0].shape)]


def _einsum(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    given = [i for i, place in enumerate(inputs) if place is not None]
    if len(given) > 1:
        raise UnplaceableError(PRODUCT)
    terms, result = op.get_attr("equation").decode().replace(" ", "").split("->")
    place, labels = placed(inputs[given[0]]), terms.split(",")[given[0]]
    rest = string.ascii_uppercase[: len(place.axes) - len(labels.replace("...", ""))]
    labels, result = labels.replace("...", rest), result.replace("...", rest)
    if len(set(labels)) < len(labels):
        raise UnplaceableError("an Einsum that takes a diagonal")
    for axis, label in enumerate(labels):
        if label not in result:
            place = collapse(place, axis)
    axes = dict(zip(labels, place.axes, strict=True))
    counts = op.outputs[0].shape
    named = [axes.get(label) or free(n or 1) for label, n in zip(result, counts, strict=True)]
    return [place._replace(axes=tuple(named))]


def _read_list(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    return [_without(placed(inputs[0]), 0)]


def _write_list(op: tf.Operation, inputs: Sequence[Place]) -> Sequence[Place]:
    """Place a list whose items are written in the order of another one, the first of the inputs."""
    other, item = placed(inputs[0]), placed(inputs[2])
    along = {part.source for part in other.axes[0]}
    fields = [
        old if axis in along else new
        for axis, (old, new) in enumerate(zip(other.fields, item.fields, strict=True))
    ]
    return [Placement((other.axes[0], *item.axes), tuple(fields))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), _pointwise),
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), _reshape),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    **dict.fromkeys(("Split", "SplitV"), _split),
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Cumsum", "Cumprod"), _along_last),
    **dict.fromkeys(("MatMul", "BatchMatMulV2", "BatchMatMulV3", "BatchMatMul"), _matmul),
    **WINDOW_RULES,
    "IdentityN": _each,
    "TensorListFromTensor": _each,
    "TensorListStack": _each,
    "TensorListGetItem": _read_list,
    "TensorListSetItem": _write_list,
    "BroadcastTo": _broadcast,
    "Transpose": _transpose,
    "ConcatV2": _concatenate,
    "Pack": _stack,
    "Unpack": _unstack,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "GatherV2": _gather,
    "Tile": _tile,
    "ReverseV2": _reverse,
    "Einsum": _einsum,
}
