"""Inputs and outputs of a model as flat tuples with names, and the checked Batch of inputs.

A model may take and return one tensor, several, or a dict. All other modules see a flat tuple of
inputs, one of which is explained, and one output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ..arrays import Array, Shape, cast_checked, check_batch, digest_array
from ..diagnostics import Problem
from ..errors import ImageError, ModelError, OptionError, unknown_option
from .functions import Model, call_function, find_rank, find_signature, named_inputs

# Flat inputs -> outputs.
Forward: TypeAlias = Callable[[Sequence[tf.Tensor]], tf.Tensor]


class Inputs(NamedTuple):
    """The inputs of a model, in the order of keras.tree.flatten.

    Parameters
    ----------
    structure
        The structure in which the model takes its inputs.
    names
        The name of each input; for a list, the names of its symbolic tensors.
    shapes
        The shape of each without the batch axis, with None for axes of any size.
    dtypes
        The dtype of each.
    explained
        The index of the explained input.
    batch
        The batch size, if the model fixes it.
    declared
        Whether the model declares its inputs itself.
    """

    structure: Any
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype[Any], ...]
    explained: int
    batch: int | None = None
    declared: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of images and all other inputs of a model, checked and preprocessed.

    Parameters
    ----------
    images
        The images to explain before preprocessing, with a batch axis.
    arrays
        All inputs of the model, preprocessed.
    inputs
        The inputs that the model expects.
    problems
        The problems of the images, such as an unusual range.
    declared
        The shapes for which to trace, with None for axes of any size; empty for those of arrays.
    """

    images: Array
    arrays: tuple[Array, ...]
    inputs: Inputs
    problems: tuple[Problem, ...] = ()
    declared: tuple[Shape, ...] = ()

    @property
    def preprocessed(self) -> Array:
        """The images as the model receives them."""
        return self.arrays[self.inputs.explained]

    def of_any_size(self) -> Batch | None:
        """Return the batch with the sizes that the model declares; None if all are fixed."""
        if len(self.arrays) > len(self.inputs.names):  # a region is compared with known sizes
            return None
        declared = list(self.inputs.shapes)
        known = [a.shape[1:] for a in self.arrays]
        if not self.inputs.declared or all(None not in shape for shape in declared):
            return None
        if tuple(declared) == tuple(known):
            return None
        return replace(self, declared=tuple(declared))

    def describe_constants(self) -> dict[str, str]:
        """Return digests of the other inputs and of the region, by name, empty without them."""
        names = (*self.inputs.names, "region")
        return {
            name: digest_array(np.asarray(array))
            for i, (name, array) in enumerate(zip(names, self.arrays, strict=False))
            if i != self.inputs.explained
        }

    @property
    def signature(self) -> tuple[Any, ...]:
        """The names and shapes of the inputs, for which a trace is made."""
        return self.inputs.names, self.specs

    @property
    def specs(self) -> tuple[tf.TensorSpec, ...]:
        """The shape (with n = None) and the dtype of each input."""
        shapes = self.declared or tuple(array.shape[1:] for array in self.arrays)
        pairs = zip(shapes, self.arrays, strict=True)
        return tuple(tf.TensorSpec((None, *shape), array.dtype) for shape, array in pairs)

    def with_images(self, images: Array) -> Batch:
        """Return a batch of other preprocessed images, each with the other inputs of image 0."""
        arrays = [np.repeat(array[:1], len(images), axis=0) for array in self.arrays]
        arrays[self.inputs.explained] = images
        return replace(self, arrays=tuple(arrays))

    def padded(self, part: slice) -> list[Array]:
        """Return a slice of all inputs, padded to the batch size if the model fixes it."""
        return [pad(array[part], self.inputs.batch) for array in self.arrays]


def pad(array: Array, size: int | None) -> Array:
    """Pad an array to a size by repeating its last entry; None does not pad."""
    missing = (size or len(array)) - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def list_weights(model: Model) -> Sequence[keras.Variable]:
    """Return the weights of a model that a trace can replace."""
    return model.weights if isinstance(model, keras.Model) else []


def has_visible_layers(model: Any) -> bool:
    """Return whether calling the model runs its graph of layers and nothing else."""
    if not isinstance(model, keras.Model) or "call" in vars(model):  # set on this one model
        return False
    owner = next(c for c in type(model).__mro__ if "call" in vars(c))
    return owner.__module__.startswith("keras.") and owner.__name__ in ("Functional", "Sequential")


def symbolic_ends(model: keras.Model) -> tuple[Any, Any]:
    """Return the structures of symbolic inputs and outputs of a model with visible layers.

    The attribute `input` is unsuitable: for a Sequential that was called on a tensor, it is that
    tensor.
    """
    if isinstance(model, keras.Sequential):
        several = len(model.outputs) > 1
        return model.inputs[0], model.outputs if several else model.outputs[0]
    return model.input, model.output


def declares_inputs(model: Model) -> bool:
    """Return whether a model declares its inputs before it is called."""
    return isinstance(model, keras.Model) and bool(getattr(model, "inputs", None))


