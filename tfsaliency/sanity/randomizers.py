"""The RANDOMIZERS table: new weights of one layer as a pure function of layer and seed.

A randomizer changes neither the layer, nor Keras's name counters, nor any global random state. All
random numbers derive from the seed, so a layer drawn alone is bit-identical to the same layer in a
run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ..arrays import Array
from ..errors import OptionError
from ..tables import Table
from .rebuild import SEEDS, RebuildError, build_anew, reseed, run_isolated
from .units import Unit, own_weights


@dataclass(frozen=True, eq=False)
class Randomizer:
    """A randomizer of weights: a name, and a function of a layer and a random generator.

    Parameters
    ----------
    name
        The name in results.
    values
        Function (unit, rng) -> new arrays, one for each of unit.weights (or of its parameters
        only), with None for unchanged ones.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> def uniform(unit, rng):
    ...     return [rng.uniform(-0.1, 0.1, weight.shape) for weight in unit.parameters]
    >>> randomizer = tfs.Randomizer("uniform", uniform)
    """

    name: str
    values: Callable[[Unit, np.random.Generator], Sequence[Array | None]]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The new weights of one layer.

    Parameters
    ----------
    arrays
        One array for each of the unit's weights; None for an unchanged one.
    unchanged
        The names of weights that kept their values because the randomizer has only one value for
        them, such as a zero bias drawn by a zeros initializer.
    """

    arrays: tuple[Array | None, ...]
    unchanged: tuple[str, ...]


def draw_weights(unit: Unit, randomizer: Randomizer, seed: int, position: int = 0) -> Drawn:
    """Draw the weights of one layer.

    Parameters
    ----------
    unit
        The layer; it is not changed.
    randomizer
        The randomizer.
    seed, position
        The seed of the random numbers, and the layer's position in its model.

    Raises
    ------
    OptionError
        If an array has another shape, or a weight that could have changed did not.
    """
    if getattr(unit.layer, "quantization_mode", None):
        raise OptionError(
            f"The layer {unit.path!r} is quantized. Expected floating-point weights to "
            "randomize: use the model before quantization."
        )
    rng = np.random.default_rng((check_seed(seed), position))
    returned = randomizer.values(unit, rng)
    counts = len(unit.parameters), len(unit.weights)
    if not isinstance(returned, (list, tuple)) or len(returned) not in counts:
        received = len(returned) if isinstance(returned, (list, tuple)) else f"{returned!r:.50}"
        raise OptionError(
            f"Expected randomizer {randomizer.name!r} to return a list of an array (or None) for "
            f"each of the {counts[0]} parameters, or {counts[1]} weights, of {unit.path!r}. "
            f"Received: {received}."
        )
    # Copies, because a randomizer may reuse a buffer.
    arrays = [None if array is None else np.array(array) for array in returned]
    arrays += [None] * (counts[1] - len(arrays))
    unchanged = [
        f"{unit.path}/{weight.name}"
        for weight, array in zip(unit.weights, arrays, strict=True)
        if array is not None and not _has_changed(unit, weight, array, randomizer)
    ]
    return Drawn(tuple(arrays), tuple(unchanged))


def _has_changed(unit: Unit, weight: Any, array: Array, randomizer: Randomizer) -> bool:
    """Check the new values of a weight, and return whether they differ from the current ones."""
    present, of = weight.numpy(), f"the weight {weight.name!r} of {unit.path!r}"
    if array.shape != present.shape:
        raise OptionError(
            f"Expected randomizer {randomizer.name!r} to return an array {present.shape} for "
            f"{of}. Received: shape {array.shape}."
        )
    if not np.isfinite(array.astype(np.float64)).all():
        raise OptionError(
            f"Expected randomizer {randomizer.name!r} to return finite weights. Received: NaN or "
            f"infinity in {of}."
        )
    if not np.array_equal(array.astype(present.dtype), present):
        return True
    # Some vectors have only one possible value, such as the bias of an LSTM; kernels do not.
    if array.ndim > 1 and array.min() != array.max():
        raise OptionError(
            f"The randomizer {randomizer.name!r} returned the current values of {of}. Expected "
            "other values; the layer may read them from a file, or have its own random state. "
            "Use randomizer='matched'."
        )
    return False


