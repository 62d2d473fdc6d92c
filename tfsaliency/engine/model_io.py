"""Inputs and outputs of a model as flat tuples, with their names; and a checked Batch of inputs.

A model may take one batch, several, or a dict of them, and return as much. Everything above this
module sees a flat tuple of inputs, one of which is explained, and one output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..arrays import Array, Shape, as_batch
from ..diagnostics import Problem
from ..errors import ImageError, ModelError, OptionError, unknown_option

Model: TypeAlias = keras.Model | Callable[..., Any]
# Flat inputs -> outputs.
Forward: TypeAlias = Callable[[Sequence[tf.Tensor]], tf.Tensor]
_RANK_OF_AN_IMAGE = 3


class Inputs(NamedTuple):
    """What a model is called with, in the order of keras.tree.flatten.

    Parameters
    ----------
    structure
        How the flat inputs are packed.
    names
        A name for each; of a list, what its symbolic tensor is called.
    shapes
        The shape of each without the batch axis, None where any size will do.
    dtypes
        The dtype of each.
    explained
        Which of them is explained.
    batch
        The number of images in a batch, where the model fixes it.
    """

    structure: Any
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype[Any], ...]
    explained: int
    batch: int | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images and of all other inputs of a model, checked and preprocessed.

    Parameters
    ----------
    images
        The images to explain as they were given, with a batch axis.
    arrays
        All inputs of the model, preprocessed.
    inputs
        The inputs that the model expects.
    problems
        The problems of the images, such as an unusual range.
    """

    images: Array
    arrays: tuple[Array, ...]
    inputs: Inputs
    problems: tuple[Problem, ...] = ()

    @property
    def preprocessed(self) -> Array:
        """The images as the model gets them."""
        return self.arrays[self.inputs.explained]

    @property
    def signature(self) -> tuple[Any, ...]:
        """The part of a batch that a trace is made for: the names and shapes of the inputs."""
        return self.inputs.names, self.specs

    @property
    def specs(self) -> tuple[tf.TensorSpec, ...]:
        """Shape, with n None, and dtype of each input."""
        return tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in self.arrays)

    def with_images(self, images: Array) -> Batch:
        """Return a batch of other preprocessed images, each beside the first's other inputs."""
        arrays = [np.repeat(array[:1], len(images), axis=0) for array in self.arrays]
        arrays[self.inputs.explained] = images
        return replace(self, arrays=tuple(arrays))

    def padded(self, part: slice) -> list[Array]:
        """Return a part of all inputs, padded to the batch size that the model fixes."""
        return [pad(array[part], self.inputs.batch) for array in self.arrays]


def pad(array: Array, size: int | None) -> Array:
    """Repeat the last entry of an array until it has a size; None leaves it as it is."""
    missing = (size or len(array)) - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def list_weights(model: Model) -> Sequence[keras.Variable]:
    """Return the weights of a model for which other values may be given."""
    return model.weights if isinstance(model, keras.Model) else []


def has_visible_layers(model: Any) -> bool:
    """Tell whether calling the model is running its graph of layers, and nothing else."""
    if not isinstance(model, keras.Model) or "call" in vars(model):  # set on this one model
        return False
    owner = next(c for c in type(model).__mro__ if "call" in vars(c))
    return owner.__module__.startswith("keras.") and owner.__name__ in ("Functional", "Sequential")


def symbolic_ends(model: keras.Model) -> tuple[Any, Any]:
    """Return the structures of symbolic inputs and outputs of a model with visible layers.

    The `input` of a Sequential that was called is what it was called on.
    """
    if isinstance(model, keras.Sequential):
        several = len(model.outputs) > 1
        return model.inputs[0], model.outputs if several else model.outputs[0]
    return model.input, model.output


def declares_inputs(model: Model) -> bool:
    """Tell whether a model says what it takes, before it is called."""
    return isinstance(model, keras.Model) and bool(getattr(model, "inputs", None))


