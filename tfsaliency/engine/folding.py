"""A forward pass with batch normalization folded into the linear operation before it.

At inference, batch normalization scales and shifts each channel, as the kernel and the bias of a
convolution could. Only during tracing, each such layer multiplies the kernel before it in place of
its inputs, with the weights that are read at every call. The operation before it stays in the
graph, and TensorFlow drops it if nothing reads it. If something does, the forward pass is traced
again without folding there: the convolution would be computed twice, and a derivative with respect
to its outputs, inside the model, would miss the normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .functions import Model
from .layer_calls import with_calls
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
    passed
        The tensors from the inputs of the batch normalization back to the linear operation.
    """

    op: tf.Operation
    moves: list[tf.Operation]
    biases: list[tf.Tensor]
    passed: list[tf.Tensor]

    @property
    def has_other_readers(self) -> bool:
        """True if anything else reads a tensor between the two."""
        # The last one is read by what is in front of it; the first one by nothing that is folded.
        return any(len(t.consumers()) > min(i, 1) for i, t in enumerate(self.passed))


def fold_normalization(forward: Forward, callee: Model) -> Forward:
    """Return a forward pass in which batch normalization is folded where that is faster.

    Layers are folded behind convolutions and dense layers, with or without a bias, if nothing else
    reads their outputs, in float32 and float64.

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

    def run(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        wanted = list({id(layer): layer for layer in layers}.values())
        while wanted:
            folding = _Folding()
            try:
                with with_calls(wanted, folding.call_of):
                    outputs = forward(arrays)
            except Exception:
                if not folding.done:
                    raise
                break  # the model may look at gradients; if not, the error comes again
            read = folding.layers_with_other_readers()
            if not read:
                return outputs
            wanted = [layer for layer in wanted if id(layer) not in read]
        return forward(arrays)

    return run


class _Folding:
    """The layers that fold themselves while a forward pass is traced."""

    def __init__(self) -> None:
        self.done: list[tuple[keras.layers.Layer, _Linear]] = []

    def call_of(
        self, layer: keras.layers.BatchNormalization, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the call of a layer that folds it where it can."""

        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            linear = None if training else _find(layer, inputs)
            if linear is None:
                return original(inputs, training=training, mask=mask)
            self.done.append((layer, linear))
            return _fold(linear, *_scale_and_shift(layer, inputs.dtype))

        return call

    def layers_with_other_readers(self) -> set[int]:
        """Return the ids of layers that were folded into something that is read elsewhere, too."""
        return {id(layer) for layer, linear in self.done if linear.has_other_readers}


def _find(layer: keras.layers.BatchNormalization, inputs: Any) -> _Linear | None:
    """Return the linear operation of a layer's inputs, if it can be folded into it."""
    graph = tf.compat.v1.get_default_graph()
    if not tf.is_symbolic_tensor(inputs) or inputs.graph is not graph:
        return None
    rank, kind = inputs.shape.rank, inputs.dtype
    if kind not in (tf.float32, tf.float64) or kind != layer.compute_dtype or rank is None:
        return None
    if layer.axis not in (-1, rank - 1):
        return None
    found = _Linear(inputs.op, [], [], [inputs])
    while not found.has_other_readers:
        op = found.passed[-1].op
        if op.type in _KERNELS:
            # The first move is the nearest one to the linear operation.
            found = found._replace(op=op, moves=found.moves[::-1])
            return found if _has_channels_last(op) and _pays(op, inputs.shape) else None
        if op.type in _MOVES and _keeps_channels(op):
            found.moves.append(op)
        elif op.type in _SUMS and _adds_bias(op):
            found.biases.append(op.inputs[1])
        else:
            return None
        found.passed.append(op.inputs[0])
    return None


def _has_channels_last(op: tf.Operation) -> bool:
    if op.type == "MatMul":
        return not op.get_attr("transpose_b")
    return op.get_attr("data_format") in (b"NHWC", b"NDHWC")


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
    if op.type != "Squeeze":
        return True
    return {-1, before.rank - 1}.isdisjoint(op.get_attr("squeeze_dims"))  # of size 1, like channels


def _adds_bias(op: tf.Operation) -> bool:
    """Return whether a sum adds one number to each channel."""
    values, bias = op.inputs[0].shape, op.inputs[1].shape
    if op.type == "BiasAdd" and op.get_attr("data_format") != b"NHWC":
        return False
    if not bias.rank or values.rank is None or bias.rank > values.rank:
        return False
    return bool(bias.num_elements() == bias[-1] == values[-1])


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
