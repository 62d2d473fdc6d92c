"""How the weights of one layer are drawn anew: one pure function of (layer, draw, seed).

A draw never touches the layer, Keras's counters of names, or anybody's random state. Every random
number comes of the seed, so that a layer drawn alone is bit-identical to the same layer in a run.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np

from .arrays import Array
from .errors import OptionError, unknown_option

T = TypeVar("T")
# What Keras raises for what it cannot save, load or build.
_CANNOT = (TypeError, ValueError, NotImplementedError, AttributeError)
_SEEDS = 2**31 - 1


class Unit(NamedTuple):
    """A layer with parameters of its own: what is randomized at once.

    Parameters
    ----------
    path
        Its name, under those of the models and layers that it is in: "outer/inner".
    layer
        The caller's layer.
    parameters
        Its own weights that training changes, frozen or not; not those of layers inside it.
    statistics
        Its other weights, such as the moving mean and variance of a batch normalization.
    """

    path: str
    layer: keras.layers.Layer
    parameters: tuple[keras.Variable, ...]
    statistics: tuple[keras.Variable, ...]

    @property
    def weights(self) -> tuple[keras.Variable, ...]:
        """Parameters, then statistics."""
        return (*self.parameters, *self.statistics)


class Draw(NamedTuple):
    """A way of drawing weights: a name, and a function of a layer and a random generator.

    Parameters
    ----------
    name
        As the result says it.
    values
        (unit, rng) -> new arrays, one for each of unit.weights (or of its parameters alone), None
        for one that stays.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> def uniform(unit, rng):
    ...     return [rng.uniform(-0.1, 0.1, weight.shape) for weight in unit.parameters]
    >>> draw = tfs.Draw("uniform", uniform)
    """

    name: str
    values: Callable[[Unit, np.random.Generator], Sequence[Array | None]]


class Drawn(NamedTuple):
    """What was drawn for one layer.

    Parameters
    ----------
    arrays
        One for each of the unit's weights; None for one that stays.
    unchanged
        The names of those that came out as they were, as the draw has only one value for them:
        a bias that is still zero, drawn by an initializer of zeros.
    """

    arrays: tuple[Array | None, ...]
    unchanged: tuple[str, ...]


def units_of(layer: keras.layers.Layer) -> tuple[Unit, ...]:
    """Return all layers with parameters in a model or layer, from input to output, each once.

    Those inside nested models and custom layers count. The order is that of Model.layers, which
    for Sequential and Functional models is the order in which they are run.
    """
    seen: set[int] = set()
    units: list[Unit] = []
    for path, inner in _walk(layer, "", set()):
        # A wrapper may keep a weight of the layer that it wraps: it is that of the inner one.
        deeper = {id(w) for each in inner._flatten_layers(include_self=False) for w in each.weights}
        parameters, statistics = (_new(w, seen | deeper) for w in _own_weights(inner))
        seen.update(map(id, (*parameters, *statistics)))
        if parameters:
            number = sum(unit.path.split("#")[0] == path for unit in units)
            name = f"{path}#{number + 1}" if number else path
            units.append(Unit(name, inner, parameters, statistics))
    return tuple(units)


def draw_weights(unit: Unit, draw: Draw, seed: int, position: int = 0) -> Drawn:
    """Draw the weights of one layer.

    Parameters
    ----------
    unit
        The layer. It is read, not changed.
    draw
        How.
    seed, position
        What the random numbers come of: the seed, and the layer's position in its model.

    Raises
    ------
    OptionError
        If arrays come out in other shapes, or a weight as it was although it could have changed.
    """
    if getattr(unit.layer, "quantization_mode", None):
        raise OptionError(
            f"The layer {unit.path!r} is quantized. Expected weights of floating point to draw "
            "anew: use the model before quantization."
        )
    rng = np.random.default_rng((checked_seed(seed), position))
    returned = draw.values(unit, rng)
    counts = len(unit.parameters), len(unit.weights)
    if not isinstance(returned, (list, tuple)) or len(returned) not in counts:
        received = len(returned) if isinstance(returned, (list, tuple)) else f"{returned!r:.50}"
        raise OptionError(
            f"Expected draw {draw.name!r} to return a list of an array (or None) for each of the "
            f"{counts[0]} parameters, or {counts[1]} weights, of {unit.path!r}. "
            f"Received: {received}."
        )
    # Copies: a draw may return one buffer again and again.
    arrays = [None if array is None else np.array(array) for array in returned]
    arrays += [None] * (counts[1] - len(arrays))
    unchanged = []
    for weight, array in zip(unit.weights, arrays, strict=True):
        if array is None:
            continue
        present = weight.numpy()
        if array.shape != present.shape:
            raise OptionError(
                f"Expected draw {draw.name!r} to return an array {present.shape} for the weight "
                f"{weight.name!r} of {unit.path!r}. Received: shape {array.shape}."
            )
        if not np.isfinite(array.astype(np.float64)).all():
            raise OptionError(
                f"Expected draw {draw.name!r} to return finite weights. Received: NaN or infinity "
                f"in the weight {weight.name!r} of {unit.path!r}."
            )
        if not np.array_equal(array.astype(present.dtype), present):
            continue
        # Of vectors there are some with one value only, as the bias of an LSTM; not of kernels.
        if array.ndim > 1 and array.min() != array.max():
            raise OptionError(
                f"The draw {draw.name!r} returned for the weight {weight.name!r} of "
                f"{unit.path!r} what it is already. Expected other values: the layer may read "
                "them from a file, or have a random state of its own. Use draw='matched'."
            )
        unchanged.append(f"{unit.path}/{weight.name}")
    return Drawn(tuple(arrays), tuple(unchanged))


def checked_seed(seed: Any) -> int:
    """Return a seed if it is a whole number from 0, else raise OptionError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"Expected a seed as a whole number from 0. Received: {seed!r}.")
    return int(seed)


