"""Description of a differentiation: the model, its inputs, the score and the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ..errors import OptionError
from ..methods.rules import Rule
from .functions import Model
from .heads import Head
from .model_io import Inputs
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
        The inputs of the model, with the shape (None, ...) and dtype of each; the specs of a region
        of the outputs follow, if there is one.
    rules
        The rule of each method, by name.
    score
        A key of SCORES, a callable, or None.
    output
        The scored output; None for the only one.
    loss
        The loss on which the output was trained, if known.
    layer
        The layer with respect to whose outputs to differentiate; None for the images.
    precision
        One of PRECISIONS; None for the model's own.
    jit_compile
        Whether XLA compiles the trace.
    fold
        Whether batch normalization is folded into the operation before it.
    """

    model: Model
    inputs: Inputs
    specs: tuple[tf.TensorSpec, ...]
    rules: Mapping[str, Rule]
    score: str | Score | None = None
    output: str | int | None = None
    loss: Any = None
    layer: LayerRequest | None = None
    precision: str | None = None
    jit_compile: bool = False
    fold: bool = False

    def region_of(self, inputs: Sequence[tf.Tensor], head: Head) -> tf.Tensor | None:
        """Return the weights (n, positions) of the region among the inputs; None without one.

        Raises
        ------
        OptionError
            If the outputs have no positions, or others than the region.
        """
        if len(inputs) == len(self.inputs.names):
            return None
        region, outputs = inputs[-1], head.outputs.shape
        if callable(self.score):
            raise OptionError(
                "Expected a named score with region=, such as score='logit'. Received: a callable. "
                "Let it choose the positions itself."
            )
        if not head.is_dense or not outputs[1:-1].is_compatible_with(region.shape[1:]):
            positions = tuple(outputs[1:-1]) if head.is_dense else "none"
            raise OptionError(
                f"Expected a region of the positions of the outputs {outputs}: {positions}. "
                f"Received: shape {tuple(region.shape[1:])}. "
                + ("Resize the mask to them." if head.is_dense else "Leave region out.")
            )
        return region
