"""Models by name or from a file, with their preprocessing, for the command line."""

from __future__ import annotations

import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import keras
import numpy as np

from ..arrays import Array
from ..errors import ModelError, WeightsError, one_line, unknown_option
from ..tables import PreprocessMode
from . import efficientnet_lite, squeezenet

Preprocess = Callable[[Array], Any]

PREPROCESS_MODES: tuple[PreprocessMode, ...] = get_args(PreprocessMode)
_FILE_SUFFIXES = (".keras", ".h5", ".hdf5")
_OWN = {
    "squeezenet": (squeezenet.SqueezeNet, squeezenet.preprocess_input),
    "efficientnetlite0": (
        efficientnet_lite.EfficientNetLite0,
        efficientnet_lite.preprocess_input,
    ),
}


class LoadedModel(NamedTuple):
    """A model, its preprocessing if known, and whether it was trained on ImageNet."""

    model: keras.Model
    preprocess: Preprocess | None
    imagenet: bool


def applications() -> dict[str, Callable[..., keras.Model]]:
    """Return the constructors of keras.applications by lower-case name."""
    members = vars(keras.applications).items()
    return {n.lower(): f for n, f in members if callable(f) and not n.startswith("_")}


def load_model(name: str, weights: str | None = None) -> LoadedModel:
    """Load a network of this package or of keras.applications by name, or a saved model.

    Parameters
    ----------
    name
        A name in any case, or a path that ends in .keras, .h5 or .hdf5.
    weights
        A weights file for a model by name; None for the weights trained on ImageNet.

    Raises
    ------
    OptionError
        If the name is unknown.
    ModelError, WeightsError
        If a file is missing or cannot be loaded.
    """
    if Path(name).suffix.lower() in _FILE_SUFFIXES:
        return LoadedModel(_read_model(Path(name), weights), None, False)
    key = name.lower()
    if key in _OWN:
        build, preprocess = _OWN[key]
        return LoadedModel(build(weights=weights or "imagenet"), preprocess, True)
    known = applications()
    if key not in known:
        raise unknown_option("model", name, [*_OWN, *known])
    if weights is not None and not Path(weights).is_file():
        raise WeightsError(f"Cannot read the weights file {weights}. Expected a file of {name}.")
    try:
        with warnings.catch_warnings():  # Keras warns once a layer before it raises
            warnings.simplefilter("ignore")
            model = known[key](weights=weights or "imagenet")
    except Exception as error:  # h5py, the network and Keras raise various errors
        raise WeightsError(
            f"Cannot load the weights {weights or 'trained on ImageNet'} into {name}: "
            f"{one_line(error)}. Expected a weights file of the same model, or access to "
            "Google's servers; --model efficientnetlite0 needs only the package index."
        ) from error
    module = sys.modules[known[key].__module__]
    return LoadedModel(model, _of_copy(module.preprocess_input), True)


def preprocess_mode(mode: str) -> Preprocess | None:
    """Return the preprocessing of a mode: x / 255 for "unit", None for "none", else as in Keras.

    Raises
    ------
    OptionError
        If the mode is unknown.
    """
    if mode not in PREPROCESS_MODES:
        raise unknown_option("preprocess", mode, PREPROCESS_MODES)
    if mode == "none":
        return None
    if mode == "unit":
        return lambda x: np.asarray(x) / 255
    return _of_copy(
        lambda x: keras.applications.imagenet_utils.preprocess_input(
            x, data_format="channels_last", mode=mode
        )
    )


def _read_model(path: Path, weights: str | None) -> keras.Model:
    if weights is not None:
        raise ModelError(
            f"{path} contains its weights. Expected no weights file. Received: {weights}."
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Expected a model that model.save(path) wrote.")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: permission denied. Expected a readable file.")
    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path}: is not a .keras file. Expected a file that model.save(path) wrote."
        )
    try:
        return _with_loss_if_known(path)
    except Exception as error:  # h5py, zipfile, json and layers raise various errors
        unknown = re.search(r"Could not locate (?:class|function) '([^']+)'", str(error))
        if unknown:
            raise ModelError(
                f"{path}: needs {unknown.group(1)!r}, which is not part of Keras. Load the model "
                "in Python with custom_objects, and call tfsaliency.saliency_map."
            ) from error
        raise ModelError(
            f"{path}: cannot be loaded as a Keras model ({one_line(error)}). "
            "Expected a file that model.save(path) wrote, without custom layers."
        ) from error


def _with_loss_if_known(path: Path) -> keras.Model:
    """Load a model with its loss, which tells what the outputs mean; without one it cannot load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return keras.saving.load_model(path)
        except Exception:  # a custom loss, metric or optimizer
            return keras.saving.load_model(path, compile=False)


def _of_copy(function: Preprocess) -> Preprocess:
    return lambda x: function(np.array(x))
