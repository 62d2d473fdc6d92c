"""prepare(model, ...): what is differentiated, chosen once, with the traces made for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from .arrays import Array, Shape, as_batch
from .errors import ModelError, OptionError
from .gradients import Gradients, Trace, trace_gradients
from .injection import has_visible_layers, inject, symbolic_ends
from .rules import RULES, Rule, gradient
from .scores import Score, check_score

Preprocess = Callable[[Array], Any]
_KEPT_TRACES = 8  # a model
# How far the outputs of a clone may be from those of the model, as a part of the largest.
_SAME_OUTPUTS, _SAME_HALF_OUTPUTS = 1e-3, 5e-2


@dataclass(eq=False)
class _Kept:
    """The traces of a model, and the structure it had when they were made. It holds no model."""

    structure: tuple[int, ...] = ()
    traces: OrderedDict[Any, Trace] = field(default_factory=OrderedDict)


# What was traced for models that the caller did not prepare.
_kept: WeakKeyDictionary[keras.Model, _Kept] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with a choice of what is differentiated; made by prepare.

    Parameters
    ----------
    model : keras.Model
        The caller's model, never changed.
    score : str or callable
        What is differentiated.
    preprocess : callable or None
        What is done to a copy of the images first.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2)])
    >>> tfs.prepare(model, score="margin").score
    'margin'
    """

    model: keras.Model
    score: str | Score = "logit"
    preprocess: Preprocess | None = None
    _kept: _Kept = field(default_factory=_Kept, repr=False)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The model's input shape with the batch axis first, as in Keras."""
        return (None, *_image_shape(self.model))

    def check(self, images: Any) -> tuple[Array, Array]:
        """Return the checked images (n, h, w, c) as given, and as the model gets them.

        Raises
        ------
        ImageError
            For images the model cannot take; see tfsaliency.arrays.as_batch.
        """
        shape = _image_shape(self.model)
        if self.preprocess is None:
            batch = as_batch(images, shape)
            return batch, batch.astype(self._dtype, copy=False)
        batch = as_batch(images, (None,) * (len(shape) - 1) + shape[-1:])
        output = self.preprocess(batch.astype(self._dtype, copy=True))
        inputs = as_batch(output, shape, "preprocessed images")
        if len(inputs) != len(batch):
            raise OptionError(
                f"Expected preprocess to return a batch of {len(batch)} images. "
                f"Received: shape {inputs.shape}."
            )
        return batch, inputs.astype(self._dtype, copy=False)

    def trace(self, rules: Mapping[str, Rule], inputs: Array) -> Trace:
        """Return the trace for these rules and inputs of this shape, made or kept.

        Raises
        ------
        OpaqueModelError, NoReluError, UncoveredReluError, ModelError
        """
        traces = self._kept.traces
        if self._kept.structure != _structure(self.model):
            traces.clear()
        image = tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype)
        # A callable score is that of this Prepared alone: as_prepared shares no traces of it.
        key = (tuple(rules.items()), self.score if isinstance(self.score, str) else None, image)
        if key not in traces:
            traces[key] = self._new_trace(rules, inputs, image)
            if len(traces) > _KEPT_TRACES:
                traces.popitem(last=False)
            self._kept.structure = _structure(self.model)
        traces.move_to_end(key)
        return traces[key]

    def _new_trace(self, rules: Mapping[str, Rule], inputs: Array, image: tf.TensorSpec) -> Trace:
        if all(rule is gradient for rule in rules.values()):
            forward = _forward(self.model, self.model)
            return trace_gradients(forward, self.model.weights, image, rules, self.score)
        forward = _forward(self.model, inject(self.model))
        trace = trace_gradients(forward, self.model.weights, image, rules, self.score)
        self._check_clone(trace, inputs[:1])
        return trace

    def _check_clone(self, trace: Trace, inputs: Array) -> None:
        """Raise ModelError where the clone does not compute what the model computes."""
        cloned = self.run(trace, inputs, np.zeros(1, np.int32)).outputs
        with tf.init_scope(), keras.StatelessScope(initialize_variables=False):
            own = _forward(self.model, self.model)(tf.constant(inputs))
        cloned, own = (tf.cast(outputs, tf.float64).numpy() for outputs in (cloned, own))
        dtypes = {layer.compute_dtype for layer in self.model._flatten_layers()}
        tolerance = _SAME_HALF_OUTPUTS if dtypes & {"float16", "bfloat16"} else _SAME_OUTPUTS
        allowed = tolerance * np.nanmax(np.abs(own), initial=0.0)
        if not np.allclose(cloned, own, rtol=0, atol=allowed, equal_nan=True):
            raise ModelError(
                f"The clone of {self.model.name!r} with modified ReLUs does not compute what the "
                f"model computes: outputs differ by up to {np.abs(cloned - own).max():.3g}. "
                "Expected layers that return the same each time they are called with "
                "training=False. Use methods='gradient', which needs no clone."
            )

    def run(self, trace: Trace, inputs: Array, targets: Array) -> Gradients:
        """Run a trace on inputs (n, h, w, c) and targets (n,) with the model's present weights."""
        with tf.init_scope():  # not recorded by a tape that the caller may have open
            return trace.run(tf.constant(inputs), tf.constant(targets))

    @property
    def _dtype(self) -> np.dtype[Any]:
        """The floating dtype of the model's input."""
        symbolic = _input(self.model)
        dtype = tf.as_dtype("float32" if symbolic is None else symbolic.dtype)
        return np.dtype(dtype.as_numpy_dtype if dtype.is_floating else np.float32)


