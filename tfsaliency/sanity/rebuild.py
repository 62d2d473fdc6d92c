"""Copies of layers and rebuilt layers, without side effects on the caller's state."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any, TypeVar

import keras
import numpy as np

from ..errors import OptionError

T = TypeVar("T")
# Errors that Keras raises for objects that it cannot save, load or build.
_CANNOT = (TypeError, ValueError, NotImplementedError, AttributeError)
SEEDS = 2**31 - 1


class RebuildError(OptionError):
    """A layer cannot be rebuilt from its config, so its own initializers are not known."""


def copy_layer(layer: Any) -> Any:
    """Copy a layer or model by Keras's saving format; a copied model is not compiled.

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
        return run_isolated(copied, 0)
    except _CANNOT as error:
        raise OptionError(
            f"Cannot copy {layer.name!r}: Keras cannot save and load it ({_last_words(error)}). "
            "Expected layers with get_config, and custom functions registered by "
            "keras.saving.register_keras_serializable. sanity_check needs no copy."
        ) from error


def build_anew(layer: keras.layers.Layer, seed: int) -> keras.layers.Layer:
    """Rebuild a layer from its config, with weights that its initializers draw from seed."""
    custom = _custom_objects(layer)

    def built() -> keras.layers.Layer:
        with keras.saving.custom_object_scope(custom):
            fresh = type(layer).from_config(layer.get_config())
        own_add_weight = fresh.add_weight

        def add_weight(*args: Any, **kwargs: Any) -> Any:
            # In Keras's signature an initializer comes second.
            if len(args) > 1:
                args = (args[0], reseed(args[1]), *args[2:])
            elif "initializer" in kwargs:
                kwargs["initializer"] = reseed(kwargs["initializer"])
            return own_add_weight(*args, **kwargs)

        object.__setattr__(fresh, "add_weight", add_weight)
        if not fresh.built:
            fresh.build_from_config(layer.get_build_config())
        return fresh

    try:
        return run_isolated(built, seed)
    except _CANNOT as error:
        raise RebuildError(
            f"Cannot rebuild the layer {layer.name!r} to use its own initializers "
            f"({_last_words(error)}). Expected a layer with get_config. Use "
            "randomizer='matched' or 'permutation', which need no config."
        ) from error


def reseed(initializer: Any) -> Any:
    """Return an initializer that draws from Python's random state instead of its own seed."""
    found: Any = None if initializer is None else keras.initializers.get(initializer)
    if getattr(found, "seed", None) is None:
        return found
    found = copy.copy(found)
    found.seed = random.randrange(SEEDS)
    return found


def run_isolated(function: Callable[[], T], seed: int) -> T:
    """Run a function that makes layers, without changing any state of the caller.

    It runs in its own thread, because Keras has name counters and scopes for each thread.
    Initializers without a seed take one from Python's random state, and custom ones may take
    NumPy's; both are restored.
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


def _custom_objects(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return custom classes and functions of layers, which a config may name."""
    found: dict[str, Any] = {}
    for inner in layer._flatten_layers():
        found[type(inner).__name__] = type(inner)
        for value in vars(inner).values():
            if isinstance(value, (keras.initializers.Initializer, keras.regularizers.Regularizer)):
                found[type(value).__name__] = type(value)
            elif isinstance(value, FunctionType):
                found[value.__name__] = value
    return found


def _last_words(error: Exception) -> str:
    # Keras puts the cause last, behind the whole config.
    text = str(error).split("Exception encountered: ")[-1]
    return " ".join(text.split())[:300]
