"""Readers of TensorFlow operations for the rules of placement: constants, shapes, attributes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..arrays import Array
from .joins import Place
from .parts import Placement, UnplaceableError, Unplaced, size_of

# (operation, the place of each input) -> the place of each output.
Rule: TypeAlias = Callable[[tf.Operation, Sequence[Place]], Sequence[Place]]


def constant(op: tf.Operation, index: int) -> Array:
    """Return the value of an input that is computed from constants, or raise UnplaceableError."""
    return _value(op.inputs[index])


def _value(tensor: tf.Tensor) -> Array:
    value, op = tf.get_static_value(tensor), tensor.op
    if value is None:
        run: Any = getattr(tf.raw_ops, op.type, None)
        if run is None or op.op_def.is_stateful or not op.inputs:
            raise UnplaceableError("a choice of cells that is not constant")
        accepted = list(inspect.signature(run).parameters)
        given = dict(zip(accepted, _values(op), strict=False))
        given |= {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in accepted}
        try:
            with tf.init_scope():
                value = tf.nest.flatten(run(**given))[tensor.value_index].numpy()
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise UnplaceableError(f"an {op.type} whose value is unknown") from error
    return np.asarray(value)


def _values(op: tf.Operation) -> Iterator[Any]:
    """Yield the values of the arguments of an operation, some of which are lists."""
    inputs = iter(op.inputs)
    for argument in op.op_def.input_arg:
        if argument.number_attr:
            n = op.get_attr(argument.number_attr)
            yield [_value(each) for each in islice(inputs, n)]
        else:
            yield _value(next(inputs))


def shape_of(tensor: tf.Tensor, like: Placement | None = None) -> list[int]:
    """Return the shape of a tensor, or raise UnplaceableError if it is not known.

    Behind a function that was traced for batches of any size, static shapes are incomplete.

    Parameters
    ----------
    tensor
        The tensor.
    like
        A placement whose axes have the missing sizes.
    """
    sizes = [] if tensor.shape.rank is None else list(tensor.shape)
    if like is not None and len(like.axes) == len(sizes):
        own = map(size_of, like.axes)
        sizes = [b if a is None else a for a, b in zip(sizes, own, strict=True)]
    if None in sizes or tensor.shape.rank is None:
        raise UnplaceableError("a tensor of unknown shape")
    return sizes


def size_at(tensor: tf.Tensor, axis: int) -> int:
    """Return the size of an axis of a tensor, or raise UnplaceableError if it is not known."""
    size = None if tensor.shape.rank is None else tensor.shape[axis]
    if size is None:
        raise UnplaceableError("a tensor of unknown shape")
    return int(size)


def new_shape_of(tensor: tf.Tensor, old: Placement) -> list[int]:
    """Return the shape of a tensor in which a reshape gives the entries of another one."""
    if tensor.shape.rank is not None and list(tensor.shape).count(None) == 1:
        known = math.prod(size for size in tensor.shape if size is not None)
        missing = math.prod(map(size_of, old.axes)) // known
        return [missing if size is None else size for size in tensor.shape]
    return shape_of(tensor)


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