def _checked_stddev(stddev: Any) -> float:
    if isinstance(stddev, bool) or not isinstance(stddev, (int, float)) or not stddev > 0:
        raise OptionError(f"Expected a standard deviation above 0. Received: {stddev!r}.")
    return float(stddev)


def normal(stddev: float = 0.01) -> Draw:
    """Draw every parameter from N(0, stddev^2), as the MATLAB original does with 0.01."""
    stddev = _checked_stddev(stddev)
    return _by_tensor(f"normal({stddev:g})", lambda w, rng: rng.normal(0.0, stddev, w.shape))


def truncated_normal(stddev: float = 0.01) -> Draw:
    """Draw every parameter from N(0, stddev^2), anew where beyond 2 stddev (Adebayo et al.)."""
    stddev = _checked_stddev(stddev)

    def values(weight: Array, rng: np.random.Generator) -> Array:
        drawn = rng.normal(0.0, 1.0, weight.shape)
        while (beyond := np.abs(drawn) > 2.0).any():
            drawn[beyond] = rng.normal(0.0, 1.0, int(beyond.sum()))
        return stddev * drawn

    return _by_tensor(f"truncated_normal({stddev:g})", values)


def _permuted(weight: Array, rng: np.random.Generator) -> Array:
    flat = weight.ravel()
    drawn = rng.permutation(flat)
    while np.array_equal(drawn, flat) and flat.min() != flat.max():
        drawn = rng.permutation(flat)
    return drawn.reshape(weight.shape)


def _matched(weight: Array, rng: np.random.Generator) -> Array:
    exact = weight.astype(np.float64)
    return rng.normal(exact.mean(), exact.std(), weight.shape)


def _own_initializer(unit: Unit, rng: np.random.Generator) -> list[Array | None]:
    seed = int(rng.integers(_SEEDS))
    drawn = [_by_attribute(unit.layer, weight, seed + i) for i, weight in enumerate(unit.weights)]
    if all(array is not None for array in drawn):
        return drawn
    # Some layers do not keep their initializers: the weights of one built anew are theirs.
    fresh = _built_anew(unit.layer, seed)
    weights = [weight for kind in _own_weights(fresh) for weight in kind]
    if [tuple(w.shape) for w in weights] != [tuple(w.shape) for w in unit.weights]:
        raise OptionError(
            f"The layer {unit.path!r}, built anew from its config, has other weights than it has "
            "now. Expected get_config, and get_build_config where build() takes more than a "
            "shape, to describe it. Use draw='matched', which needs neither."
        )
    return [weight.numpy() for weight in weights]


def _by_attribute(layer: keras.layers.Layer, weight: keras.Variable, seed: int) -> Array | None:
    """Draw by the initializer that Keras's layers keep: kernel_initializer for a kernel."""
    for name in (weight.name, weight.name.removesuffix("_kernel")):
        initializer = getattr(layer, f"{name}_initializer", None)
        if callable(initializer):
            break
    else:
        return None
    shape, dtype = tuple(weight.shape), weight.dtype
    drawn = np.array(_apart(lambda: _reseeded(initializer)(shape, dtype=dtype), seed))
    if weight.name == "bias" and getattr(layer, "unit_forget_bias", False):
        gate = len(drawn) // 4  # input, forget, cell, output
        drawn[gate : 2 * gate] = 1
    return drawn


def _he(unit: Unit, rng: np.random.Generator) -> list[Array | None]:
    arrays = _own_initializer(unit, rng)
    for place, weight in enumerate(unit.parameters):
        if len(weight.shape) > 1:
            initializer = keras.initializers.HeNormal(seed=int(rng.integers(_SEEDS)))
            arrays[place] = np.asarray(initializer(tuple(weight.shape)))
    return arrays


def _by_tensor(name: str, values: Callable[[Array, np.random.Generator], Array]) -> Draw:
    """Return the draw that treats each parameter alone and keeps the statistics."""
    return Draw(name, lambda unit, rng: [values(w.numpy(), rng) for w in unit.parameters])