def check_seed(seed: Any) -> int:
    """Return a seed, or raise OptionError unless it is an integer of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"Expected a seed as a whole number from 0. Received: {seed!r}.")
    return int(seed)


def _checked_stddev(stddev: Any) -> float:
    if isinstance(stddev, bool) or not isinstance(stddev, (int, float)) or not stddev > 0:
        raise OptionError(f"Expected a standard deviation above 0. Received: {stddev!r}.")
    return float(stddev)


def normal(stddev: float = 0.01) -> Randomizer:
    """Draw every parameter from N(0, stddev^2), as the MATLAB original does with 0.01."""
    stddev = _checked_stddev(stddev)
    return _by_tensor(f"normal({stddev:g})", lambda w, rng: rng.normal(0.0, stddev, w.shape))


def truncated_normal(stddev: float = 0.01) -> Randomizer:
    """Draw every parameter from N(0, stddev^2), truncated at 2 stddev (Adebayo et al.)."""
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


def _initializer(unit: Unit, rng: np.random.Generator) -> list[Array | None]:
    seed = int(rng.integers(SEEDS))
    drawn = [_by_attribute(unit.layer, weight, seed + i) for i, weight in enumerate(unit.weights)]
    if all(array is not None for array in drawn):
        return drawn
    # Layers that do not keep their initializers are rebuilt; the new weights are used.
    fresh = build_anew(unit.layer, seed)
    weights = [weight for kind in own_weights(fresh) for weight in kind]
    if [tuple(w.shape) for w in weights] != [tuple(w.shape) for w in unit.weights]:
        raise RebuildError(
            f"The layer {unit.path!r}, rebuilt from its config, has other weights than before. "
            "Expected get_config to describe it, and get_build_config if build() takes more than "
            "a shape. Use randomizer='matched', which needs neither."
        )
    return [weight.numpy() for weight in weights]


def _by_attribute(layer: keras.layers.Layer, weight: keras.Variable, seed: int) -> Array | None:
    """Draw by the initializer that the layer keeps, such as kernel_initializer for a kernel."""
    for name in (weight.name, weight.name.removesuffix("_kernel")):
        initializer = getattr(layer, f"{name}_initializer", None)
        if callable(initializer):
            break
    else:
        return None
    shape, dtype = tuple(weight.shape), weight.dtype
    drawn = np.array(run_isolated(lambda: reseed(initializer)(shape, dtype=dtype), seed))
    if weight.name == "bias" and getattr(layer, "unit_forget_bias", False):
        gate = len(drawn) // 4  # input, forget, cell, output
        drawn[gate : 2 * gate] = 1
    return drawn


def _he(unit: Unit, rng: np.random.Generator) -> list[Array | None]:
    arrays = _initializer(unit, rng)
    for place, weight in enumerate(unit.parameters):
        if len(weight.shape) > 1:
            initializer = keras.initializers.HeNormal(seed=int(rng.integers(SEEDS)))
            arrays[place] = np.asarray(initializer(tuple(weight.shape)))
    return arrays


def _by_tensor(name: str, values: Callable[[Array, np.random.Generator], Array]) -> Randomizer:
    """Return a randomizer that draws each parameter separately and keeps the statistics."""
    return Randomizer(name, lambda unit, rng: [values(w.numpy(), rng) for w in unit.parameters])


# "permutation" permutes all entries of a tensor; "matched" is normal with the tensor's own mean and
# standard deviation. These two and the normal ones keep the moving statistics of a batch
# normalization; initializers reset them to mean 0 and variance 1. "he" applies to kernels, and the
# layer's own initializers to the rest.
permutation = _by_tensor("permutation", _permuted)
matched = _by_tensor("matched", _matched)
initializer = Randomizer("initializer", _initializer)
he = Randomizer("he", _he)

_DESCRIPTIONS = {
    "normal": "N(0, 0.01^2), biases too, as in the MATLAB original",
    "truncated_normal": "N(0, 0.01^2), truncated at 2 standard deviations, as Adebayo et al.",
    "initializer": "the layer's own initializers; moving statistics are reset",
    "permutation": "the entries of each weight in another order",
    "matched": "N(mean, std^2) of each weight",
    "he": "He's normal initializer for kernels, the layer's own for the rest",
}
RANDOMIZERS: Table[Randomizer] = Table(
    "randomizer",
    {
        "normal": normal(),
        "truncated_normal": truncated_normal(),
        "initializer": initializer,
        "permutation": permutation,
        "matched": matched,
        "he": he,
    },
    lambda randomizer: _DESCRIPTIONS[randomizer.name.partition("(")[0]],
)


def resolve_randomizer(randomizer: str | Randomizer) -> Randomizer:
    """Return a randomizer given as a Randomizer or a key of RANDOMIZERS."""
    return randomizer if isinstance(randomizer, Randomizer) else RANDOMIZERS.named(randomizer)
