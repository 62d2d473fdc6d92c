"""The RANDOMIZERS table: new weights of one layer, a pure function of (layer, randomizer, seed).

A randomizer never touches the layer, Keras's counters of names, or anybody's random state. All
random numbers come from the seed, so that a layer drawn alone is bit-identical to the same layer in
a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from ..arrays import Array
from ..errors import OptionError
from ..tables import Table
from .rebuild import SEEDS, build_anew, reseed, run_isolated
from .units import Unit, own_weights


@dataclass(frozen=True, eq=False)
class Randomizer:
    """A randomizer of weights: a name, and a function of a layer and a random generator.

    Parameters
    ----------
    name
        The name in a result.
    values
        (unit, rng) -> new arrays, one for each of unit.weights (or of its parameters alone), None
        for one that stays.

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
        One for each of the unit's weights; None for one that stays.
    unchanged
        The names of those that came out as they were, as the randomizer has only one value for
        them: a bias that is still zero, drawn by an initializer of zeros.
    """

    arrays: tuple[Array | None, ...]
    unchanged: tuple[str, ...]


def draw_weights(unit: Unit, randomizer: Randomizer, seed: int, position: int = 0) -> Drawn:
    """Draw the weights of one layer.

    Parameters
    ----------
    unit
        The layer. It is read, not changed.
    randomizer
        Draws them.
    seed, position
        The seed of the random numbers, and the layer's position in its model.

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
    # Copies: a randomizer may return one buffer again and again.
    arrays = [None if array is None else np.array(array) for array in returned]
    arrays += [None] * (counts[1] - len(arrays))
    unchanged = [
        f"{unit.path}/{weight.name}"
        for weight, array in zip(unit.weights, arrays, strict=True)
        if array is not None and not _has_changed(unit, weight, array, randomizer)
    ]
    return Drawn(tuple(arrays), tuple(unchanged))


def _has_changed(unit: Unit, weight: Any, array: Array, randomizer: Randomizer) -> bool:
    """Check new values of a weight, and tell whether they differ from the present ones."""
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
    # Of vectors there are some with one value only, as the bias of an LSTM; not of kernels.
    if array.ndim > 1 and array.min() != array.max():
        raise OptionError(
            f"The randomizer {randomizer.name!r} returned for {of} what it is already. Expected "
            "other values: the layer may read them from a file, or have a random state of its own. "
            "Use randomizer='matched'."
        )
    return False


def check_seed(seed: Any) -> int:
    """Return a seed if it is a whole number from 0, else raise OptionError."""
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


def _initializer(unit: Unit, rng: np.random.Generator) -> list[Array | None]:
    seed = int(rng.integers(SEEDS))
    drawn = [_by_attribute(unit.layer, weight, seed + i) for i, weight in enumerate(unit.weights)]
    if all(array is not None for array in drawn):
        return drawn
    # Some layers do not keep their initializers: the weights of one built anew are theirs.
    fresh = build_anew(unit.layer, seed)
    weights = [weight for kind in own_weights(fresh) for weight in kind]
    if [tuple(w.shape) for w in weights] != [tuple(w.shape) for w in unit.weights]:
        raise OptionError(
            f"The layer {unit.path!r}, built anew from its config, has other weights than it has "
            "now. Expected get_config, and get_build_config where build() takes more than a "
            "shape, to describe it. Use randomizer='matched', which needs neither."
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
    """Return the randomizer that treats each parameter alone and keeps the statistics."""
    return Randomizer(name, lambda unit, rng: [values(w.numpy(), rng) for w in unit.parameters])


# Permutation is over all entries of a tensor; matched is normal with the tensor's own mean and
# standard deviation. These two, and the normal ones, keep the moving statistics of a batch
# normalization; initializers reset them to mean 0 and variance 1. He is for kernels, and the
# layer's own initializers for the rest.
permutation = _by_tensor("permutation", _permuted)
matched = _by_tensor("matched", _matched)
initializer = Randomizer("initializer", _initializer)
he = Randomizer("he", _he)

RandomizerName = Literal[
    "normal", "truncated_normal", "initializer", "permutation", "matched", "he"
]
_DESCRIPTIONS = {
    "normal": "N(0, 0.01^2), biases too, as in the MATLAB original",
    "truncated_normal": "N(0, 0.01^2), drawn anew beyond 2 standard deviations, as Adebayo et al.",
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
    """Return a Randomizer as it is, or that of a key of RANDOMIZERS, else raise OptionError."""
    return randomizer if isinstance(randomizer, Randomizer) else RANDOMIZERS.named(randomizer)
