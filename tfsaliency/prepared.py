"""Prepared models: a model with the score to differentiate, and the traces made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from .arrays import Array, as_batch, cast_checked, check_batch, check_region
from .diagnostics import image_problems
from .engine.build import output_rank
from .engine.functions import Model
from .engine.gradients import Trace
from .engine.heads import describe_loss, find_loss
from .engine.kept_traces import KeptTraces, tracing
from .engine.model_io import (
    Batch,
    check_others,
    choose,
    declares_inputs,
    describe_inputs,
    flatten_inputs,
    output_names,
    symbolic_ends,
)
from .engine.precision import PRECISIONS, Precision
from .engine.scores import Score, check_score
from .engine.subject import Subject
from .errors import ImageError, ModelError, OptionError, check_choice, check_flag
from .methods.table import Method, identify
from .models.ranges import find_trained_range
from .tables import ScoreName

Preprocess = Callable[[Array], Any]
# The traces of models that the caller did not prepare.
_kept: WeakKeyDictionary[keras.Model, KeptTraces] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with its score, input, output and preprocessing; made by prepare.

    Parameters
    ----------
    model : keras.Model or callable
        The caller's model, never changed.
    score : str, callable or None
        The score to differentiate; None for the logit, where the outputs are classes.
    preprocess : callable or None
        Preprocessing applied to a copy of the images.
    input, output : str, int or None
        The explained input and the scored output of a model with several.
    precision : str or None
        The dtype in which layers compute; None for their own.
    jit_compile : bool
        Whether XLA compiles the traces.
    fold : bool
        Whether batch normalization is folded into the operation before it.
    digest : bool
        Whether the record of every result has digests of the weights.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> tfs.prepare(model, score="margin").score
    'margin'
    """

    model: Model
    score: ScoreName | Score | None = None
    preprocess: Preprocess | None = None
    input: str | int | None = None
    output: str | int | None = None
    precision: str | None = None
    jit_compile: bool = False
    fold: bool = True
    digest: bool = False
    _kept: KeptTraces = field(default_factory=KeptTraces, repr=False)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of the explained input, with the batch axis first, as in Keras."""
        inputs = describe_inputs(self.model, self.input)
        return (None, *inputs.shapes[inputs.explained])

    def check(self, images: Any, region: Any = None) -> Batch:
        """Check and preprocess images (n, h, w, c), the model's other inputs, and a region.

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
            arrays[index] = cast_checked(batch, limits, dtype, "images")
        else:
            batch = as_batch(arrays[index], (None,) * (len(shape) - 1) + shape[-1:])
            output = self.preprocess(batch.astype(dtype, copy=True))
            array, limits = check_batch(output, shape, "preprocessed images")
            arrays[index] = cast_checked(array, limits, dtype, "preprocessed images")
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
        if region is not None:
            first = Batch(batch, tuple(arrays), inputs)
            arrays.append(check_region(region, len(batch), self._position_axes(first)))
        return Batch(batch, tuple(arrays), inputs, problems)

    def trace(self, methods: Sequence[Method], batch: Batch) -> Trace:
        """Return the trace of these methods for inputs of this shape; make it if there is none.

        Raises
        ------
        OpaqueModelError, NoReluError, UncoveredReluError, ModelError
        """
        # A callable score belongs to this Prepared alone: as_prepared shares no traces of it.
        score = "a callable" if callable(self.score) else self.score
        identities = tuple(identify(method) or method for method in methods)
        key = (identities, score, self.input, self.output, describe_loss(self._loss()))
        return self._kept.find(key, methods, batch, lambda b: self._subject(methods, b))

    def _position_axes(self, batch: Batch) -> int:
        """Return the number of axes of positions of the scored output, at least 1."""
        if declares_inputs(self.model):
            outputs = symbolic_ends(self.model)[1]
            chosen = choose("output", output_names(self.model, outputs), self.output)
            rank = len(keras.tree.flatten(outputs)[chosen].shape)
        else:
            rank = output_rank(self.model, batch, self.output)
        # Without positions, an error follows that says so.
        return max(rank - 2, 0) or max(batch.images.ndim - 2, 1)

    def _loss(self) -> Any:
        """Return the loss on which the scored output was trained, if known."""
        names: tuple[str, ...] = ()
        if declares_inputs(self.model):
            names = output_names(self.model, symbolic_ends(self.model)[1])
        return find_loss(self.model, self.output, names)

    def _subject(self, methods: Sequence[Method], batch: Batch) -> Subject:
        return Subject(
            self.model,
            batch.inputs,
            batch.specs,
            {method.name: method.backward_rule for method in methods},
            self.score,
            self.output,
            self._loss(),
            precision=self.precision,
            jit_compile=self.jit_compile,
            fold=self.fold,
        )


def prepare(
    model: Model,
    *,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    input: str | int | None = None,
    output: str | int | None = None,
    precision: Precision | None = None,
    jit_compile: bool = False,
    fold: bool = True,
    digest: bool = False,
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
        (outputs, targets (n,)) -> (n,) of the model's outputs, such as on_logits or similarity_to
        return. None is the logit, if the outputs are probabilities or the model was compiled with a
        loss of logits; else "output k" for targets=k. A single sigmoid output has two classes: the
        logit of class 0 is minus that of class 1. Of outputs with positions (n, h, w, classes), a
        named score is the mean over the positions of a region, see saliency_map.
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
    fold
        Whether to fold batch normalization into the convolution or dense layer before it, where
        that is faster. Maps differ by rounding: mostly by 1e-6 of their largest value, and more
        where that switches a ReLU; see docs/speed.md.
    digest
        Whether the record of saliency maps has digests of the model's weights, so that verify can
        name a weight that changed. Reading them takes 7 ms for SqueezeNet, at every call; the
        records of checks, evaluations and runs have them in any case.

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
    if precision is not None:
        check_choice("precision", precision, PRECISIONS)
    check_flag("jit_compile", jit_compile)
    check_flag("fold", fold)
    check_flag("digest", digest)
    check_score(score)
    return Prepared(
        _checked_model(model, input, output),
        score,
        _checked_callable(preprocess),
        input,
        output,
        precision,
        jit_compile,
        fold,
        digest,
    )


def clear_traces(model: Model | Prepared) -> None:
    """Forget the compiled functions of a model, so that the next call compiles them anew.

    Changes of weights and of attributes of layers are noticed by themselves. Call this after a
    change that Python does not show as an attribute: of a global that a Lambda or a custom layer
    reads, or of an object in a closure.

    Parameters
    ----------
    model
        A model, prepared or not. One without compiled functions is left alone.

    Returns
    -------
    None

    Raises
    ------
    OptionError
        If it is no model.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> factor = {"value": 1.0}
    >>> model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(),
    ...                           keras.layers.Lambda(lambda h: h * factor["value"])])
    >>> image = np.ones((2, 2, 1))
    >>> tfs.saliency_map(model, image, targets=0, score="logit")["gradient"].max()
    np.float32(1.0)
    >>> factor["value"] = 3.0
    >>> tfs.clear_traces(model)
    >>> tfs.saliency_map(model, image, targets=0, score="logit")["gradient"].max()
    np.float32(3.0)
    """
    if isinstance(model, Prepared):
        model._kept.clear()
    elif isinstance(model, keras.Model) and model in _kept:
        _kept[model].clear()
    elif not callable(model):
        raise OptionError(f"Expected a model, prepared or not. Received: {model!r:.100}.")


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
    check_score(score)
    known = not callable(score) and all(identify(m) is not None for m in methods)
    kept = KeptTraces()
    if known and isinstance(model, keras.Model):
        with tracing:
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