# Permutation is over all entries of a tensor; matched is normal with the tensor's own mean and
# standard deviation. These two, and the normal ones, keep the moving statistics of a batch
# normalization; initializers reset them to mean 0 and variance 1. He is for kernels, and the
# layer's own initializers for the rest.
permutation = _by_tensor("permutation", _permuted)
matched = _by_tensor("matched", _matched)
own_initializer = Draw("own_initializer", _own_initializer)
he = Draw("he", _he)

DRAWS: dict[str, Draw] = {
    "normal": normal(),
    "truncated_normal": truncated_normal(),
    "own_initializer": own_initializer,
    "permutation": permutation,
    "matched": matched,
    "he": he,
}


def draw_named(draw: str | Draw) -> Draw:
    """Return a Draw as it is, or that of a key of DRAWS, else raise OptionError."""
    if isinstance(draw, Draw):
        return draw
    if not isinstance(draw, str) or draw not in DRAWS:
        raise unknown_option("draw", draw, DRAWS)
    return DRAWS[draw]


def copy_of(layer: Any) -> Any:
    """Return a copy of a layer or model, by Keras's own saving format; a model is not compiled.

    Raises
    ------
    OptionError
        If Keras cannot save and load it.
    """

    def copied() -> Any:
        with keras.saving.custom_object_scope(_custom_objects(layer)):
            if not isinstance(layer, keras.Model):
                return copy.deepcopy(layer)
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/model.keras"
                layer.save(path)
                return keras.models.load_model(path, compile=False, safe_mode=False)

    try:
        return _apart(copied, 0)
    except _CANNOT as error:
        raise OptionError(
            f"Cannot copy {layer.name!r}: Keras cannot save and load it ({_last_words(error)}). "
            "Expected layers with get_config, and custom functions registered by "
            "keras.saving.register_keras_serializable. sanity_check needs no copy."
        ) from error


def _custom_objects(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return what a config may name that Keras does not know: classes and functions of layers."""
    found: dict[str, Any] = {}
    for inner in layer._flatten_layers():
        found[type(inner).__name__] = type(inner)
        for value in vars(inner).values():
            if isinstance(value, (keras.initializers.Initializer, keras.regularizers.Regularizer)):
                found[type(value).__name__] = type(value)
            elif isinstance(value, FunctionType):
                found[value.__name__] = value
    return found


def _built_anew(layer: keras.layers.Layer, seed: int) -> keras.layers.Layer:
    """Return a layer of the same config with weights that its initializers drew from seed."""
    custom = _custom_objects(layer)

    def built() -> keras.layers.Layer:
        with keras.saving.custom_object_scope(custom):
            fresh = type(layer).from_config(layer.get_config())
        own_add_weight = fresh.add_weight

        def add_weight(*args: Any, **kwargs: Any) -> Any:
            # In Keras's signature an initializer comes second.
            if len(args) > 1:
                args = (args[0], _reseeded(args[1]), *args[2:])
            elif "initializer" in kwargs:
                kwargs["initializer"] = _reseeded(kwargs["initializer"])
            return own_add_weight(*args, **kwargs)

        object.__setattr__(fresh, "add_weight", add_weight)
        if not fresh.built:
            fresh.build_from_config(layer.get_build_config())
        return fresh

    try:
        return _apart(built, seed)
    except _CANNOT as error:
        raise OptionError(
            f"Cannot build the layer {layer.name!r} anew to use its own initializers "
            f"({_last_words(error)}). Expected a layer with get_config. Use draw='matched' or "
            "'permutation', which need no config."
        ) from error


def _last_words(error: Exception) -> str:
    # Keras puts the cause last, behind the whole config.
    text = str(error).split("Exception encountered: ")[-1]
    return " ".join(text.split())[:300]


def _reseeded(initializer: Any) -> Any:
    """Return an initializer that draws from Python's random state and not from a seed it has."""
    found: Any = None if initializer is None else keras.initializers.get(initializer)
    if getattr(found, "seed", None) is None:
        return found
    found = copy.copy(found)
    found.seed = random.randrange(_SEEDS)
    return found


def _apart(function: Callable[[], T], seed: int) -> T:
    """Run what makes layers where nothing of the caller's moves.

    Keras counts names, and keeps scopes, for each thread: in one of its own, the caller's are left
    alone. Initializers without a seed take one from Python's random state, and users' own may
    take NumPy's.
    """
    policy = keras.config.dtype_policy()
    state, numpy_state = random.getstate(), np.random.get_state()

    def run() -> T:
        keras.config.set_dtype_policy(policy)
        return function()

    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _walk(
    layer: keras.layers.Layer, path: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path or layer.name, layer
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _walk(inner, f"{path}/{inner.name}" if path else inner.name, seen)


def _own_weights(layer: keras.layers.Layer) -> tuple[list[Any], list[Any]]:
    """Return parameters and statistics of a layer, without those of the layers inside it."""
    # A weight of a frozen layer stays in the first list, and only says that it is not trained.
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def _new(weights: Sequence[Any], seen: set[int]) -> tuple[Any, ...]:
    return tuple(weight for weight in weights if id(weight) not in seen)
