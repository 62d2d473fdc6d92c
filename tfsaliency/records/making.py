"""Making of records, and of settings in words, for the results of a prepared model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..arrays import Array, digest_array
from ..methods.plain import describe_value, method_to_plain
from ..methods.table import Method, describe_method
from ..prepared import Prepared
from ..version import __version__
from .digests import ModelDigest, digest_model, name_model
from .record import Record, describe_device, describe_versions

# Options of prepare that results depend on.
OF_PREPARED = ("score", "preprocess", "input", "output", "precision", "jit_compile", "fold")


def make_record(
    prepared: Prepared,
    call: str,
    methods: Sequence[Method],
    parameters: Mapping[str, Any],
    images: Array | None = None,
    model: ModelDigest | None = None,
) -> Record:
    """Return the record of a call.

    Parameters
    ----------
    prepared, methods
        The prepared model and the methods.
    call, parameters
        The name of the function, and its other options, JSON values.
    images
        The images to digest, if the result does not contain them.
    model
        The identity of the model, if it is known; else it is read, if prepare was asked to.
    """
    if model is None:
        model = (digest_model if prepared.digest else name_model)(prepared.model)
    return Record(
        call,
        model,
        tuple(map(method_to_plain, methods)),
        {**describe_prepared(prepared), **parameters},
        () if images is None else digest_images(images),
        describe_versions(),
        dict(describe_device()),
    )


def digest_images(images: Array) -> tuple[str, ...]:
    """Return the digest of each image of a batch."""
    return tuple(digest_array(np.asarray(image)) for image in images)


def describe_prepared(prepared: Prepared) -> dict[str, Any]:
    """Return the options of prepare as JSON values."""
    return {name: describe_value(getattr(prepared, name)) for name in OF_PREPARED}


def describe_settings(
    prepared: Prepared,
    methods: Sequence[Method],
    words: Mapping[str, str],
    model: ModelDigest | None = None,
) -> dict[str, str]:
    """Return the settings of a result in words.

    Parameters
    ----------
    prepared, methods
        The prepared model, and the methods; the settings of those with a composition are noted.
    words
        Other settings.
    model
        The identity of the model, to note the digest of its weights.
    """
    preprocess = prepared.preprocess
    named = getattr(preprocess, "__qualname__", repr(preprocess))
    settings = {
        "model": str(getattr(prepared.model, "name", "a function")),
        **words,
        "preprocess": "none" if preprocess is None else named,
        "versions": f"tfsaliency {__version__}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}",
    }
    composed = [method for method in methods if method.composition is not None]
    if composed:
        settings["methods"] = "; ".join(map(describe_method, composed))
    if model is not None and model.weights:
        settings["weights"] = f"sha256 {model.weights}"
    return settings
