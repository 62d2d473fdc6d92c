"""prepare(model, ...): what is differentiated, chosen once, with the traces made for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from .arrays import Array, as_batch, limited_batch
from .endpoints import (
    Model,
    check_others,
    choose,
    flat_inputs,
    inputs_of,
    output_names,
    says_inputs,
    symbolic_ends,
)
from .engines import Batch, Computing, new_trace
from .errors import ImageError, ModelError, OptionError, unknown_option
from .gradients import Trace
from .methods import Method, identity_of
from .precision import PRECISIONS
from .scores import Score, check_score
from .structures import Structure

Preprocess = Callable[[Array], Any]
_KEPT_TRACES = 24  # a model, some 20 MB each: one for each row of METHODS, and some more


@dataclass(eq=False)
class _Kept:
    """The traces of a model, and the structure it had when they were made. It holds no model."""

    structure: Structure | None = None
    traces: OrderedDict[Any, Trace] = field(default_factory=OrderedDict)


# What was traced for models that the caller did not prepare.
_kept: WeakKeyDictionary[keras.Model, _Kept] = WeakKeyDictionary()
# Traces are made and kept by one thread at a time; they run in any.
_tracing = threading.RLock()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with a choice of what is differentiated; made by prepare.

    Parameters
    ----------
    model : keras.Model or callable
        The caller's model, never changed.
    score : str or callable
        What is differentiated.
    preprocess : callable or None
        What is done to a copy of the images first.
    input, output : str, int or None
        Which of several inputs is explained, and which of several outputs is scored.
    precision : str or None
        What the layers compute in, if not in their own dtype.
    jit_compile : bool
        Whether XLA compiles the traces.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2)])
    >>> tfs.prepare(model, score="margin").score
    'margin'
    """

    model: Model
    score: str | Score = "logit"
    preprocess: Preprocess | None = None
    input: str | int | None = None
    output: str | int | None = None
    precision: str | None = None
    jit_compile: bool = False
    _kept: _Kept = field(default_factory=_Kept, repr=False)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the input that is explained, with the batch axis first, as in Keras."""
        inputs = inputs_of(self.model, self.input)
        return (None, *inputs.shapes[inputs.explained])

    def check(self, images: Any) -> Batch:
        """Return the checked images (n, h, w, c) as given, and all inputs as the model gets them.

        Raises
        ------
        ImageError
            For images the model cannot take; see tfsaliency.arrays.as_batch.
        """
        inputs = inputs_of(self.model, self.input, images)
        index = inputs.explained
        shape, dtype = inputs.shapes[index], inputs.dtypes[index]
        arrays = check_others(inputs, flat_inputs(inputs, images))
        if self.preprocess is None:
            batch, limits = limited_batch(arrays[index], shape)
            arrays[index] = batch.astype(dtype, copy=False)
        else:
            batch = as_batch(arrays[index], (None,) * (len(shape) - 1) + shape[-1:])
            output = self.preprocess(batch.astype(dtype, copy=True))
            array, limits = limited_batch(output, shape, "preprocessed images")
            arrays[index] = array.astype(dtype, copy=False)
            if len(arrays[index]) != len(batch):
                raise OptionError(
                    f"Expected preprocess to return a batch of {len(batch)} images. "
                    f"Received: shape {arrays[index].shape}."
                )
        for name, array in zip(inputs.names, arrays, strict=True):
            if len(array) != len(batch):
                raise ImageError(
                    f"Expected {len(batch)} entries in every input. Received: {len(array)} in "
                    f"{name!r}."
                )
        return Batch(batch, tuple(arrays), inputs, limits)

    def trace(self, methods: Sequence[Method], batch: Batch) -> Trace:
        """Return the trace for these methods and inputs of this shape, made or kept.

        Raises
        ------
        OpaqueModelError, NoReluError, UncoveredReluError, ModelError
        """
        # A callable score is that of this Prepared alone: as_prepared shares no traces of it.
        score = self.score if isinstance(self.score, str) else None
        made = tuple(identity_of(method) or method for method in methods)
        key = (made, score, self.input, self.output, *batch.signature)
        with _tracing:
            traces = self._kept.traces
            structure = self._kept.structure
            if structure is None or not structure.is_of(self.model):
                traces.clear()
            if key not in traces:
                computing = Computing(self.precision, self.jit_compile)
                traces[key] = new_trace(
                    self.model, self.output, self.score, methods, batch, computing
                )
                if len(traces) > _KEPT_TRACES:
                    traces.popitem(last=False)
                self._kept.structure = Structure(self.model)
            traces.move_to_end(key)
            return traces[key]


def prepare(
    model: Model,
    *,
    score: str | Score = "logit",
    preprocess: Preprocess | None = None,
    input: str | int | None = None,
    output: str | int | None = None,
    precision: str | None = None,
    jit_compile: bool = False,
) -> Prepared:
    """Choose what is differentiated, once; the result is accepted wherever a model is.

    gradient_map(model, ...) prepares for itself and keeps what it made for the next call on the
    same model, if the score, the rules and the compositions are those of this package: what a
    callable of yours returns, or an array, may change. Prepare by hand to name the choice once, and
    to have these compiled once: what they are when they are first called stays in what is compiled.

    Parameters
    ----------
    model
        A built keras.Model, or any callable of TensorFlow operations that takes a batch of
        images and returns outputs (n, k) or (n,): a tf.function, an endpoint of a SavedModel.
    score
        "logit" (the value before a final softmax or sigmoid, if there is one), "probability",
        "log_probability", "margin" (the logit minus the largest other one), or a callable
        (outputs, targets (n,)) -> (n,) that gets the model's outputs as they are.
    preprocess
        A function of a batch (n, h, w, c), for example that of a keras.applications model. It
        gets a copy, in the model's dtype; gradients are with respect to what it returns.
    input
        Of a model with several inputs, the one to explain: its name, its key in a dict, or its
        index. The others are given beside it, as a dict or a tuple, and kept as they are.
    output
        Of a model with several outputs, the one to score: name, key or index.
    precision
        "bfloat16": the layers compute in it, from weights that stay as they are; logits and scores
        are float32, and maps of the dtype of the images. Where a processor has matrix units for it
        that is faster, and maps differ from those of float32, both as benchmarks/README.md says.
        None for the layers' own dtype.
    jit_compile
        Whether XLA compiles what is traced, as in keras.Model.compile: for GPUs. On a CPU it took
        up to twice as long.

    Returns
    -------
    Prepared

    Raises
    ------
    ModelError
        For what is no built model, and where input or output is needed.
    OptionError
        For an unknown score, input, output or precision.

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
    if precision is not None and precision not in PRECISIONS:
        raise unknown_option("precision", precision, PRECISIONS)
    if not isinstance(jit_compile, bool):
        raise OptionError(f"Expected jit_compile as True or False. Received: {jit_compile!r}.")
    return Prepared(
        _checked_model(model, input, output),
        check_score(score),
        _checked_callable(preprocess),
        input,
        output,
        precision,
        jit_compile,
    )


