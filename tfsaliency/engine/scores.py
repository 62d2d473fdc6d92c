"""Scores to differentiate, and the classes they score.

The named scores use a Head, which knows the value before a final softmax or sigmoid. It is found in
the traced graph, so it does not matter how the model is written: with a fused activation, a layer
or a function call, in a nested or subclassed model.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from ..arrays import Array
from ..errors import ModelError, OpaqueModelError, OptionError, unknown_option
from ..tables import Table

Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

TOP_CLASS = -1

# Ops that may follow the final activation without changing a value.
_TRANSPARENT_OPS = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims")
_CALL_OPS = ("PartitionedCall", "StatefulPartitionedCall")


class Head(NamedTuple):
    """The end of a traced model.

    Parameters
    ----------
    outputs
        The outputs of the model, (n, k) for a classifier.
    logits
        The value before the final softmax or sigmoid; without one, the outputs.
    activation
        "softmax", "sigmoid", "none", or "hidden" if the outputs come from a function call that
        cannot be inspected.
    """

    outputs: tf.Tensor
    logits: tf.Tensor
    activation: str


_ACTIVATIONS = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}


def widen_head(head: Head) -> Head:
    """Return the head of a model that computes in 16 bits, with logits and outputs in 32 bits."""
    logits = tf.cast(head.logits, tf.float32)
    activation = _ACTIVATIONS.get(head.activation)
    outputs = tf.cast(head.outputs, tf.float32) if activation is None else activation(logits)
    return Head(outputs, logits, head.activation)


def find_head(outputs: tf.Tensor) -> Head:
    """Find the final softmax or sigmoid of a traced model, and the value before it."""
    op = outputs.op
    while op.type in _TRANSPARENT_OPS and op.inputs[0].dtype.is_floating:
        op = op.inputs[0].op
    if op.type in _CALL_OPS:
        return Head(outputs, outputs, "hidden")
    if op.type not in ("Softmax", "Sigmoid") or op.inputs[0].shape[-1] != outputs.shape[-1]:
        return Head(outputs, outputs, "none")
    logits = tf.reshape(tf.cast(op.inputs[0], outputs.dtype), tf.shape(outputs))
    return Head(outputs, tf.ensure_shape(logits, outputs.shape), op.type.lower())


def _logit(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the value before the final softmax or sigmoid, if there is one."""
    if head.activation == "hidden":
        raise OpaqueModelError(
            "Cannot tell whether the model ends in a softmax: its outputs come from a "
            "tf.function. Expected layers that can be inspected. Pass a callable as score, for "
            "example lambda outputs, targets: tf.gather(outputs, targets, batch_dims=1)."
        )
    return _take(head.logits, targets)


