"""The errors this package raises on purpose, one tree under TfSaliencyError."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import numpy as np

_LISTED = 200  # more than any table of options has


class TfSaliencyError(ValueError):
    """Root of every error that tfsaliency raises on purpose.

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
    """A model that cannot be explained as it was given.

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
    """A modified rule was asked of a model without a ReLU: it would equal the gradient.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2)])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "guided_backprop")
    ... except tfs.NoReluError as error:
    ...     print(str(error).split(".")[0])
    Expected a model with ReLUs for 'guided_backprop'
    """


class UncoveredReluError(ModelError):
    """A ReLU that the rule cannot reach; the message names it and says what to do.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.ReLU(),
    ...                           keras.layers.Lambda(lambda h: keras.ops.maximum(h, 0.0),
    ...                                               name="by_hand"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "guided_backprop")
    ... except tfs.UncoveredReluError as error:
    ...     print("by_hand" in str(error))
    True
    """


class OpaqueModelError(ModelError):
    """A model whose end cannot be seen, so that it is not known what the logit is.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> issubclass(tfs.OpaqueModelError, tfs.ModelError)
    True
    """


class MeaninglessMapError(TfSaliencyError):
    """A map that means nothing, where on_problem is "raise"; the message says why.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D(),
    ...                           keras.layers.Dense(2)])
    >>> try:
    ...     tfs.saliency_map(model, np.ones((1, 4, 4, 3)), on_problem="raise")
    ... except tfs.MeaninglessMapError as error:
    ...     print(str(error).split(":")[0])
    constant_map (gradient, image 0)
    """


class OptionError(TfSaliencyError):
    """An unknown or impossible option; the message lists the known ones.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2)])
    >>> try:
    ...     tfs.saliency_map(model, np.zeros((4, 4, 3)), "gradeint")
    ... except tfs.OptionError as error:
    ...     print(str(error).split(" Known")[0])
    Unknown method: 'gradeint'. Did you mean 'gradient'?
    """


class WeightsError(TfSaliencyError):
    """A weights file that is short, altered, of another network, or cannot be had.

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
    """A result file that is damaged, truncated, or of another kind than expected.

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


def check_int(name: str, value: object, least: int) -> None:
    """Raise OptionError for an option that is no whole number of at least that much.

    >>> try:
    ...     check_int("seeds", 0, 1)
    ... except OptionError as error:
    ...     print(error)
    Expected seeds as an int of at least 1. Received: 0.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise OptionError(f"Expected {name} as an int of at least {least}. Received: {value!r}.")


def unknown_option(kind: str, received: object, known: Iterable[str]) -> OptionError:
    """Return the OptionError for a name that is not in a table: all known names, the nearest first.

    Case, "-", "_" and spaces are ignored when the nearest name is looked for.

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
    more = f", ... ({len(names)})" if len(names) > _LISTED else ""  # as the names of 1000 classes
    listed = ", ".join(names[:_LISTED]) + more
    return OptionError(f"Unknown {kind}: {received!r:.200}.{hint} Known: {listed}.")


def _letters(name: str) -> str:
    """Return a name without case, hyphens, underscores and spaces."""
    return re.sub(r"[-_ ]", "", name).casefold()