def describe_inputs(model: Model, wanted: str | int | None = None, images: Any = None) -> Inputs:
    """Return what a model takes; images tell for a model that does not say.

    Parameters
    ----------
    model
        A Keras model or any callable.
    wanted
        The input to explain, a name or an index; None where there is but one.
    images
        What the caller gave: a dict or a tuple of several inputs, else one batch.

    Raises
    ------
    ModelError, OptionError
        If there is no such input, or it cannot be explained.
    """
    inputs = _said(model, wanted) if declares_inputs(model) else _like(model, wanted, images)
    i = inputs.explained
    name, shape, dtype = inputs.names[i], inputs.shapes[i], inputs.dtypes[i]
    if not tf.as_dtype(dtype).is_floating:
        raise ModelError(
            f"Expected a floating-point input to explain. Received: {name!r} of dtype {dtype}: "
            "there is no derivative with respect to integers. Explain the part of the model "
            "behind the cast or the embedding, keras.Model(layer.output, model.output)."
        )
    if len(shape) < 2:
        raise ModelError(
            "Expected an input of positions with channels last: (h, w, c), (t, c) or (d, h, w, "
            f"c). Received: {name!r} of shape {shape}. {_reshaped(inputs)}"
        )
    return inputs


def _reshaped(inputs: Inputs) -> str:
    if len(inputs.names) > 1:
        return "Explain another input."
    return (
        "Wrap the model in one that reshapes, keras.Sequential([keras.Input((h, w, c)), "
        f"keras.layers.Reshape({inputs.shapes[0]}), model])."
    )


def _said(model: keras.Model, wanted: str | int | None) -> Inputs:
    structure = symbolic_ends(model)[0]
    flat = keras.tree.flatten(structure)
    names = _names(structure, [tensor.name for tensor in flat])
    batches = {tensor.shape[0] for tensor in flat} - {None}
    return Inputs(
        structure,
        names,
        tuple(tuple(tensor.shape[1:]) for tensor in flat),
        tuple(np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype) for tensor in flat),
        choose("input", names, wanted),
        batches.pop() if batches else None,
    )


def _like(model: Model, wanted: str | int | None, images: Any) -> Inputs:
    """Return inputs like what the caller gave."""
    floating = np.dtype(
        "float64" if getattr(model, "variable_dtype", "") == "float64" else "float32"
    )
    if not isinstance(images, (Mapping, tuple)):
        explained = choose("input", ["images"], wanted)
        return Inputs(None, ("images",), ((None,) * _rank(model),), (floating,), explained)
    arrays = [np.asarray(array) for array in keras.tree.flatten(images)]
    names = _names(images, [f"input {i}" for i in range(len(arrays))])
    explained = choose("input", names, wanted)
    dtypes = [a.dtype if a.dtype.kind in "iub" else floating for a in arrays]
    dtypes[explained] = floating
    shapes = tuple((None,) * (array.ndim - 1) for array in arrays)
    structure = {key: key for key in images} if isinstance(images, Mapping) else (0,) * len(arrays)
    return Inputs(structure, names, shapes, tuple(dtypes), explained)


def flatten_inputs(inputs: Inputs, images: Any) -> list[Any]:
    """Return what the caller gave as a flat list, one entry for each of the model's inputs.

    Raises
    ------
    ImageError
        If it is not one entry for each.
    """
    n = len(inputs.names)
    if isinstance(images, Mapping):
        if set(images) != set(inputs.names):
            raise ImageError(
                f"Expected a dict of the inputs {', '.join(map(repr, inputs.names))}. "
                f"Received: {', '.join(map(repr, images))}."
            )
        return [images[name] for name in inputs.names]
    if n == 1:
        return [images]
    if not isinstance(images, (tuple, list)) or len(images) != n:
        received = f"{len(images)}" if isinstance(images, (tuple, list)) else type(images).__name__
        raise ImageError(
            f"Expected a dict or a tuple of {n} inputs: {', '.join(map(repr, inputs.names))}. "
            f"Received: {received}."
        )
    return list(images)


def check_others(inputs: Inputs, flat: Sequence[Any]) -> list[Array]:
    """Return all inputs but the explained one as checked batches; that one as it was given."""
    checked = list(flat)
    for i, name in enumerate(inputs.names):
        if i != inputs.explained:
            batch = as_batch(flat[i], inputs.shapes[i], f"input {name!r}")
            checked[i] = batch.astype(inputs.dtypes[i], copy=False)
    return checked