def _probability(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the output of the final softmax or sigmoid."""
    _require_probabilities(head, "probability")
    return _take(head.outputs, targets)


def _log_probability(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of the probability, computed from the logits."""
    _require_probabilities(head, "log_probability")
    log = tf.nn.log_softmax if head.activation == "softmax" else tf.math.log_sigmoid
    return _take(log(head.logits), targets)


def _margin(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the logit minus the largest other logit."""
    if head.logits.shape[-1] < 2:
        raise OptionError(
            "score='margin' is the logit minus the largest other logit. Expected a model of at "
            f"least 2 outputs. Received: {head.logits.shape[-1]}. Use score='logit'."
        )
    target = tf.one_hot(targets, head.logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(target, head.logits.dtype.min, head.logits)
    return _logit(head, targets) - tf.reduce_max(others, axis=-1)


ScoreName = Literal["logit", "probability", "log_probability", "margin"]
SCORES: Table[Callable[[Head, tf.Tensor], tf.Tensor]] = Table(
    "score",
    {
        "logit": _logit,
        "probability": _probability,
        "log_probability": _log_probability,
        "margin": _margin,
    },
)


def check_score(score: str | Score) -> None:
    """Raise OptionError unless score is a known name or a callable."""
    if not callable(score):
        SCORES.named(score)


def score_values(score: str | Score, head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Compute the score (n,) of each image's target.

    Parameters
    ----------
    score
        A key of SCORES, or a callable (outputs, targets (n,)) -> (n,) of the model's outputs.
    head
        The head of the traced model.
    targets
        Class indices, (n,).
    """
    if callable(score):
        values = tf.convert_to_tensor(score(head.outputs, targets))
        if values.shape.rank != 1 or not values.dtype.is_floating:
            raise OptionError(
                "Expected a score callable (outputs, targets) -> one float per image, (n,). "
                f"Received: shape {values.shape}, dtype {values.dtype.name}."
            )
        return values
    if head.outputs.shape.rank != 2 or head.outputs.shape[-1] is None:
        raise ModelError(
            f"score={score!r} needs outputs of shape (n, classes). Received: "
            f"{head.outputs.shape}. Pass a callable (outputs, targets) -> (n,) as score."
        )
    return SCORES[score](head, targets)


def choose_targets(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Replace TOP_CLASS by the model's top class, if the outputs are (n, classes)."""
    if head.outputs.shape.rank != 2:
        return targets
    top = tf.argmax(head.outputs, axis=-1, output_type=targets.dtype)
    return tf.stop_gradient(tf.where(targets == TOP_CLASS, top, targets))


def describe_score(score: str | Score, head: Head) -> str:
    """Describe the differentiated score in words, for the result."""
    if callable(score):
        return getattr(score, "__name__", type(score).__name__)
    if score in ("logit", "margin") and head.activation in ("softmax", "sigmoid"):
        return f"{score} (before the final {head.activation})"
    return score


def resolve_targets(targets: Any, n: int, class_names: Sequence[str] | None = None) -> Array:
    """Return one class index per image, (n,) int32; TOP_CLASS for targets of None.

    Parameters
    ----------
    targets
        None (each image's top class), an int, a class name, or one of these per image.
    n
        The number of images.
    class_names
        The class names in the order of the model's outputs, required for targets by name. The
        search ignores case, and takes spaces and underscores as equal.

    Raises
    ------
    OptionError
        If a name is unknown or ambiguous, or targets are not integers or of a wrong number.
    """
    if isinstance(targets, (list, tuple)):
        listed = list(targets)
    elif getattr(targets, "shape", ()) != ():
        listed = list(np.asarray(targets).reshape(-1))
    else:
        listed = [targets] * n
    if len(listed) != n:
        raise OptionError(
            f"Expected one target, or one for each of {n} images. Received: {len(listed)}."
        )
    return np.array([_class_index(target, class_names) for target in listed], dtype=np.int32)


def check_class_names(class_names: Sequence[str] | None, classes: int | None) -> None:
    """Raise OptionError unless there is one class name for each output of the model."""
    if class_names is None or classes is None:
        return
    listed = [] if isinstance(class_names, (str, dict)) else list(class_names)
    if len(listed) != classes or not all(isinstance(name, str) for name in listed):
        raise OptionError(
            f"Expected class_names as a list of {classes} names, one for each output of the model. "
            f"Received: {type(class_names).__name__} of {len(class_names)}."
        )


def check_targets_in_range(targets: Array, classes: int | None) -> None:
    """Raise OptionError if the model has no output for a target."""
    bad = sorted({int(t) for t in targets if t != TOP_CLASS and t >= (classes or np.inf)})
    if bad:
        raise OptionError(
            f"Target out of range. Expected a class index below {classes}, the number of the "
            f"model's outputs. Received: {', '.join(map(str, bad))}."
        )


def _class_index(target: Any, class_names: Sequence[str] | None) -> int:
    if target is None:
        return TOP_CLASS
    if isinstance(target, str):
        return _index_of_name(target, class_names)
    try:
        index = -1 if isinstance(target, (bool, np.bool_)) else operator.index(target)
    except TypeError:
        index = -1
    if 0 <= index <= np.iinfo(np.int32).max:
        return index
    raise OptionError(
        "Expected a target as None, a class index, a class name, or one of these per image. "
        f"Received: {target!r} (of type {type(target).__name__})."
    )


def _index_of_name(name: str, class_names: Sequence[str] | None) -> int:
    if class_names is None:
        raise OptionError(
            f"The target {name!r} is a class name. Expected class_names=, the names in the order "
            "of the model's outputs, or the class index as an int."
        )
    found = [index for index, each in enumerate(class_names) if _plain(each) == _plain(name)]
    if not found:
        raise unknown_option("class name", name, class_names)
    if len(found) > 1:
        raise OptionError(f"The class name {name!r} stands for classes {found}. Pass the index.")
    return found[0]


def _plain(name: str) -> str:
    return str(name).replace("_", " ").casefold()


def _take(values: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    return tf.gather(values, targets, batch_dims=1)


def _require_probabilities(head: Head, score: str) -> None:
    if head.activation not in ("softmax", "sigmoid"):
        raise OptionError(
            f"score={score!r} needs a model that ends in a softmax or sigmoid. Received: a model "
            "that ends in another operation. Use score='logit', or a callable."
        )
