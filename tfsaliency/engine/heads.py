"""The end of a traced model: its outputs, the logits before them, and what they mean.

The logit is found in the traced graph, so it does not matter how the model is written: with a fused
activation, a layer or a function call, in a nested or subclassed model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

Activation = Literal["softmax", "log_softmax", "sigmoid", "none", "hidden"]
# classes: one of k is right; labels: each of k is right or not; binary: one probability, two
# classes; binary_logit: its logit; outputs: unknown; vector: an embedding.
Meaning = Literal["classes", "labels", "binary", "binary_logit", "outputs", "vector"]

# Ops that may follow the final activation without changing a value.
_TRANSPARENT_OPS = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims")
_CALL_OPS = ("PartitionedCall", "StatefulPartitionedCall")
_FUNCTIONS = {
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "sigmoid": tf.nn.sigmoid,
}
# Losses of classifiers, as plain names: categorical_crossentropy or CategoricalCrossentropy.
_CATEGORICAL = (
    "categoricalcrossentropy", "categoricalfocalcrossentropy", "categoricalhinge", "kldivergence",
)  # fmt: skip
_BINARY = ("binarycrossentropy", "binaryfocalcrossentropy")
# A derivative below so many rounding errors is noise.
_ROUNDING_ERRORS, _VANISHED = 10.0, 1e-30


class Head(NamedTuple):
    """The end of a traced model.

    Parameters
    ----------
    returned
        The outputs as the model returns them.
    outputs
        The outputs with classes on the last axis: (n, classes), or (n, positions, classes) with
        one or several axes of positions.
    logits
        The values before the final softmax or sigmoid; without one, the outputs.
    activation
        The final activation; "hidden" if the outputs come from a function call that cannot be
        inspected.
    meaning
        The meaning of the outputs, as far as the activation and the loss tell.
    ends
        The input and the output of the final activation's op; empty without one.
    before
        The tensor of the graph that the final activation reads; without one, `returned`.
    """

    returned: tf.Tensor
    outputs: tf.Tensor
    logits: tf.Tensor
    activation: Activation
    meaning: Meaning
    ends: tuple[tf.Tensor, ...] = ()
    before: tf.Tensor | None = None

    @property
    def is_dense(self) -> bool:
        """True if there are outputs for each of several positions."""
        return len(self.outputs.shape) > 2

    @property
    def classes(self) -> int | None:
        """The number of classes or outputs; None if unknown."""
        return 2 if self.has_two_classes else self.outputs.shape[-1]

    @property
    def has_two_classes(self) -> bool:
        """True if a single output stands for two classes."""
        return self.meaning in ("binary", "binary_logit")


def find_head(returned: tf.Tensor, loss: Any = None) -> Head:
    """Find the final softmax or sigmoid of a traced model, and the value before it.

    Parameters
    ----------
    returned
        The outputs of the model, floating-point, of a known rank of at least 1.
    loss
        The loss on which the model was trained, if known.
    """
    outputs = tf.expand_dims(returned, -1) if returned.shape.rank == 1 else returned
    op = returned.op
    while op.type in _TRANSPARENT_OPS and op.inputs[0].dtype.is_floating:
        op = op.inputs[0].op
    by_loss = _meaning_of_loss(loss, outputs.shape[-1])
    if op.type in _CALL_OPS:
        return Head(returned, outputs, outputs, "hidden", by_loss or "outputs", before=returned)
    final = op.type in ("Softmax", "LogSoftmax", "Sigmoid")
    if not final or not _same_classes(op.inputs[0], returned):
        return Head(returned, outputs, outputs, "none", by_loss or "outputs", before=returned)
    logits = tf.reshape(tf.cast(op.inputs[0], outputs.dtype), tf.shape(outputs))
    logits = tf.ensure_shape(logits, outputs.shape)
    ends = (op.inputs[0], op.outputs[0])
    if op.type == "Softmax":
        return Head(returned, outputs, logits, "softmax", "classes", ends, ends[0])
    if op.type == "LogSoftmax":
        return Head(returned, outputs, logits, "log_softmax", "classes", before=ends[0])
    meaning: Meaning = "binary" if outputs.shape[-1] == 1 else "labels"
    return Head(returned, outputs, logits, "sigmoid", meaning, ends, ends[0])


def widen_head(head: Head) -> Head:
    """Return the head of a model that computes in 16 bits, with logits and outputs in 32 bits."""
    logits = tf.cast(head.logits, tf.float32)
    function = _FUNCTIONS.get(head.activation)
    outputs = tf.cast(head.outputs, tf.float32) if function is None else function(logits)
    returned = outputs[:, 0] if head.returned.shape.rank == 1 else outputs
    ends = head.ends and (logits, outputs)
    return head._replace(returned=returned, outputs=outputs, logits=logits, ends=ends)


def find_loss(model: Any, output: str | int | None, names: tuple[str, ...]) -> Any:
    """Return the loss with which a model was compiled, for one of its outputs; None if unknown."""
    loss = getattr(model, "loss", None) if hasattr(model, "compile") else None
    if not isinstance(loss, (Mapping, list, tuple)):
        return loss
    if isinstance(loss, Mapping) and isinstance(output, str):
        return loss.get(output)
    place = names.index(output) if isinstance(output, str) and output in names else output or 0
    if not isinstance(place, int) or place >= len(names):
        return None
    if isinstance(loss, Mapping):
        return loss.get(names[place])
    return loss[place] if len(loss) == len(names) else None


def describe_loss(loss: Any) -> tuple[str, bool]:
    """Return the name of a loss, and whether it takes logits.

    A loss is given by name, as a function or as an object, also of a derived class.
    """
    while isinstance(loss, functools.partial):
        if "from_logits" in loss.keywords:
            return describe_loss(loss.func)[0], bool(loss.keywords["from_logits"])
        loss = loss.func
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # a name that Keras does not know
            return str(loss), False
    names = [getattr(loss, "__name__", ""), *(each.__name__ for each in type(loss).__mro__)]
    known = [name for name in names if _plain(name) in (*_CATEGORICAL, *_BINARY)]
    options = getattr(loss, "_fn_kwargs", None) or {}
    logits = getattr(loss, "from_logits", options.get("from_logits", False))
    return (known or names[:1] or [""])[0], bool(logits)


def _plain(name: str) -> str:
    return name.replace("_", "").casefold().removeprefix("sparse")


def find_saturated(scores: tf.Tensor, head: Head) -> tf.Tensor:
    """Find images whose score is so flat in the final activation that its derivative is noise.

    The derivative of an activation y with respect to its logits is y * (u - s), where u is the
    derivative of the score with respect to y, and s the sum of u * y over classes (for a sigmoid,
    u * y). If u and s are nearly equal, rounding errors are all that is left of the difference.

    Returns
    -------
    Booleans (n,).
    """
    upstream = tf.gradients(scores, [head.ends[1]])[0] if head.ends else None
    if upstream is None:
        return tf.zeros(tf.shape(scores)[:1], tf.bool)
    n = tf.shape(head.ends[1])[0]
    before = tf.gradients(head.ends[1], [head.ends[0]], grad_ys=[upstream])[0]
    y = head.ends[1]
    shift = upstream * y
    if head.activation == "softmax":
        shift = tf.reduce_sum(shift, axis=-1, keepdims=True)
    epsilon = tf.experimental.numpy.finfo(y.dtype.as_numpy_dtype).eps
    noise = _largest(y * tf.maximum(tf.abs(upstream), tf.abs(shift)), n) * float(epsilon)
    slope, given = _largest(before, n), _largest(upstream, n)
    return (given > 0) & ((slope < _ROUNDING_ERRORS * noise) | (slope < _VANISHED * given))


def _largest(values: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """Return the largest absolute value of each image, (n,) in at least 32 bits."""
    wide = values if values.dtype.size >= tf.float32.size else tf.cast(values, tf.float32)
    return tf.reduce_max(tf.reshape(tf.abs(wide), [n, -1]), axis=1)


def _same_classes(before: tf.Tensor, returned: tf.Tensor) -> bool:
    """Return whether an activation has the classes of the outputs on its last axis."""
    if returned.shape.rank == 1:
        return bool(before.shape.rank == 1 or before.shape[-1] == 1)
    return bool(before.shape[-1] == returned.shape[-1])


def _meaning_of_loss(loss: Any, outputs: int | None) -> Meaning | None:
    if loss is None:
        return None
    name, logits = describe_loss(loss)
    if _plain(name) in _BINARY:
        one: Meaning = "binary_logit" if logits else "binary"
        return one if outputs == 1 else "labels"
    return "classes" if _plain(name) in _CATEGORICAL else None
