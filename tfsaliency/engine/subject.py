"""Description of a differentiation: the model, its inputs, the score and the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from ..methods.rules import Rule
from .model_io import Inputs, Model
from .scores import Score


class LayerRequest(NamedTuple):
    """The layer of a class activation map, as the caller names it.

    Parameters
    ----------
    layer
        Its name, path, index, or the layer itself; None for the best.
    grid, prefix
        The number of cells along each axis of the image, and of other tokens before them, if the
        caller describes them.
    """

    layer: str | int | keras.layers.Layer | None = None
    grid: tuple[int, ...] | None = None
    prefix: int = 0


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a differentiation: a model's score, with respect to images or a layer.

    Parameters
    ----------
    model
        The caller's model.
    inputs, specs
        The inputs of the model, with the shape (None, ...) and dtype of each.
    rules
        The rule of each method, by name.
    score
        A key of SCORES or a callable.
    output
        The scored output; None for the only one.
    layer
        The layer with respect to whose outputs to differentiate; None for the images.
    precision
        One of PRECISIONS; None for the model's own.
    jit_compile
        Whether XLA compiles the trace.
    """

    model: Model
    inputs: Inputs
    specs: tuple[tf.TensorSpec, ...]
    rules: Mapping[str, Rule]
    score: str | Score = "logit"
    output: str | int | None = None
    layer: LayerRequest | None = None
    precision: str | None = None
    jit_compile: bool = False
