"""Class activation maps: the outputs of a layer, weighted by how the score depends on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import keras
import tensorflow as tf

from ..errors import OptionError, check_choice, check_flag, check_int
from .protocol import AttributionFunction, Attributions
from .rules import Rule, RuleName, resolve_rule

Weights = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
CamName = Literal["grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam"]


def _positions(values: tf.Tensor) -> list[int]:
    return list(range(1, values.shape.rank - 1))


def _grad_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(gradients, _positions(gradients), keepdims=True)


def _grad_cam_plus_plus(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    total = tf.reduce_sum(values, _positions(values), keepdims=True)
    square = gradients**2
    alpha = tf.math.divide_no_nan(square, 2 * square + total * square * gradients)
    return tf.reduce_sum(alpha * tf.nn.relu(gradients), _positions(gradients), keepdims=True)


def _layer_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(gradients)


def _hires_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    return gradients


def _xgrad_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    total = tf.reduce_sum(values, _positions(values), keepdims=True)
    weighted = tf.reduce_sum(gradients * values, _positions(values), keepdims=True)
    return tf.math.divide_no_nan(weighted, total)


# (outputs, gradients), both (k, h', w', channels) -> weights of the same shape, or one a channel.
CAM_WEIGHTS: dict[str, Weights] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "layer_cam": _layer_cam,
    "hires_cam": _hires_cam,
    "xgrad_cam": _xgrad_cam,
}


@dataclass(frozen=True, eq=False)
class CAM:
    """A class activation map: ReLU(sum over channels of weights * outputs of a layer).

    The map has one channel. Each cell of the layer lies where it looks in the image: its place is
    computed from the operations between the two, such as strides, paddings, crops and patches.
    Between the centers of cells the map is interpolated linearly; pixels that no cell sees are 0.

    Parameters
    ----------
    weights
        "grad_cam" (the mean gradient over all positions), "grad_cam_plus_plus", "layer_cam" (the
        positive part of the gradient at each position), "hires_cam" (the gradient at each
        position) or "xgrad_cam" (the mean gradient, weighted by the outputs; their sum must not be
        near 0, as it is behind a normalization).
    layer
        The layer: its name or path "outer/inner", its index in model.layers, or the layer itself.
        By default, the last layer whose cells can be placed in the image and lead to the score; for
        a model whose outputs are a picture, the last one of the lowest resolution. If a layer is
        called several times, its last call is used.
    rule
        The rule for the gradients, a key of RULES or a function; None for the method's rule.
    grid, prefix
        The number of cells along each axis of the image, (rows, columns), and the number of other
        tokens before them, for a layer whose cells cannot be found; they are spread evenly over
        the image.
    relu
        Whether negative values become 0; without, the map is signed.
    resize
        Whether the map is placed in the image; without, it has one value for each cell.

    Raises
    ------
    GeometryError
        When a map is computed: if the cells of the layer, or of any layer, have no place.

    References
    ----------
    Selvaraju et al. 2017, arXiv:1610.02391 (Grad-CAM); Chattopadhyay et al. 2018,
    arXiv:1710.11063 (Grad-CAM++); Jiang et al. 2021, doi:10.1109/TIP.2021.3089943 (LayerCAM);
    Draelos and Carin 2020, arXiv:2011.08891 (HiResCAM); Fu et al. 2020, arXiv:2008.02312
    (XGrad-CAM).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> early = tfs.CAM("layer_cam", layer="fire3-concat")
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, early)
    >>> maps["layer_cam"].shape
    (1, 64, 64)
    >>> print(maps.coverage["layer_cam"].grids[0])
    fire3-concat, 16 x 16 cells, 4 pixels a cell, the first at 2.25, 2.25
    """

    weights: CamName = "grad_cam"
    layer: Any = None
    rule: RuleName | Rule | None = None
    grid: Sequence[int] | None = None
    prefix: int = 0
    relu: bool = True
    resize: bool = True

    reduction = "sum"
    needs_sizes = True

    @property
    def name(self) -> str:
        """The key of METHODS."""
        return self.weights

    @property
    def never_negative(self) -> bool:
        """True if no value of a map is negative."""
        return self.relu

    def __post_init__(self) -> None:
        check_choice("weights", self.weights, CAM_WEIGHTS)
        check_layer(self.layer)
        if self.rule is not None:
            resolve_rule(self.rule)
        check_int("prefix", self.prefix, 0)
        check_flag("relu", self.relu)
        check_flag("resize", self.resize)
        if self.grid is not None:
            if not isinstance(self.grid, (list, tuple)) or self.layer is None:
                raise OptionError(
                    "Expected grid as the number of cells along each axis of the image, (rows, "
                    f"columns), beside the layer. Received: grid={self.grid!r}, "
                    f"layer={self.layer!r}."
                )
            for count in self.grid:
                check_int("each number of cells in grid", count, 1)
            object.__setattr__(self, "grid", tuple(map(int, self.grid)))
        elif self.prefix:
            raise OptionError(
                f"Expected prefix beside grid=(rows, columns). Received: prefix={self.prefix}."
            )

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        rule = None if self.rule is None else resolve_rule(self.rule)
        outputs = attribute.at_layer(points, image_index, self.layer, rule, self.grid, self.prefix)
        weights = CAM_WEIGHTS[self.weights](outputs.values, outputs.gradients)
        maps = tf.reduce_sum(weights * outputs.values, axis=-1, keepdims=True)
        details = {"negative": _is_negative(maps)} if self.relu else {}
        maps = tf.nn.relu(maps) if self.relu else maps
        if self.resize:
            maps = tf.ensure_shape(outputs.grid.to_image(maps), [*points.shape[:-1], 1])
        return Attributions(maps, outputs.scores, details)


def _is_negative(maps: tf.Tensor) -> tf.Tensor:
    """Return 1 for each map that is negative somewhere and positive nowhere, else 0, (k,)."""
    axes = list(range(1, maps.shape.rank))
    low, high = tf.reduce_min(maps, axes), tf.reduce_max(maps, axes)
    return tf.cast((low < 0) & (high <= 0), maps.dtype)


def check_layer(layer: Any) -> None:
    """Raise OptionError unless the value names a layer, or is one, or None."""
    named = isinstance(layer, (str, Integral, keras.Operation)) and not isinstance(layer, bool)
    if layer is not None and not named:
        raise OptionError(
            "Expected layer as a name, a path 'outer/inner', an index in model.layers, a layer, or "
            f"None. Received: {layer!r}."
        )
