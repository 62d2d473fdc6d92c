"""The kinds of operations, as relevance sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .graph import Graph

# Operations that move values, or copy them, and change none.
MOVES = frozenset(
    {
        "Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose",
        "ConcatV2", "Concat", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice",
        "GatherV2", "Gather", "GatherNd", "Pad", "PadV2", "MirrorPad", "Tile", "BroadcastTo",
        "ReverseV2", "Roll", "SpaceToBatchND", "BatchToSpaceND", "SpaceToDepth", "DepthToSpace",
        "ResizeNearestNeighbor", "ExtractImagePatches", "CheckNumerics", "EnsureShape",
        "PreventGradient", "StopGradient", "Snapshot",
    }
)  # fmt: skip

# Operations that choose one of several values.
CHOICES = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D", "Max", "Min", "Maximum", "Minimum",
                     "SelectV2", "Select"})  # fmt: skip

# Functions of one value that bend it, and that relevance passes unchanged.
ACTIVATIONS = frozenset({"Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign",
                         "Tanh", "Sigmoid", "LRN", "ClipByValue"})  # fmt: skip

# Functions of one value, of which DeepLIFT passes the finite slope.
UNARY = ACTIVATIONS | {"Sqrt", "Rsqrt", "Reciprocal", "Inv", "Square", "Abs", "Exp", "Expm1", "Log",
                       "Log1p", "Erf", "Erfc", "Sin", "Cos", "Pow"}  # fmt: skip

# Sums and means, whose weights are not negative.
POOLS = frozenset({"AvgPool", "AvgPool3D", "Mean", "Sum", "ResizeBilinear", "ResizeBicubic",
                   "ResizeArea", "ScaleAndTranslate"})  # fmt: skip

# Linear operations with weights. Of the last three, an operand without images is the weights.
CONVOLUTIONS = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput",
                          "Conv3DBackpropInputV2"})  # fmt: skip
PRODUCTS = frozenset({"MatMul", "BatchMatMulV2", "BatchMatMul", "BatchMatMulV3", "Einsum"})

# Operations with functions inside.
CONTROL = frozenset({"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase",
                     "PartitionedCall", "StatefulPartitionedCall"})  # fmt: skip

_SUMS = ("AddV2", "Add", "Sub", "BiasAdd")
_FACTORS = ("Mul", "RealDiv", "FusedBatchNormV3")
# Functions whose value says how much of another signal to pass.
_GATES = ("Sigmoid", "Softmax", "Tanh", "Erf", "Erfc", "Rsqrt", "Reciprocal", "Inv")
_ROOTS = ("Rsqrt", "Reciprocal", "Inv", "Sqrt")
_HARD_SIGMOID = 3.0, 6.0


def is_elementwise(op: tf.Operation, graph: Graph) -> bool:
    """Return whether an operation scales or shifts each value of one input by constants."""
    inputs = graph.varying_inputs(op)
    if op.type == "Neg":
        return True
    if op.type not in (*_SUMS, *_FACTORS) or len(inputs) != 1:
        return False
    if op.type == "RealDiv" and inputs != [0]:
        return False
    if op.type == "FusedBatchNormV3" and (inputs != [0] or op.get_attr("is_training")):
        return False
    shape = op.inputs[inputs[0]].shape
    # A smaller tensor is copied, and not only scaled.
    return bool(shape.rank == op.outputs[0].shape.rank and shape.is_compatible_with(_shape(op)))


def _shape(op: tf.Operation) -> tf.TensorShape:
    return op.outputs[0].shape


def is_linear(op: tf.Operation, graph: Graph) -> bool:
    """Return whether an operation is linear in its inputs that depend on the images."""
    if op.type in (*_SUMS, "AddN") or op.type in MOVES | POOLS:
        return True
    numbers = graph.varying_inputs(op)
    if op.type == "RealDiv":
        return numbers == [0]
    if op.type == "FusedBatchNormV3":
        return numbers == [0] and not op.get_attr("is_training")
    return op.type in CONVOLUTIONS | PRODUCTS | {"Mul"} and len(numbers) == 1


def scale_of(op: tf.Operation, values: tf.Tensor, graph: Graph) -> tf.Tensor:
    """Multiply values with the factor of an elementwise operation."""
    if op.type == "Neg":
        return -values
    (number,) = graph.varying_inputs(op)
    if op.type == "Sub" and number == 1:
        return -values
    if op.type == "Mul":
        return values * op.inputs[1 - number]
    if op.type == "RealDiv":
        return values / op.inputs[1]
    if op.type == "FusedBatchNormV3":
        gamma, variance = op.inputs[1], op.inputs[4]
        factor = gamma * tf.math.rsqrt(variance + op.get_attr("epsilon"))
        if op.get_attr("data_format") == b"NCHW":
            factor = tf.reshape(factor, [1, -1, 1, 1])
        return values * tf.cast(factor, values.dtype)
    return values


def find_signal(op: tf.Operation, graph: Graph) -> int | None:
    """Return which of the two operands of a product is the signal, if the other one is a gate.

    A gate says how much of the signal passes: a sigmoid or a softmax, the error function of GELU,
    or one over a standard deviation.
    """
    inputs = graph.varying_inputs(op)
    if op.type == "RealDiv":
        return 0 if inputs == [0, 1] and _is_gate(op.inputs[1], graph, _ROOTS) else None
    gates = [i for i in inputs if _is_gate(op.inputs[i], graph, _GATES)]
    if len(inputs) == 2 and len(gates) == 2:  # as in a recurrent cell: tanh is the signal
        gates = [i for i in gates if not _is_gate(op.inputs[i], graph, ("Tanh",))]
    if len(inputs) != 2 or len(gates) != 1:
        return None
    return inputs[0] if gates[0] == inputs[1] else inputs[1]


def is_normalizing(op: tf.Operation, graph: Graph) -> bool:
    """Return whether a product divides a signal by its standard deviation."""
    signal = find_signal(op, graph) if op.type in ("Mul", "RealDiv") else None
    return signal is not None and _is_gate(op.inputs[1 - signal], graph, _ROOTS)


def _is_gate(tensor: tf.Tensor, graph: Graph, kinds: tuple[str, ...]) -> bool:
    """Return whether a tensor is one of some functions, scaled, shifted or moved."""
    op = tensor.op
    passing = (*_SUMS, *_FACTORS, "Neg", "Maximum")
    while op.type in MOVES or (op.type in passing and len(graph.varying_inputs(op)) == 1):
        inputs = graph.varying_inputs(op)
        if not inputs or graph.is_source(op.inputs[inputs[0]]):
            return False
        if op.type in ("Mul", "RealDiv") and _is_hard_sigmoid(op, graph):
            return True
        op = op.inputs[inputs[0]].op
    return op.type in kinds


def _is_hard_sigmoid(op: tf.Operation, graph: Graph) -> bool:
    """Return whether an operation divides max(0, min(6, x + 3)) by 6."""
    (number,) = graph.varying_inputs(op)
    above = op.inputs[number].op
    if above.type != "Relu6" or above.inputs[0].op.type not in ("AddV2", "Add"):
        return False
    other = _constant(op.inputs[1 - number])
    shifts = [_constant(tensor) for tensor in above.inputs[0].op.inputs]
    shift, ceiling = _HARD_SIGMOID
    factor = ceiling if op.type == "RealDiv" else 1 / ceiling
    return shift in shifts and other is not None and bool(np.isclose(other, factor, rtol=1e-3))


def _constant(tensor: tf.Tensor) -> Any:
    value = tf.get_static_value(tensor)
    return value.item() if value is not None and np.size(value) == 1 else None
