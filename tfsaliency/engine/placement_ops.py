"""What a rule of placement reads of a TensorFlow operation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util as _tf_util

from ..arrays import Array
from .placement import Placement, UnplaceableError, Unplaced
from .placement_joins import Place

# (operation, the place of each input) -> the place of each output.
Rule: TypeAlias = Callable[[tf.Operation, Sequence[Place]], Sequence[Place]]


_NOT_CONSTANT = "Placeholder", "Shape", "ShapeN", "Size"


def constant(op: tf.Operation, index: int) -> Array:
    """Return the value of a constant input, or raise UnplaceableError."""
    return _value(op.inputs[index])


def _value(tensor: tf.Tensor) -> Array:
    """Return the value of a tensor that is computed from constants, or raise UnplaceableError."""
    value, op = tf.get_static_value(tensor), tensor.op
    if value is None and op.type == "StridedSlice" and tensor.shape.rank == 1:  # of a shape
        shape = _tf_util.constant_value_as_shape(tensor)
        value = np.array(shape.as_list()) if shape.is_fully_defined() else None
    if value is None:
        run: Any = getattr(tf.raw_ops, op.type, None)
        if op.type in _NOT_CONSTANT or run is None or op.op_def.is_stateful:
            raise UnplaceableError("a choice of cells that is not constant")
        names = [argument.name for argument in op.op_def.input_arg]
        if len(names) != len(op.inputs):
            raise UnplaceableError("a choice of cells that is not constant")
        given = dict(zip(names, map(_value, op.inputs), strict=True))
        accepted = inspect.signature(run).parameters
        options = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in accepted}
        with tf.init_scope():
            value = tf.nest.flatten(run(**given, **options))[tensor.value_index].numpy()
    return np.asarray(value)


def partly_constant(op: tf.Operation, index: int) -> list[int | None]:
    """Return the entries of an input that is a vector, with None for those that vary."""
    tensor = op.inputs[index]
    if tensor.op.type == "Pack":
        return [_entry(each) for each in tensor.op.inputs]
    try:
        return [int(entry) for entry in _value(tensor)]
    except UnplaceableError:
        (size,) = shape_of(tensor)
        return [None] * known(size)


def _entry(tensor: tf.Tensor) -> int | None:
    try:
        return int(_value(tensor))
    except UnplaceableError:
        return None


def shape_of(tensor: tf.Tensor) -> list[int | None]:
    """Return the static shape of a tensor, or raise UnplaceableError."""
    if tensor.shape.rank is None:
        raise UnplaceableError("a tensor of unknown rank")
    return list(tensor.shape)


def known(size: int | None) -> int:
    """Return a size, or raise UnplaceableError if it is unknown."""
    if size is None:
        raise UnplaceableError("an axis of unknown size")
    return size


def placed(place: Place) -> Placement:
    """Return a placement, or raise UnplaceableError."""
    if isinstance(place, Unplaced):
        raise UnplaceableError(place.reason)
    if place is None:
        raise UnplaceableError("an index that depends on the image")
    return place


def attribute(op: tf.Operation, name: str, otherwise: Any) -> Any:
    """Return an attribute of an operation, which not all operations have."""
    try:
        return op.get_attr(name)
    except ValueError:
        return otherwise
