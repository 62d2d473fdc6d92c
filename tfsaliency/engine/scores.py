"""Scores to differentiate: one number for each image, of its class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import ModelError, OpaqueModelError, OptionError, TfSaliencyError, one_line
from ..tables import Table
from .heads import Head, Meaning
from .targets import TOP_CLASS

Score = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_EXPECTED = (
    "Expected a score callable (outputs, targets) -> one float per image, (n,), of TensorFlow or "
    "keras.ops operations on symbolic tensors"
)


@dataclass(frozen=True, eq=False)
class OnLogits:
    """A score of the logits; made by on_logits."""

    function: Score

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the function's score of the logits."""
        return self.function(logits, targets)


@dataclass(frozen=True, eq=False)
class SimilarityTo:
    """The cosine similarity of outputs and vectors; made by similarity_to."""

    vectors: Any

    def values(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the similarity (n, k) of each image's output (n, d) to each vector (k, d)."""
        if len(outputs.shape) != 2 or outputs.shape[-1] != self.vectors.shape[-1]:
            raise OptionError(
                f"Expected an embedding (n, {self.vectors.shape[-1]}), like the vectors of "
                f"similarity_to. Received: outputs {outputs.shape}."
            )
        wide = outputs if outputs.dtype.size > tf.float32.size else tf.cast(outputs, tf.float32)
        # The direction does not depend on the length, which may be tiny or huge.
        largest = tf.reduce_max(tf.abs(wide), axis=-1, keepdims=True)
        scaled = tf.math.divide_no_nan(wide, tf.stop_gradient(largest))
        unit = tf.math.l2_normalize(scaled, axis=-1)
        return tf.matmul(unit, tf.constant(self.vectors, wide.dtype), transpose_b=True)

    def __call__(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the similarity (n,) of each image's output to the vector of its target."""
        return _take(self.values(outputs), targets)


def on_logits(function: Score) -> Score:
    """Return a score that gets the logits in place of the model's outputs.

    Parameters
    ----------
    function
        A callable (logits, targets (n,)) -> (n,). The logits are the values before a final softmax
        or sigmoid, with the shape of the outputs, (n, classes) for a classifier; without one, the
        outputs.

    Returns
    -------
    A score for saliency_map and prepare. Unlike a score of probabilities, it is not rounded away
    where the network is certain.

    Raises
    ------
    OptionError
        If it is no function.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(3, activation="softmax")])
    >>> first_over_second = tfs.on_logits(lambda logits, targets: logits[:, 0] - logits[:, 1])
    >>> maps = tfs.saliency_map(model, np.ones((1, 4, 4, 3)), score=first_over_second)
    >>> maps.score
    'lambda (of the logits)'
    """
    if not callable(function):
        raise OptionError(
            "Expected a function (logits, targets) -> (n,). "
            f"Received: {function!r} (of type {type(function).__name__})."
        )
    return OnLogits(function)


def similarity_to(vectors: Any) -> Score:
    """Return the cosine similarity to vectors as a score, for networks that return embeddings.

    Parameters
    ----------
    vectors
        One vector (d,), or k vectors (k, d), such as the embeddings of k texts or photos. The
        target of an image is the index of a vector; by default, the most similar one. The
        similarity of an image to itself has its maximum there, so its derivative is zero.

    Returns
    -------
    A score for saliency_map and prepare, of networks whose outputs are (n, d).

    Raises
    ------
    OptionError
        If vectors are not finite numbers (d,) or (k, d), or one is zero.

    References
    ----------
    Radford et al. 2021, arXiv:2103.00020 (CLIP).

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> embed = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> photos = np.random.default_rng(0).uniform(size=(5, 4, 4, 3)).astype("float32")
    >>> vectors = embed.predict(photos[:2], verbose=0)
    >>> maps = tfs.saliency_map(embed, photos[2:], targets=[0, 1, 1],
    ...                         score=tfs.similarity_to(vectors))
    >>> maps.score, bool(np.allclose(maps.scores[0], maps.outputs[0] @ vectors[0], rtol=1e-4))
    ('cosine similarity', True)
    """
    try:
        real = not np.iscomplexobj(vectors) and not np.ma.is_masked(vectors)
        array = np.atleast_2d(np.asarray(vectors, dtype=np.float64)) if real else np.zeros((0, 0))
    except Exception:  # of a class that NumPy cannot convert
        array = np.zeros((0, 0))
    usable = array.ndim == 2 and array.size and np.isfinite(array).all()
    if not usable or not np.abs(array).max(axis=-1).all():
        raise OptionError(
            "Expected vectors as finite numbers (d,) or (k, d), none of them zero. "
            f"Received: {getattr(vectors, 'shape', type(vectors).__name__)}."
        )
    array = array / np.abs(array).max(axis=-1, keepdims=True)
    return SimilarityTo(array / np.linalg.norm(array, axis=-1, keepdims=True))


def _logit(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the value before the final softmax or sigmoid, if there is one."""
    if head.activation == "hidden":
        raise OpaqueModelError(
            "Cannot tell whether the model ends in a softmax: its outputs come from a "
            "tf.function. Expected layers that can be inspected. Pass a callable as score, for "
            "example lambda outputs, targets: tf.gather(outputs, targets, batch_dims=1), or "
            "lambda outputs, targets: outputs[:, 0] of a single output."
        )
    return _signed(head, head.logits, targets)


def _probability(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the output of the final softmax or sigmoid."""
    _require_probabilities(head, "probability")
    if head.activation == "log_softmax":
        return _take(tf.nn.softmax(head.logits), targets)
    if not head.has_two_classes:
        return _take(head.outputs, targets)
    one = head.outputs[..., 0]
    return tf.where(_per_position(targets == 1, one), one, 1 - one)


def _log_probability(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of the probability, computed from the logits."""
    _require_probabilities(head, "log_probability")
    if head.activation in ("softmax", "log_softmax"):
        return _take(tf.nn.log_softmax(head.logits), targets)
    return tf.math.log_sigmoid(_signed(head, head.logits, targets))


def _margin(head: Head, targets: tf.Tensor) -> tf.Tensor:
    """Return the logit minus the largest other logit."""
    if head.has_two_classes:  # of the two logits 0 and z
        return _logit(head, targets)
    if head.logits.shape[-1] < 2:
        raise OptionError(
            "score='margin' is the logit minus the largest other logit. Expected a model of at "
            f"least 2 outputs. Received: {head.logits.shape[-1]}. Use score='logit'."
        )
    target = tf.one_hot(targets, head.logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(_per_position(target, head.logits), head.logits.dtype.min, head.logits)
    return _logit(head, targets) - tf.reduce_max(others, axis=-1)


SCORES: Table[Callable[[Head, tf.Tensor], tf.Tensor]] = Table(
    "score",
    {
        "logit": _logit,
        "probability": _probability,
        "log_probability": _log_probability,
        "margin": _margin,
    },
)


def check_score(score: str | Score | None) -> None:
    """Raise OptionError unless score is None, a known name or a callable."""
    if score is not None and not callable(score):
        SCORES.named(score)


def score_head(score: str | Score | None, head: Head) -> Head:
    """Return the head whose outputs a score is about: similarities in place of an embedding."""
    if not isinstance(score, SimilarityTo):
        return head
    values = score.values(head.outputs)
    return Head(head.returned, values, values, "none", "classes")


def score_values(
    score: str | Score | None, head: Head, targets: tf.Tensor, region: tf.Tensor | None = None
) -> tf.Tensor:
    """Compute the score (n,) of each image's target.

    Parameters
    ----------
    score
        A key of SCORES, None for the logit, or a callable (outputs, targets (n,)) -> (n,) of the
        outputs as the model returns them.
    head
        The head of the traced model.
    targets
        Class indices, (n,).
    region
        The weight of each position (n, positions), for outputs of positions; None for all.
    """
    if isinstance(score, SimilarityTo):
        return _take(head.logits, targets)
    if callable(score):
        return _call_score(score, head, targets)
    if head.outputs.shape.rank is None or head.outputs.shape[-1] is None:
        raise ModelError(
            f"score={score or 'logit'!r} needs outputs of a known number of classes. Received: "
            f"{head.outputs.shape}. Pass a callable (outputs, targets) -> (n,) as score."
        )
    return _pool(SCORES[score or "logit"](head, targets), region)


def choose_targets(
    score: str | Score | None, head: Head, targets: tf.Tensor, region: tf.Tensor | None
) -> tf.Tensor:
    """Replace TOP_CLASS by the model's top class; of several positions, by their mean output.

    For a callable score of outputs at positions that are not known to be classes, it stays.
    """
    if callable(score) and head.is_dense and head.meaning == "outputs":
        return targets
    if head.has_two_classes:
        one = head.outputs[..., 0] if head.meaning == "binary" else tf.sigmoid(head.outputs[..., 0])
        top = tf.cast(_pool(one, region) > 0.5, targets.dtype)
    else:
        top = tf.argmax(_pool(head.outputs, region, 1), axis=-1, output_type=targets.dtype)
    return tf.stop_gradient(tf.where(targets == TOP_CLASS, top, targets))


def describe_score(score: str | Score | None, head: Head, region: tf.Tensor | None) -> str:
    """Describe the differentiated score in words, for the result."""
    if isinstance(score, SimilarityTo):
        return "cosine similarity"
    if isinstance(score, OnLogits):
        name = getattr(score.function, "__name__", type(score.function).__name__)
        return f"{name.strip('<>')} (of the logits)"
    if callable(score):
        return getattr(score, "__name__", type(score).__name__)
    if score is None and head.meaning in ("outputs", "vector"):
        words, notes = "output", []
    else:
        words = score or "logit"
        ends = words in ("logit", "margin") and head.activation not in ("none", "hidden")
        notes = [f"before the final {head.activation}"] if ends else []
        if head.has_two_classes and words != "probability":
            notes += ["minus that for class 0"] if words != "log_probability" else []
    if head.is_dense:
        notes.append(f"mean of {'all positions' if region is None else 'the region'}")
    return f"{words} ({'; '.join(notes)})" if notes else words


def require_score(meaning: Meaning, classes: int | None, targets_given: bool) -> None:
    """Raise OptionError if outputs are explained without a score, and nobody knows what they mean.

    Parameters
    ----------
    meaning, classes
        The meaning and number of the model's outputs.
    targets_given
        Whether the caller says which output to explain.
    """
    several = classes is None or classes > 1
    if meaning == "vector":
        found = f"outputs of unit length, as of an embedding, in {classes} dimensions"
    elif meaning == "outputs" and several and not targets_given:
        found = f"{classes or 'several'} outputs, neither probabilities nor logits of a known loss"
    else:
        return
    raise OptionError(
        f"Expected score=, because the outputs of the model do not say what to explain. Received: "
        f"{found}. If they are logits of classes, pass score='logit'; if one output is meant, its "
        "index as targets= with score='logit'; for an embedding, "
        "score=tfsaliency.similarity_to(vectors)."
    )


def _call_score(score: Score, head: Head, targets: tf.Tensor) -> tf.Tensor:
    name = getattr(score, "__name__", type(score).__name__)
    if isinstance(score, OnLogits):
        if head.activation == "hidden":
            _logit(head, targets)  # raises
        single = head.returned.shape.rank == 1
        given = head.logits[:, 0] if single else head.logits
    else:
        given = head.returned
    try:
        returned = score(given, targets)
    except TfSaliencyError:
        raise
    except Exception as error:  # of the caller's function
        raise OptionError(
            f"The score {name} raised {type(error).__name__}: {one_line(error, 200)} {_EXPECTED}, "
            f"here outputs {given.shape} and targets {targets.shape}."
        ) from error
    try:
        values = tf.convert_to_tensor(returned)
    except (TypeError, ValueError):
        values = None
    if values is None:
        raise OptionError(f"{_EXPECTED}. Received: {name} returned {returned!r:.100}.")
    n, fixed = values.shape[:1].as_list() if values.shape.rank else [None], head.outputs.shape[0]
    if values.shape.rank != 1 or not values.dtype.is_floating or n[0] != fixed is not n[0]:
        raise OptionError(
            f"{_EXPECTED}. Received: shape {values.shape}, dtype {values.dtype.name}."
        )
    return values


def _signed(head: Head, values: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return the values of targets; of a single sigmoid, minus the value for class 0."""
    if not head.has_two_classes:
        return _take(values, targets)
    one = values[..., 0]
    return tf.where(_per_position(targets == 1, one), one, -one)


def _per_position(of_image: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Give a tensor (n,) or (n, classes) axes of size 1 for the positions of values."""
    for _ in range(len(values.shape) - len(of_image.shape)):
        of_image = tf.expand_dims(of_image, 1)
    return of_image


def _pool(values: tf.Tensor, region: tf.Tensor | None, kept: int = 0) -> tf.Tensor:
    """Return the mean of values (n, positions, ...) over a region, but for the last `kept` axes."""
    axes = list(range(1, len(values.shape) - kept))
    if not axes:
        return values
    if values.dtype.size < tf.float32.size:  # the number of positions may overflow
        values = tf.cast(values, tf.float32)
    if region is None:
        return tf.reduce_mean(values, axes)
    positions = tf.shape(values)[1 : 1 + len(axes)]
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(region)[1:], positions)]):
        weights = tf.cast(region, values.dtype)
    weights /= tf.reduce_sum(weights, axes, keepdims=True)
    return tf.reduce_sum(values * (weights[..., tf.newaxis] if kept else weights), axes)


def _take(values: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return the values (n, ...) of targets (n,), classes on the last axis."""
    return tf.gather(values, targets, axis=-1, batch_dims=1)


def _require_probabilities(head: Head, score: str) -> None:
    if head.activation not in ("softmax", "log_softmax", "sigmoid"):
        raise OptionError(
            f"score={score!r} needs a model that ends in a softmax or sigmoid. Received: a model "
            "that ends in another operation. Use score='logit', or a callable."
        )