def choose(what: str, names: Sequence[str], wanted: str | int | None) -> int:
    """Return the index of the input or output that is wanted.

    Parameters
    ----------
    what
        "input" or "output", the option's name.
    names
        Those there are.
    wanted
        A name, an index, or None where there is but one.

    Raises
    ------
    ModelError
        If there are several and none is wanted.
    OptionError
        If there is none of that name or index.
    """
    listed = ", ".join(map(repr, names))
    if wanted is None:
        if len(names) == 1:
            return 0
        raise ModelError(
            f"Expected a model of one {what}, or a choice. Received: one with {len(names)}: "
            f"{listed}. Choose with tfsaliency.prepare(model, ..., {what}={names[0]!r})."
        )
    if isinstance(wanted, str):
        if wanted not in names:
            raise unknown_option(what, wanted, names)
        return list(names).index(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted < len(names):
        raise OptionError(
            f"Expected {what} as an index below {len(names)} or a name of {listed}. "
            f"Received: {wanted!r}."
        )
    return wanted


def output_names(model: Model, outputs: Any) -> tuple[str, ...]:
    """Return a name for each of the flat outputs that a model returned, or will return."""
    given = getattr(model, "output_names", None) or []
    n = len(keras.tree.flatten(outputs))
    return _names(outputs, given if len(given) == n else [f"output {i}" for i in range(n)])


def make_forward(
    model: Model,
    callee: Model,
    inputs: Inputs,
    output: str | int | None,
) -> Forward:
    """Return flat inputs -> the chosen output, (n, k) if it was (n,).

    Parameters
    ----------
    model
        The caller's, whose outputs' names count.
    callee
        What is called: the model, or its clone, which takes the same.
    inputs
        What it takes.
    output
        The output wanted.
    """
    known = isinstance(callee, keras.Model)

    def forward(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        single = inputs.structure is None
        packed = arrays[0] if single else keras.tree.pack_sequence_as(inputs.structure, [*arrays])
        # No state of the model is updated. Nor is any replaced: a tf.function inside the model
        # would keep what it was traced with, for the caller's own next call.
        with keras.StatelessScope(initialize_variables=False):
            outputs = callee(packed, training=False) if known else _call(callee, packed)
        flat = keras.tree.flatten(outputs)
        chosen = flat[choose("output", output_names(model, outputs), output)]
        return _as_outputs(chosen)

    return forward


def _call(function: Callable[..., Any], packed: Any) -> Any:
    """Call a function; the signatures of a SavedModel take their inputs by name only."""
    positional, named = getattr(function, "structured_input_signature", None) or ((None,), {})
    by_name = packed if isinstance(packed, Mapping) else {min(named, default=""): packed}
    try:
        return function(packed) if positional or not named else function(**by_name)
    except (TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        # What NumPy, .numpy() and predict() raise when they are given a tensor without a value.
        name = getattr(function, "__name__", type(function).__name__)
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"Cannot trace {name}: {reason} Expected a function of TensorFlow operations from a "
            "batch to outputs, without NumPy, .numpy() or predict(). Pass the Keras model itself, "
            "or lambda x: model(x)."
        ) from error


def _as_outputs(chosen: Any) -> tf.Tensor:
    try:
        tensor = tf.convert_to_tensor(chosen)
    except (TypeError, ValueError):
        tensor = None
    if tensor is None or not tensor.dtype.is_floating or tensor.shape.rank in (None, 0):
        received = type(chosen).__name__ if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise ModelError(
            "Expected a model or a function that returns floating-point outputs (n, k) or (n,). "
            f"Received: {received}."
        )
    return tf.expand_dims(tensor, -1) if tensor.shape.rank == 1 else tensor


def _names(structure: Any, otherwise: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a flat dict in the order of keras.tree.flatten, else other names."""
    if isinstance(structure, Mapping) and len(structure) == len(otherwise):
        return tuple(keras.tree.flatten({key: key for key in structure}))
    return tuple(otherwise)


def _rank(model: Model) -> int:
    """Return the number of axes of one input of a model that has no symbolic one."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    known = [s for s in shapes.values() if isinstance(s, tuple) and len(s) > 1]
    return len(known[0]) - 1 if len(known) == 1 == len(shapes) else _RANK_OF_AN_IMAGE
