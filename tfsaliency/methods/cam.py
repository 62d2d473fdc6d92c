"""Class activation maps: the outputs of a layer, weighted by how the score depends on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from ..errors import OptionError, unknown_option
from .protocol import AttributionFunction, Attributions
from .rules import Rule, RuleName, resolve_rule

Weights = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


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


# (outputs, gradients), both (k, h', w', channels) -> weights of the same shape, or one a channel.
CAM_WEIGHTS: dict[str, Weights] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "layer_cam": _layer_cam,
}


@dataclass(frozen=True, eq=False)
class CAM:
    """A class activation map: ReLU(sum over channels of weights * outputs of a layer).

    The map has one channel, is never negative, and is resized to the image by bilinear
    interpolation.

    Parameters
    ----------
    weights
        "grad_cam" (the mean gradient over all positions), "grad_cam_plus_plus" or "layer_cam" (the
        positive part of the gradient at each position).
    layer
        Name of the layer, possibly in a nested model; by default, the last layer with spatial
        outputs. If a layer is called several times, its last call is used.
    rule
        The rule for the gradients, a key of RULES or a function; None for the method's rule.

    References
    ----------
    Selvaraju et al. 2017, arXiv:1610.02391 (Grad-CAM); Chattopadhyay et al. 2018,
    arXiv:1710.11063 (Grad-CAM++); Jiang et al. 2021, doi:10.1109/TIP.2021.3089943 (LayerCAM).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> early = tfs.CAM("layer_cam", layer="fire3-concat")
    >>> tfs.saliency_map(synthetic.shapes_model(), images, early)["layer_cam"].shape
    (1, 64, 64)
    """

    weights: Literal["grad_cam", "grad_cam_plus_plus", "layer_cam"] = "grad_cam"
    layer: str | None = None
    rule: RuleName | Rule | None = None

    reduction = "sum"

    @property
    def name(self) -> str:
        """The key of METHODS."""
        return self.weights

    def __post_init__(self) -> None:
        if self.weights not in CAM_WEIGHTS:
            raise unknown_option("weights", self.weights, CAM_WEIGHTS)
        if self.layer is not None and not isinstance(self.layer, str):
            raise OptionError(f"Expected layer as a name, or None. Received: {self.layer!r}.")
        if self.rule is not None:
            resolve_rule(self.rule)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        rule = None if self.rule is None else resolve_rule(self.rule)
        outputs = attribute.at_layer(points, image_index, self.layer, rule)
        weights = CAM_WEIGHTS[self.weights](outputs.values, outputs.gradients)
        weighted = tf.reduce_sum(weights * outputs.values, axis=-1, keepdims=True)
        maps = _resize(tf.nn.relu(weighted), tf.shape(points)[1:-1])
        return Attributions(tf.ensure_shape(maps, [*points.shape[:-1], 1]), outputs.scores, {})


def _resize(maps: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Resize maps (k, ..., 1) by linear interpolation along one axis at a time."""
    for axis in _positions(maps):
        shape = tf.shape(maps)
        before, after = tf.reduce_prod(shape[:axis]), tf.reduce_prod(shape[axis + 1 :])
        rows = tf.reshape(maps, [before, shape[axis], after, 1])
        rows = tf.cast(tf.image.resize(rows, [sizes[axis - 1], after]), maps.dtype)
        maps = tf.reshape(
            rows, [*tf.unstack(shape[:axis]), sizes[axis - 1], *tf.unstack(shape[axis + 1 :])]
        )
    return maps