def as_prepared(
    model: Model | Prepared,
    methods: Iterable[Method],
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
) -> Prepared:
    """Return model as a Prepared, with the traces kept for it if score and methods are known."""
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
    known = isinstance(score, str) and all(identity_of(m) is not None for m in methods)
    kept = _Kept()
    if known and isinstance(model, keras.Model):
        with _tracing:
            kept = _kept.setdefault(model, kept)
    return Prepared(model, score, _checked_callable(preprocess), _kept=kept)


def _checked_model(
    model: Any, input: str | int | None = None, output: str | int | None = None
) -> Model:
    if not isinstance(model, keras.Model):
        if callable(model) and not isinstance(model, type):
            return model
        raise ModelError(
            "Expected a built keras.Model, or a function of a batch of images. "
            f"Received: {_shown(model)}."
        )
    if not model.built:
        raise ModelError(
            f"Expected a built keras.Model. Received: {model.name!r}, not built. "
            "Give it a keras.Input, or call it once on a batch."
        )
    if says_inputs(model):
        inputs_of(model, input)
        outputs = symbolic_ends(model)[1]
        choose("output", output_names(model, outputs), output)
    return model


def _shown(model: Any) -> str:
    if hasattr(model, "signatures"):
        names = ", ".join(f"signatures[{name!r}]" for name in model.signatures)
        return f"a loaded SavedModel. Pass one of its endpoints: {names}"
    text = type(model).__name__ if hasattr(model, "shape") else f"{model!r:.100}"
    return f"{text} (of type {type(model).__name__})"


def _checked_callable(preprocess: Any) -> Any:
    if preprocess is not None and not callable(preprocess):
        raise OptionError(
            "Expected preprocess as a function of a batch (n, h, w, c), or None. "
            f"Received: {preprocess!r}."
        )
    return preprocess
