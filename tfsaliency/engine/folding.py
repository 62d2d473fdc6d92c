"""A forward pass with batch normalization folded into the linear operation before it.

At inference, batch normalization scales and shifts each channel, as the kernel and the bias of a
convolution could. Only during tracing, each such layer multiplies the kernel before it in place of
its inputs, with the weights that are read at every call. The operation before it stays in the
graph, for other readers; without any, TensorFlow drops it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .functions import Model
from .layer_names import named_layers
from .model_io import Forward

# The number of the kernel among the inputs of a linear operation, and its axes of output channels.
_KERNELS = {
    "Conv2D": (1, (-1,)),
    "Conv3D": (1, (-1,)),
    "DepthwiseConv2dNative": (1, (-2, -1)),
    "Conv2DBackpropInput": (1, (-2,)),
    "Conv3DBackpropInputV2": (1, (-2,)),
    "MatMul": (1, (-1,)),
}
# Operations behind it that move values, but not from one channel to another.
_MOVES = ("Squeeze", "BatchToSpaceND", "Identity")
_SUMS = ("BiasAdd", "AddV2")
# Scaling values takes three passes over them, two forward and one back, and scaling the kernel one.
# At 8 images, a kernel with more weights for each channel than 24 times the positions is left.
_GAIN = 24


class _Linear(NamedTuple):
    """A linear operation, and the operations between it and a batch normalization.

    Parameters
    ----------
    op
        The linear operation.
    moves
        Operations that move its values, the first one first.
    biases
        What is added to each channel.
    """

    op: tf.Operation
    moves: list[tf.Operation]
    biases: list[tf.Tensor]


def fold_normalization(forward: Forward, callee: Model) -> Forward:
    """Return a forward pass in which batch normalization is folded where that is faster.

    Layers are folded behind convolutions and dense layers, with or without a bias, if their outputs
    have no other reader so far, in float32 and float64.

    Parameters
    ----------
    forward
        The forward pass of callee.
    callee
        The model or its clone; one without layers is left as it is.
    """
    if not isinstance(callee, keras.Model):
        return forward
    found = (layer for _, layer in named_layers(callee))
    layers = [each for each in found if type(each) is keras.layers.BatchNormalization]
    if not layers:
        return forward

    def run(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        with _folding(layers, arrays):
            return forward(arrays)

    return run


@contextmanager
def _folding(
    layers: Sequence[keras.layers.BatchNormalization], sources: Sequence[tf.Tensor]
) -> Iterator[None]:
    """Let the layers fold themselves while a forward pass is traced from the sources."""
    unique = list({id(layer): layer for layer in layers}.values())
    before = [vars(layer).get("call") for layer in unique]
    try:
        for layer in unique:
            vars(layer)["call"] = _folded_call(layer, sources)
        yield
    finally:
        for layer, own in zip(unique, before, strict=True):
            if own is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = own


def _folded_call(
    layer: keras.layers.BatchNormalization, sources: Sequence[tf.Tensor]
) -> Callable[..., Any]:
    original, mine = layer.call, threading.get_ident()
    graph = tf.compat.v1.get_default_graph()

    @functools.wraps(original)
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        here = tf.compat.v1.get_default_graph() is graph and threading.get_ident() == mine
        linear = _find(layer, inputs, sources) if here and not training else None
        if linear is None:
            return original(inputs, training=training, mask=mask)
        return _fold(linear, *_scale_and_shift(layer, inputs.dtype))

    return call


def _find(
    layer: keras.layers.BatchNormalization, inputs: Any, sources: Sequence[tf.Tensor]
) -> _Linear | None:
    """Return the linear operation of a layer's inputs, if it can be folded into it."""
    if not tf.is_tensor(inputs):
        return None
    rank, kind = inputs.shape.rank, inputs.dtype
    if kind not in (tf.float32, tf.float64) or kind != layer.compute_dtype or rank is None:
        return None
    if layer.axis not in (-1, rank - 1):
        return None
    moves: list[tf.Operation] = []
    biases: list[tf.Tensor] = []
    tensor, readers = inputs, 0
    while len(tensor.consumers()) == readers:
        op = tensor.op
        if op.type in _KERNELS:
            linear = _Linear(op, moves[::-1], biases)
            return linear if _is_foldable(op, sources) and _pays(op, inputs.shape) else None
        if op.type in _MOVES and _keeps_channels(op):
            moves.append(op)
        elif op.type in _SUMS and _adds_bias(op, sources):
            biases.append(op.inputs[1])
        else:
            return None
        tensor, readers = op.inputs[0], 1  # the operation itself
    return None


