"""Error classes: one tree under TfSaliencyError."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import numpy as np

_LISTED = 200  # more than any table of options has


class TfSaliencyError(ValueError):
    """Base class of the errors that tfsaliency defines.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> issubclass(tfs.OptionError, tfs.TfSaliencyError)
    True
    """


class ImageError(TfSaliencyError):
    """An image or a batch of images has a wrong rank, size, dtype or content.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> try:
    ...     tfs.load_images("no_such_photo.jpg", size=(32, 32))
    ... except tfs.ImageError as error:
    ...     print(error)
    no_such_photo.jpg: no such file. Expected the path of a photo.
    """


class ModelError(TfSaliencyError):
    """A model cannot be explained as it was given.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> try:
    ...     tfs.saliency_map("resnet", np.zeros((32, 32, 3)))
    ... except tfs.ModelError as error:
    ...     print(str(error).split(". ")[-1])
    Received: 'resnet' (of type str).
    """


class NoReluError(ModelError):
    """A modified rule was requested for a model without a ReLU, where it equals the gradient.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "guided_backprop")
    ... except tfs.NoReluError as error:
    ...     print(str(error).split(".")[0])
    Expected a model with ReLUs for 'guided_backprop'
    """


class UncoveredReluError(ModelError):
    """A rule cannot reach one of the model's ReLUs; the message names it and the remedy.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.ReLU(),
    ...                           keras.layers.Lambda(lambda h: keras.ops.maximum(h, 0.0),
    ...                                               name="by_hand"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "guided_backprop")
    ... except tfs.UncoveredReluError as error:
    ...     print("by_hand" in str(error))
    True
    """


class UncoveredLayerError(ModelError):
    """An operation of the model has no rule of relevance; the message names it and the remedy.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)),
    ...                           keras.layers.Lambda(keras.ops.sin, name="wave"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "lrp_epsilon")
    ... except tfs.UncoveredLayerError as error:
    ...     print("Received: Sin" in str(error), "wave" in str(error))
    True True
    """


class OpaqueModelError(ModelError):
    """The last operations of a model cannot be inspected, so its logit cannot be found.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> issubclass(tfs.OpaqueModelError, tfs.ModelError)
    True
    """


class GeometryError(ModelError):
    """The cells of a layer cannot be placed in the image; the message lists layers whose can.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(8, 2),
    ...                           keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, "softmax", name="top")])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), tfs.CAM(layer="top"))
    ... except tfs.GeometryError as error:
    ...     print(str(error).split(". ")[1])
    Received: 'top': it has a single cell
    """


class MeaninglessMapError(TfSaliencyError):
    """A map is meaningless, and on_problem is "raise"; the message gives the cause.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> try:
    ...     tfs.saliency_map(model, np.ones((1, 4, 4, 3)), on_problem="raise")
    ... except tfs.MeaninglessMapError as error:
    ...     print(str(error).split(":")[0])
    constant_map (gradient, image 0)
    """


class OptionError(TfSaliencyError):
    """An option is unknown or impossible; the message lists the known ones.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "gradeint")
    ... except tfs.OptionError as error:
    ...     print(str(error).split(" Known")[0])
    Unknown method: 'gradeint'. Did you mean 'gradient'?
    """


class WeightsError(TfSaliencyError):
    """A weights file is truncated, altered, of another network, or not available.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> try:
    ...     tfs.models.SqueezeNet(weights="no_such_file.bin")
    ... except tfs.WeightsError as error:
    ...     print(str(error).split(".")[0])
    Cannot read the weights file no_such_file
    """


class ResultError(TfSaliencyError):
    """A result file is damaged, truncated, or of another kind than expected.

    Examples
    --------
    >>> import pathlib, tfsaliency as tfs
    >>> _ = pathlib.Path("photo.npz").write_bytes(b"not a result")
    >>> try:
    ...     tfs.SaliencyMaps.load("photo.npz")
    ... except tfs.ResultError as error:
    ...     print(str(error).split(".")[0])
    Expected a file that SaliencyMaps
    """


class ErrorLimitError(TfSaliencyError):
    """More images of a data set failed than max_errors allows; what is done is kept.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> issubclass(tfs.ErrorLimitError, tfs.TfSaliencyError)
    True
    """


def check_int(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise OptionError unless a value is an integer from least to most.

    >>> try:
    ...     check_int("seeds", 0, 1)
    ... except OptionError as error:
    ...     print(error)
    Expected seeds as an int of at least 1. Received: 0.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= (np.inf if most is None else most):  # type: ignore[call-overload]
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise OptionError(f"Expected {name} as an int {limit}. Received: {value!r:.100}.")


def check_number(
    name: str, value: object, least: float, most: float = np.inf, *, above: bool = False
) -> None:
    """Raise OptionError unless a value is a finite number from least (above it) to most.

    >>> try:
    ...     check_number("strength", 2, 0, 1)
    ... except OptionError as error:
    ...     print(error)
    Expected strength as a number from 0 to 1. Received: 2.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    real = float(value) if number and not np.iscomplexobj(value) else np.nan  # type: ignore[arg-type]
    if not np.isfinite(real) or not least <= real <= most or (above and real == least):
        limit = f"above {least:g}" if above else f"from {least:g}"
        limit += f" to {most:g}" if np.isfinite(most) else ""
        raise OptionError(f"Expected {name} as a number {limit}. Received: {value!r:.100}.")


def check_choice(kind: str, value: object, known: Iterable[str]) -> None:
    """Raise OptionError unless a value is one of the known names."""
    if not isinstance(value, str) or value not in known:
        raise unknown_option(kind, value, known)


def check_flag(name: str, value: object) -> None:
    """Raise OptionError unless a value is a boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"Expected {name} as True or False. Received: {value!r:.100}.")


def unknown_option(kind: str, received: object, known: Iterable[str]) -> OptionError:
    """Return an OptionError that suggests the nearest name and lists all known ones.

    The search for the nearest name ignores case, "-", "_" and spaces.

    >>> print(unknown_option("score", "Logits", ["logit", "margin"]))
    Unknown score: 'Logits'. Did you mean 'logit'? Known: logit, margin.
    >>> print(unknown_option("model", "VGG-16", ["vgg19", "vgg16"]))
    Unknown model: 'VGG-16'. Did you mean 'vgg16'? Known: vgg19, vgg16.
    """
    names = [str(name) for name in known]
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(_letters(name), name)
    wanted = received.decode("utf-8", "replace") if isinstance(received, bytes) else str(received)
    close = difflib.get_close_matches(_letters(wanted), by_letters, n=1)
    hint = f" Did you mean {by_letters[close[0]]!r}?" if close else ""
    more = f", ... ({len(names)})" if len(names) > _LISTED else ""  # for example, 1000 class names
    listed = ", ".join(names[:_LISTED]) + more
    return OptionError(f"Unknown {kind}: {received!r:.200}.{hint} Known: {listed}.")


def one_line(error: Exception, most: int = 300) -> str:
    """Return the message of an error on one line, with at most so many characters."""
    return " ".join(str(error).split())[:most]


def _letters(name: str) -> str:
    """Return a name in lower case, without hyphens, underscores and spaces, "+" spelled out."""
    return re.sub(r"[-_ ]", "", name.replace("+", "plus")).casefold()
