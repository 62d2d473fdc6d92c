"""Digests of models: of the values of their weights, and of their architecture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..arrays import digest_array
from ..engine.functions import Model
from ..tables import code_name

_SHORT = 16  # hex digits of the digest of one weight
# Keys of a config under which names of layers stand; generated names differ between processes.
_NAMES = ("name", "keras_history", "input_layers", "output_layers")


@dataclass(frozen=True)
class ModelDigest:
    """The identity of a model.

    Parameters
    ----------
    name
        Its name.
    kind
        Its class, or "function".
    architecture
        sha256 of its config, in which names of layers are replaced by numbers; "" if it has none.
    weights
        sha256 of the digests of its weights; "" if they were not read, or there are none. Seeds and
        other variables that are not weights are left out, because they differ in each process.
    tensors
        The beginning of the sha256 of each weight, by its path, in the order of model.weights.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency.records import digest_model
    >>> digest = digest_model(tfs.synthetic.shapes_model())
    >>> list(digest.tensors)[-2:]
    ['conv8/kernel', 'conv8/bias']
    """

    name: str
    kind: str
    architecture: str = ""
    weights: str = ""
    tensors: Mapping[str, str] = field(default_factory=dict)


def name_model(model: Model) -> ModelDigest:
    """Return the identity of a model without reading its weights."""
    if isinstance(model, keras.Model):
        return ModelDigest(str(model.name), code_name(type(model)))
    return ModelDigest(str(getattr(model, "__name__", "a function")), "function")


def digest_model(model: Model) -> ModelDigest:
    """Return the identity of a model, with digests of its weights and its architecture.

    Of a function, the variables are read that it names in an attribute `variables`.
    """
    named = name_model(model)
    weights = _list_weights(model)
    if not weights:
        return ModelDigest(named.name, named.kind, _digest_config(model))
    digests = [digest_array(np.asarray(weight)) for _, weight in weights]
    tensors: dict[str, str] = {}
    for (path, _), digest in zip(weights, digests, strict=True):
        unique = path if path not in tensors else f"{path} ({len(tensors)})"
        tensors[unique] = digest[:_SHORT]
    total = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return ModelDigest(named.name, named.kind, _digest_config(model), total, tensors)


def _list_weights(model: Model) -> list[tuple[str, Any]]:
    """Return the paths and values of the weights of a model, or of the variables of a function."""
    if isinstance(model, keras.Model):
        return [(weight.path, weight.numpy()) for weight in model.weights]
    variables = getattr(model, "variables", None) or ()
    return [(str(v.name), v.numpy()) for v in variables if hasattr(v, "numpy")]


def _digest_config(model: Model) -> str:
    """Return a digest of a model's config; "" if it has none that JSON can express."""
    if not isinstance(model, keras.Model):
        return ""
    try:
        config = keras.saving.serialize_keras_object(model)["config"]
        text = json.dumps(_without_names(config, {}), sort_keys=True)
    except Exception:  # of the caller's layers
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _without_names(value: Any, numbers: dict[str, int]) -> Any:
    """Return a config with the names of layers replaced by numbers, in the order of their use."""
    if isinstance(value, Mapping):
        return {
            key: _numbered(item, numbers) if key in _NAMES else _without_names(item, numbers)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_names(item, numbers) for item in value]
    return value


def _numbered(value: Any, numbers: dict[str, int]) -> Any:
    if isinstance(value, str):
        return numbers.setdefault(value, len(numbers))
    if isinstance(value, (list, tuple)):
        return [_numbered(item, numbers) for item in value]
    return _without_names(value, numbers)
