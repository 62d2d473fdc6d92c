"""What a rule of placement reads of a TensorFlow operation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..arrays import Array
from .joins import Place
from .parts import Placement, UnplaceableError, Unplaced

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
        inputs = iter(op.inputs)
        given: dict[str, Any] = {}
        for argument in op.op_def.input_arg:
            if argument.number_attr:
                n = op.get_attr(argument.number_attr)
                given[argument.name] = [_value(each) for each in islice(inputs, n)]
            else:
                given[argument.name] = _value(next(inputs))
        accepted = inspect.signature(run).parameters
        options = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in accepted}
        with tf.init_scope():
            value = tf.nest.flatten(run(**given, **options))[tensor.value_index].numpy()
    return np.asarray(value)


def shape_of(tensor: tf.Tensor) -> list[int]:
    """Return the shape of a tensor, or raise UnplaceableError if it is not known."""
    if not tensor.shape.is_fully_defined():
        raise UnplaceableError("a tensor of unknown shape")
    return list(tensor.shape)


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
