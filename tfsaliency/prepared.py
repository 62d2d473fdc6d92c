"""Prepared models: a model with the score to differentiate, and the traces made for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from .arrays import Array, as_batch, check_batch
from .diagnostics import image_problems
from .engine.build import build_trace
from .engine.fingerprint import Fingerprint
from .engine.gradients import Trace
from .engine.model_io import (
    Batch,
    Model,
    check_others,
    choose,
    declares_inputs,
    describe_inputs,
    flatten_inputs,
    output_names,
    symbolic_ends,
)
from .engine.precision import PRECISIONS, Precision
from .engine.scores import Score, ScoreName, check_score
from .engine.subject import Subject
from .errors import ImageError, ModelError, OptionError, unknown_option
from .methods.table import Method, identify
from .models.ranges import find_trained_range
from .version import __version__

Preprocess = Callable[[Array], Any]
_KEPT_TRACES = 24  # per model, some 20 MB each: enough for all rows of METHODS


@dataclass(eq=False)
class _Kept:
    """The traces of a model and its fingerprint when they were made, without the model."""

    fingerprint: Fingerprint | None = None
    traces: OrderedDict[Any, Trace] = field(default_factory=OrderedDict)


# The traces of models that the caller did not prepare.
_kept: WeakKeyDictionary[keras.Model, _Kept] = WeakKeyDictionary()
# One thread at a time makes traces; any thread runs them.
_tracing = threading.RLock()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with its score, input, output and preprocessing; made by prepare.

    Parameters
    ----------
    model : keras.Model or callable
        The caller's model, never changed.
    score : str or callable
        The score to differentiate.
    preprocess : callable or None
        Preprocessing applied to a copy of the images.
    input, output : str, int or None
        The explained input and the scored output of a model with several.
    precision : str or None
        The dtype in which layers compute; None for their own.
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
    score: ScoreName | Score = "logit"
    preprocess: Preprocess | None = None
    input: str | int | None = None
    output: str | int | None = None
    precision: str | None = None
    jit_compile: bool = False
    _kept: _Kept = field(default_factory=_Kept, repr=False)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the explained input, with the batch axis first, as in Keras."""
        inputs = describe_inputs(self.model, self.input)
        return (None, *inputs.shapes[inputs.explained])

    def check(self, images: Any) -> Batch:
        """Check and preprocess images (n, h, w, c) and the model's other inputs.

        Preprocessing is called once, with all images.

        Raises
        ------
        ImageError
            If the model cannot take the images; see tfsaliency.arrays.check_batch.
        """
        inputs = describe_inputs(self.model, self.input, images)
        index = inputs.explained
        shape, dtype = inputs.shapes[index], inputs.dtypes[index]
        arrays = check_others(inputs, flatten_inputs(inputs, images))
        if self.preprocess is None:
            batch, limits = check_batch(arrays[index], shape)
            arrays[index] = batch.astype(dtype, copy=False)
        else:
            batch = as_batch(arrays[index], (None,) * (len(shape) - 1) + shape[-1:])
            output = self.preprocess(batch.astype(dtype, copy=True))
            array, limits = check_batch(output, shape, "preprocessed images")
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
        trained = find_trained_range(self.model, index)
        problems = image_problems(arrays[index], limits, trained)
        return Batch(batch, tuple(arrays), inputs, problems)

    def trace(self, methods: Sequence[Method], batch: Batch) -> Trace:
        """Return the trace of these methods for inputs of this shape; make it if there is none.

        Raises
        ------
        OpaqueModelError, NoReluError, UncoveredReluError, ModelError
        """
        # A callable score belongs to this Prepared alone: as_prepared shares no traces of it.
        score = self.score if isinstance(self.score, str) else None
        identities = tuple(identify(method) or method for method in methods)
        key = (identities, score, self.input, self.output, *batch.signature)
        with _tracing:
            traces, fingerprint = self._kept.traces, self._kept.fingerprint
            if fingerprint is None or not fingerprint.matches(self.model):
                traces.clear()
            if key not in traces:
                traces[key] = build_trace(self._subject(methods, batch), methods, batch)
                if len(traces) > _KEPT_TRACES:
                    traces.popitem(last=False)
                self._kept.fingerprint = Fingerprint(self.model)
            traces.move_to_end(key)
            return traces[key]

    def describe(self, score: str, counts: Mapping[str, str]) -> dict[str, str]:
        """Return the settings of a result: the model, the score in words, and the versions."""
        preprocess = self.preprocess
        named = getattr(preprocess, "__qualname__", repr(preprocess))
        return {
            "model": str(getattr(self.model, "name", "a function")),
            **counts,
            "score": score,
            "preprocess": "none" if preprocess is None else named,
            "versions": f"tfsaliency {__version__}, TensorFlow {tf.__version__}, "
            f"Keras {keras.__version__}",
        }

    def _subject(self, methods: Sequence[Method], batch: Batch) -> Subject:
        return Subject(
            self.model,
            batch.inputs,
            batch.specs,
            {method.name: method.backward_rule for method in methods},
            self.score,
            self.output,
            precision=self.precision,
            jit_compile=self.jit_compile,
        )