def prepare(
    model: keras.Model,
    *,
    score: str | Score = "logit",
    preprocess: Preprocess | None = None,
) -> Prepared:
    """Choose what is differentiated, once; the result is accepted wherever a model is.

    gradient_map(model, ...) prepares for itself and keeps what it made for the next call on the
    same model, if the score and the rules are those of this package: what a callable of yours
    returns may change. Prepare by hand to name the choice once, and to have your callables
    compiled once: what they read when they are first called stays in what is compiled.

    Parameters
    ----------
    model
        A built keras.Model of one input and one output.
    score
        "logit" (the value before a final softmax or sigmoid, if there is one), "probability",
        "log_probability", "margin" (the logit minus the largest other one), or a callable
        (outputs, targets (n,)) -> (n,) that gets the model's outputs as they are.
    preprocess
        A function of a batch (n, h, w, c), for example that of a keras.applications model. It
        gets a copy, in the model's dtype; gradients are with respect to what it returns.

    Returns
    -------
    Prepared

    Raises
    ------
    ModelError
        For what is not a built Keras model of one input and one output.
    OptionError
        For an unknown score.

    References
    ----------
    Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3, for the choice of the logit.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> halved = tfs.prepare(model, score="probability", preprocess=lambda x: x / 2)
    >>> tfs.gradient_map(halved, np.ones((1, 4, 4, 3)))["gradient"].shape
    (1, 4, 4)
    """
    return Prepared(_checked_model(model), check_score(score), _checked_callable(preprocess))


def as_prepared(
    model: keras.Model | Prepared,
    rules: Iterable[Rule],
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
) -> Prepared:
    """Return model as a Prepared, with the traces kept for it if score and rules are known ones."""
    if not tf.executing_eagerly():
        raise OptionError(
            "Expected a call from plain Python. Received: one inside a tf.function or a graph, "
            "where nothing has a value yet. Call it outside."
        )
    if isinstance(model, Prepared):
        if score is not None or preprocess is not None:
            raise OptionError(
                "Expected score and preprocess in prepare() alone, as the model was prepared "
                f"with score={model.score!r}. Received: score={score!r}, preprocess={preprocess!r}."
            )
        return model
    _checked_model(model)
    score = check_score("logit" if score is None else score)
    known = isinstance(score, str) and all(rule in RULES.values() for rule in rules)
    kept = _kept.setdefault(model, _Kept()) if known else _Kept()
    return Prepared(model, score, _checked_callable(preprocess), kept)


def _checked_model(model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"Expected a built keras.Model. Received: {model!r:.100} (of type "
            f"{type(model).__name__})."
        )
    if not model.built:
        raise ModelError(
            f"Expected a built keras.Model. Received: {model.name!r}, not built. "
            "Give it a keras.Input, or call it once on a batch."
        )
    for what in ("input", "output"):
        tensors = getattr(model, what + "s", None)
        if tensors and len(tensors) > 1:
            raise _not_one(what, model, len(tensors))
    shape = _image_shape(model)
    if len(shape) != 3:
        raise ModelError(
            f"Expected a model of images (h, w, c), channels last. Received: {model.name!r} of "
            f"inputs {shape}. Wrap it in one that reshapes, keras.Sequential([keras.Input((h, w, "
            f"c)), keras.layers.Reshape({shape}), model])."
        )
    return model


def _not_one(what: str, model: keras.Model, count: int) -> ModelError:
    return ModelError(
        f"Expected a model of one {what}. Received: {model.name!r} with {count}. "
        "Make one of a single input and output with keras.Model(inputs, outputs)."
    )


def _checked_callable(preprocess: Any) -> Any:
    if preprocess is not None and not callable(preprocess):
        raise OptionError(
            "Expected preprocess as a function of a batch (n, h, w, c), or None. "
            f"Received: {preprocess!r}."
        )
    return preprocess


def _image_shape(model: keras.Model) -> Shape:
    """Return the shape (h, w, c) of one input image, with None where any size will do."""
    symbolic = _input(model)
    return (None, None, None) if symbolic is None else tuple(symbolic.shape[1:])


def _input(model: keras.Model) -> Any:
    """Return the model's symbolic input; None for a subclassed model, which has none."""
    return next(iter(getattr(model, "inputs", None) or []), None)


def _forward(model: keras.Model, callee: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return images -> outputs of callee: the model, or its clone, which takes the same."""
    visible = has_visible_layers(model)
    structure = symbolic_ends(model)[0] if visible else None

    def forward(images: tf.Tensor) -> tf.Tensor:
        packed = keras.tree.pack_sequence_as(structure, [images]) if visible else images
        outputs = keras.tree.flatten(callee(packed, training=False))
        if len(outputs) != 1:
            raise _not_one("output", model, len(outputs))
        return outputs[0]

    return forward


def _structure(model: keras.Model) -> tuple[int, ...]:
    """Return what changes when a layer's attribute is set: an activation, a slope, a statistic.

    Weights are variables, and those are read at every call. Everything else about a layer is
    written into a trace as it is. The attributes of a Functional model change when it is compiled
    or fitted, and say nothing about its graph.
    """
    ids: list[int] = []
    for layer in model._flatten_layers():
        if not isinstance(layer, keras.Model) or not has_visible_layers(layer):
            ids.extend(map(id, vars(layer).values()))
    return tuple(ids)