def _is_foldable(op: tf.Operation, sources: Sequence[tf.Tensor]) -> bool:
    """Return whether the last axis has the channels, and the kernel does not depend on sources."""
    if op.type == "MatMul":
        last = not op.get_attr("transpose_b")
    else:
        last = op.get_attr("data_format") in (b"NHWC", b"NDHWC")
    number, _ = _KERNELS[op.type]
    return last and not _depends(op.inputs[number], sources)


def _pays(op: tf.Operation, shape: tf.TensorShape) -> bool:
    """Return whether scaling the kernel takes less time than scaling outputs of a shape."""
    number, _ = _KERNELS[op.type]
    positions, size = shape[1:-1].num_elements(), op.inputs[number].shape.num_elements()
    if shape[-1] is None or size is None:
        return False
    return positions is None or size <= _GAIN * positions * shape[-1]


def _keeps_channels(op: tf.Operation) -> bool:
    before, after = op.inputs[0].shape, op.outputs[0].shape
    if None in (before.rank, after.rank) or before[-1] != after[-1]:
        return False
    # An axis of size 1 may be squeezed in place of the channel.
    return op.type != "Squeeze" or bool(
        {-1, before.rank - 1}.isdisjoint(op.get_attr("squeeze_dims"))
    )


def _adds_bias(op: tf.Operation, sources: Sequence[tf.Tensor]) -> bool:
    """Return whether a sum adds a number for each channel that does not depend on the sources."""
    values, bias = op.inputs
    if op.type == "BiasAdd" and op.get_attr("data_format") != b"NHWC":
        return False
    alike = bias.shape.num_elements() == bias.shape[-1] == values.shape[-1]
    return bool(alike) and not _depends(bias, sources)


def _depends(tensor: tf.Tensor, sources: Sequence[tf.Tensor]) -> bool:
    """Return whether a tensor is computed from one of the sources."""
    given = {source.ref() for source in sources}
    seen: set[Any] = set()
    pending = [tensor]
    while pending:
        each = pending.pop()
        if each.ref() in given:
            return True
        if each.ref() not in seen:
            seen.add(each.ref())
            pending.extend(each.op.inputs)
    return False


def _scale_and_shift(
    layer: keras.layers.BatchNormalization, kind: tf.DType
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the factor of each channel, and what is added to it, from the layer's weights."""
    mean, variance = (tf.cast(w, kind) for w in (layer.moving_mean, layer.moving_variance))
    scale = tf.math.rsqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= tf.cast(layer.gamma, kind)
    shift = -mean * scale
    return scale, shift + tf.cast(layer.beta, kind) if layer.center else shift


def _fold(linear: _Linear, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Return the outputs of the batch normalization, by the operation with another kernel."""
    op = linear.op
    number, axes = _KERNELS[op.type]
    inputs = list(op.inputs)
    kernel = inputs[number]
    shape = [1] * kernel.shape.rank
    for axis in axes:
        shape[axis] = kernel.shape[axis]
    inputs[number] = kernel * tf.reshape(scale, shape)
    outputs = _repeat(op, inputs)
    for move in linear.moves:
        outputs = _repeat(move, [outputs, *move.inputs[1:]])
    for bias in linear.biases:
        shift += scale * tf.reshape(bias, [-1])
    return tf.nn.bias_add(outputs, shift)


def _repeat(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Compute an operation for other inputs, seen by an open tape."""
    if op.type == "Squeeze":  # whose attribute has another name there
        return tf.squeeze(inputs[0], op.get_attr("squeeze_dims"))
    arguments = op.op_def.input_arg
    inferred = {name for a in arguments for name in (a.type_attr, a.number_attr, a.type_list_attr)}
    known = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name not in inferred}
    given = {a.name: value for a, value in zip(arguments, inputs, strict=True)}
    return getattr(tf.raw_ops, op.type)(**given, **known)
