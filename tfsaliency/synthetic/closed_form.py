"""Networks whose correct attribution follows from their weights: the CLOSED_FORM table.

Each is a keras.Model of images (n, h, w, 3) in 0..1 with one output. Its weights determine the
pixels on which the output depends at an image x, and the sign of each dependence:

    linear        sum w x                       w zero outside a patch
    additive      sum w relu(x - t)             each value separately; 0 below t
    masked        dense(relu(conv(mask * x)))   all weights and signs are positive
    xor           |mean of A - mean of B|       neither patch is informative alone
    null_patch    mean of A + r(B) - r(B)       independent of B; r is a ReLU of B
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from ..arrays import Array, as_batch
from ..errors import check_int
from ..tables import Table
from .shapes import GroundTruth

ClosedFormName = Literal["linear", "additive", "masked", "xor", "null_patch"]
_SMALLEST_SIZE = 9
_LARGEST_SIZE, _MOST = 1024, 10_000_000  # pixels, images


@dataclass(frozen=True, eq=False)
class KnownModel:
    """A network with a known answer.

    Parameters
    ----------
    model
        keras.Model, images (n, h, w, 3) -> (n, 1).
    signs
        Function from images (n, h, w, 3) to the signs (n, h, w, 3) of the output's dependence on
        each value: 1, -1, or 0 if there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear", size=9)
    >>> int(known.masks(np.zeros((1, 9, 9, 3))).sum())  # a patch of 3 x 3
    9
    """

    model: keras.Model
    signs: Callable[[Array], Array]

    def masks(self, images: Any) -> Array:
        """Return the pixels on which the output depends, (n, h, w), bool."""
        batch = as_batch(images, self.model.input_shape[1:])
        return np.abs(self.signs(batch)).max(axis=-1) > 0

    def ground_truth(self, n: int, seed: int) -> GroundTruth:
        """Return n images of noise in 0..1, with labels 0 and their masks."""
        check_int("n", n, 1, _MOST)
        check_int("seed", seed, 0)
        shape = (n, *self.model.input_shape[1:])
        images = np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
        return GroundTruth(images, np.zeros(n, int), self.masks(images))


def closed_form_model(name: ClosedFormName, size: int = 16, seed: int = 0) -> KnownModel:
    """Return a network whose correct attribution follows from its weights.

    Parameters
    ----------
    name
        A key of CLOSED_FORM: "linear" (no ReLU), "additive" (a function of each value), "masked"
        (only a patch is visible), "xor" (two patches differ in brightness), or "null_patch" (two
        ReLUs of a patch cancel out).
    size
        Height and width of the images (n, h, w, 3) in pixels, at least 9.
    seed
        The seed of the patches' positions and the weights.

    Returns
    -------
    KnownModel

    Raises
    ------
    OptionError
        If the name is unknown, or a number is out of range.

    References
    ----------
    Kindermans et al. 2017, "Learning how to explain neural networks", arXiv:1705.05598 (linear
    models as a test); Nie, Zhang and Patel 2018, arXiv:1805.07039 (guided backpropagation and
    Zeiler-Fergus of parts that cancel out).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("null_patch")
    >>> data = known.ground_truth(4, seed=0)
    >>> maps = tfs.saliency_map(known.model, data.images, ["gradient", "guided_backprop"])
    >>> [bool(maps[name][~data.masks].any()) for name in maps]  # outside of what matters
    [False, True]
    """
    build = CLOSED_FORM.named(name)
    check_int("size", size, _SMALLEST_SIZE, _LARGEST_SIZE)
    check_int("seed", seed, 0)
    return build(int(size), np.random.default_rng(seed))


def _linear(size: int, rng: np.random.Generator) -> KnownModel:
    """Sum the weighted pixels of a patch, without ReLUs."""
    (patch,) = _patches(size, rng, 1)
    weights = np.where(patch, rng.normal(size=patch.shape), 0.0)
    model = _model("linear", size, [_flat(), _dense("sum", 1)], [weights.reshape(-1, 1)])
    return KnownModel(model, lambda x: np.broadcast_to(np.sign(weights), x.shape))


def _additive(size: int, rng: np.random.Generator) -> KnownModel:
    """Sum a function of each value."""
    threshold = 0.3
    weights = rng.normal(size=(size, size, 3)) * (rng.uniform(size=(size, size, 1)) < 0.2)
    layers = [_conv("shift", 3, 1), keras.layers.ReLU(name="relu"), _flat(), _dense("sum", 1)]
    shift = [np.eye(3)[None, None], np.full(3, -threshold)]
    model = _model("additive", size, layers, [*shift, weights.reshape(-1, 1)])
    return KnownModel(model, lambda x: np.sign(weights) * (x > threshold))


def _masked(size: int, rng: np.random.Generator) -> KnownModel:
    """Apply ReLUs to a patch, and mask out the rest."""
    ((row, column),) = _corners(size, rng, 1)
    side = _side(size)
    seen = np.zeros((size, size, 1))
    seen[row : row + side, column : column + side] = 1
    borders = (row, size - row - side), (column, size - column - side)
    crop = keras.layers.Cropping2D(borders, name="mask")
    layers = [crop, _conv("conv", 4, 3, activation="relu"), _flat(), _dense("sum", 1)]
    kernel, head = rng.uniform(0.1, 1.0, (3, 3, 3, 4)), rng.uniform(0.1, 1.0, (side * side * 4, 1))
    model = _model("masked", size, layers, [kernel, np.full(4, 0.1), head])
    return KnownModel(model, lambda x: np.broadcast_to(seen, x.shape))


def _xor(size: int, rng: np.random.Generator) -> KnownModel:
    """Compare the brightness of two patches."""
    first, second = (patch / patch.sum() for patch in _patches(size, rng, 2))
    difference = first - second
    column = difference.reshape(-1, 1)
    layers = [_flat(), _dense("differences", 2, activation="relu"), _dense("sum", 1)]
    model = _model("xor", size, layers, [np.hstack([column, -column]), np.ones((2, 1))])

    def signs(x: Array) -> Array:
        brighter = np.sign(np.tensordot(x, difference, 3))
        return np.asarray(brighter[:, None, None, None] * np.sign(difference))

    return KnownModel(model, signs)


def _null_patch(size: int, rng: np.random.Generator) -> KnownModel:
    """Apply two ReLUs to a patch, whose effects cancel out."""
    counts, null = (patch / patch.sum() for patch in _patches(size, rng, 2))
    layers = [_flat(), _dense("means", 3, activation="relu"), _dense("sum", 1)]
    kernel = np.stack([counts, null, null], axis=-1).reshape(-1, 3)
    model = _model("null_patch", size, layers, [kernel, np.array([[1.0], [1.0], [-1.0]])])
    return KnownModel(model, lambda x: np.broadcast_to(np.sign(counts), x.shape))


CLOSED_FORM: Table[Callable[[int, np.random.Generator], KnownModel]] = Table(
    "closed-form model",
    {
        "linear": _linear,
        "additive": _additive,
        "masked": _masked,
        "xor": _xor,
        "null_patch": _null_patch,
    },
)


def _side(size: int) -> int:
    return size // 3


def _corners(size: int, rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Draw the corners of patches: one anywhere, two in different halves."""
    room, side = size // count, _side(size)
    return [
        (int(rng.integers(0, size - side + 1)), i * room + int(rng.integers(0, room - side + 1)))
        for i in range(count)
    ]


def _patches(size: int, rng: np.random.Generator, count: int) -> list[Array]:
    """Return patches that do not overlap, (size, size, 3), 1 inside and 0 outside."""
    side, patches = _side(size), []
    for row, column in _corners(size, rng, count):
        patch = np.zeros((size, size, 3))
        patch[row : row + side, column : column + side] = 1
        patches.append(patch)
    return patches


# Initializers have seeds, so that the caller's random state is unchanged.
def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=0)


def _flat() -> keras.layers.Layer:
    return keras.layers.Flatten(name="flat")


def _dense(name: str, units: int, activation: str | None = None) -> keras.layers.Layer:
    return keras.layers.Dense(
        units, activation, use_bias=False, kernel_initializer=_initializer(), name=name
    )


def _conv(name: str, filters: int, size: int, activation: str | None = None) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        activation=activation,
        kernel_initializer=_initializer(),
        name=name,
    )


def _model(name: str, size: int, layers: list[Any], weights: list[Array]) -> keras.Model:
    model = keras.Sequential([keras.Input((size, size, 3), name="images"), *layers], name=name)
    model.set_weights(weights)
    return model