def prepare(
    model: Model,
    *,
    score: ScoreName | Score = "logit",
    preprocess: Preprocess | None = None,
    input: str | int | None = None,
    output: str | int | None = None,
    precision: Precision | None = None,
    jit_compile: bool = False,
) -> Prepared:
    """Choose score, preprocessing, input and output once; use the result in place of the model.

    saliency_map(model, ...) prepares the model itself, and keeps the compiled functions for the
    next call if score, rules and compositions belong to this package. A callable or an array of
    your own may change between calls, so it is compiled anew each time. A prepared model compiles
    it once, at the first call, and ignores later changes to it.

    Parameters
    ----------
    model
        A built keras.Model, or a callable of TensorFlow operations that takes a batch of images
        and returns outputs (n, k) or (n,), such as a tf.function or an endpoint of a SavedModel.
    score
        "logit" (the value before a final softmax or sigmoid, if there is one), "probability",
        "log_probability", "margin" (the logit minus the largest other one), or a callable
        (outputs, targets (n,)) -> (n,) of the model's outputs.
    preprocess
        A function of a batch (n, h, w, c), such as preprocess_input of keras.applications. It
        receives a copy in the model's dtype; gradients are with respect to its result.
    input
        The input to explain, for a model with several: its name, its key in a dict, or its index.
        Pass the other inputs beside it, as a dict or a tuple; they are constant.
    output
        The output to score, for a model with several: name, key or index.
    precision
        "bfloat16" computes layers in bfloat16 from unchanged weights; logits and scores stay
        float32, and maps have the dtype of the images. It is faster on processors with matrix units
        for bfloat16; benchmarks/README.md has the speed and the error. None keeps the layers'
        dtype.
    jit_compile
        Whether to compile with XLA, as in keras.Model.compile. Meant for GPUs; on a CPU, maps take
        up to twice as long.

    Returns
    -------
    Prepared

    Raises
    ------
    ModelError
        If the model is not built, or a model with several inputs or outputs needs a choice.
    OptionError
        If a score, input, output or precision is unknown.

    References
    ----------
    Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3, for the choice of the logit.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> halved = tfs.prepare(model, score="probability", preprocess=lambda x: x / 2)
    >>> tfs.saliency_map(halved, np.ones((1, 4, 4, 3)))["gradient"].shape
    (1, 4, 4)
    """
    if precision is not None and precision not in PRECISIONS:
        raise unknown_option("precision", precision, PRECISIONS)
    if not isinstance(jit_compile, bool):
        raise OptionError(f"Expected jit_compile as True or False. Received: {jit_compile!r}.")
    check_score(score)
    return Prepared(
        _checked_model(model, input, output),
        score,
        _checked_callable(preprocess),
        input,
        output,
        precision,
        jit_compile,
    )


def as_prepared(
    model: Model | Prepared,
    methods: Iterable[Method],
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
) -> Prepared:
    """Return the model as a Prepared, with its kept traces if score and methods are known."""
    if not tf.executing_eagerly():
        raise OptionError(
            "Expected a call from eager Python. Received: a call inside a tf.function or a graph, "
            "where tensors have no values. Call it outside."
        )
    if isinstance(model, Prepared):
        if score is not None or preprocess is not None:
            raise OptionError(
                "Expected score and preprocess in prepare() only, because the model was prepared "
                f"with score={model.score!r}. Received: score={score!r}, preprocess={preprocess!r}."
            )
        return model
    _checked_model(model)
    score = "logit" if score is None else score
    check_score(score)
    known = isinstance(score, str) and all(identify(m) is not None for m in methods)
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
    if declares_inputs(model):
        describe_inputs(model, input)
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