def describe_inputs(model: Model, wanted: str | int | None = None, images: Any = None) -> Inputs:
    """Describe the inputs of a model, by the given images if it does not declare them.

    Parameters
    ----------
    model
        A Keras model or any callable.
    wanted
        The input to explain, a name or an index; None if there is only one.
    images
        The caller's images: a dict or a tuple for several inputs, else one batch.

    Raises
    ------
    ModelError, OptionError
        If there is no such input, or it cannot be explained.
    """
    inputs = (
        _declared_inputs(model, wanted) if declares_inputs(model) else _like(model, wanted, images)
    )
    i = inputs.explained
    name, shape, dtype = inputs.names[i], inputs.shapes[i], inputs.dtypes[i]
    if not tf.as_dtype(dtype).is_floating:
        raise ModelError(
            f"Expected a floating-point input to explain. Received: {name!r} of dtype {dtype}: "
            "there is no derivative with respect to integers. Explain the part of the model "
            "after the cast or the embedding, keras.Model(layer.output, model.output)."
        )
    if not shape:
        raise ModelError(
            "Expected an input of features (f,), or of positions with channels last: (h, w, c), "
            f"(t, c) or (d, h, w, c). Received: {name!r} of one number for each sample."
        )
    return inputs


def _declared_inputs(model: keras.Model, wanted: str | int | None) -> Inputs:
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
        True,
    )


def _like(model: Model, wanted: str | int | None, images: Any) -> Inputs:
    """Describe inputs by the arrays that the caller gave."""
    floating = np.dtype(
        "float64" if getattr(model, "variable_dtype", "") == "float64" else "float32"
    )
    specs = named_inputs(model)
    if len(specs) > 1:
        return Inputs(
            {name: name for name in specs},
            tuple(specs),
            tuple(tuple(spec.shape[1:]) for spec in specs.values()),
            tuple(np.dtype(spec.dtype.as_numpy_dtype) for spec in specs.values()),
            choose("input", list(specs), wanted),
            next(iter(specs.values())).shape[0],
        )
    if not isinstance(images, (Mapping, tuple)):
        explained = choose("input", ["images"], wanted)
        spec = find_signature(model)
        if spec is None:
            shape: Shape = (None,) * find_rank(model, images)
            return Inputs(None, ("images",), (shape,), (floating,), explained)
        dtype = np.dtype(spec.dtype.as_numpy_dtype)
        shape = tuple(spec.shape[1:])
        return Inputs(None, ("images",), (shape,), (dtype,), explained, spec.shape[0])
    arrays = [np.asarray(array) for array in keras.tree.flatten(images)]
    names = _names(images, [f"input {i}" for i in range(len(arrays))])
    explained = choose("input", names, wanted)
    dtypes = [a.dtype if a.dtype.kind in "iub" else floating for a in arrays]
    dtypes[explained] = floating
    shapes = tuple((None,) * (array.ndim - 1) for array in arrays)
    structure = {key: key for key in images} if isinstance(images, Mapping) else (0,) * len(arrays)
    return Inputs(structure, names, shapes, tuple(dtypes), explained)


def flatten_inputs(inputs: Inputs, images: Any) -> list[Any]:
    """Flatten the caller's images to a list with one entry for each input of the model.

    Raises
    ------
    ImageError
        If there is not one entry for each input.
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
    """Check all inputs but the explained one, and return all of them."""
    checked = list(flat)
    for i, name in enumerate(inputs.names):
        if i != inputs.explained:
            batch, limits = check_batch(flat[i], inputs.shapes[i], f"input {name!r}")
            checked[i] = cast_checked(batch, limits, inputs.dtypes[i], f"input {name!r}")
    return checked


def choose(what: str, names: Sequence[str], wanted: str | int | None) -> int:
    """Return the index of the chosen input or output.

    Parameters
    ----------
    what
        "input" or "output", the name of the option.
    names
        The names to choose from.
    wanted
        A name, an index, or None if there is only one.

    Raises
    ------
    ModelError
        If there are several and `wanted` is None.
    OptionError
        If the name or index does not exist.
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
            f"Expected {what} as an index below {len(names)} or one of the names {listed}. "
            f"Received: {wanted!r}."
        )
    return wanted


def output_names(model: Model, outputs: Any) -> tuple[str, ...]:
    """Return the names of a model's flat outputs."""
    given = getattr(model, "output_names", None) or []
    n = len(keras.tree.flatten(outputs))
    return _names(outputs, given if len(given) == n else [f"output {i}" for i in range(n)])


def make_forward(
    model: Model,
    callee: Model,
    inputs: Inputs,
    output: str | int | None,
) -> Forward:
    """Return the function from flat inputs to the chosen output.

    Arrays after the inputs, such as a region, are ignored.

    Parameters
    ----------
    model
        The caller's model, which names the outputs.
    callee
        The model or its clone, which is called.
    inputs
        Its inputs.
    output
        The chosen output.
    """
    known = isinstance(callee, keras.Model)

    def forward(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        arrays = arrays[: len(inputs.names)]
        single = inputs.structure is None
        packed = arrays[0] if single else keras.tree.pack_sequence_as(inputs.structure, [*arrays])
        # The model's state is neither updated nor replaced: a tf.function inside the model would
        # keep the replacement for the caller's own next call.
        with keras.StatelessScope(initialize_variables=False):
            outputs = callee(packed, training=False) if known else call_function(callee, packed)
        flat = keras.tree.flatten(outputs)
        chosen = flat[choose("output", output_names(model, outputs), output)]
        return _as_outputs(chosen)

    return forward


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
    return tensor


def _names(structure: Any, otherwise: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a flat dict in the order of keras.tree.flatten, or the other names."""
    if isinstance(structure, Mapping) and len(structure) == len(otherwise):
        return tuple(keras.tree.flatten({key: key for key in structure}))
    return tuple(otherwise)
