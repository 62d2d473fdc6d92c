"""Description of a differentiation: the model, its inputs, the score and the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from ..methods.rules import Rule
from .model_io import Inputs, Model
from .scores import Score

DEFAULT_LAYER = ""  # the last layer with spatial outputs


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
        The layer with respect to whose outputs to differentiate, a name or DEFAULT_LAYER; None for
        the images.
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
    layer: str | None = None
    precision: str | None = None
    jit_compile: bool = False
