"""Class activation maps: the outputs of a layer, weighed by how the score depends on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from ..errors import OptionError, unknown_option
from ..rules import Rule
from .asking import Explain, Explained

Weights = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _places(values: tf.Tensor) -> list[int]:
    return list(range(1, values.shape.rank - 1))


def _grad_cam(values: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(slopes, _places(slopes), keepdims=True)


def _grad_cam_plus_plus(values: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    total = tf.reduce_sum(values, _places(values), keepdims=True)
    square = slopes**2
    alpha = tf.math.divide_no_nan(square, 2 * square + total * square * slopes)
    return tf.reduce_sum(alpha * tf.nn.relu(slopes), _places(slopes), keepdims=True)


def _layer_cam(values: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(slopes)


# (outputs, slopes), both (k, h', w', channels) -> the weights of the outputs, as many or one for
# all places.
CAM_WEIGHTS: dict[str, Weights] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "layer_cam": _layer_cam,
}


@dataclass(frozen=True, eq=False)
class CAM:
    """A class activation map: ReLU(sum over channels of weights * outputs of a layer).

    One channel, not negative, at the size of the image by bilinear interpolation.

    Parameters
    ----------
    weights
        "grad_cam" (the mean of the slopes over all places), "grad_cam_plus_plus" or "layer_cam"
        (the positive part of the slope at each place).
    layer
        The layer's name, of a nested model's too. By default the last with spatial outputs. Of a
        layer that is called several times the last call counts.
    rule
        The rule of the slopes; None for that of the method.

    References
    ----------
    Selvaraju et al. 2017, arXiv:1610.02391 (Grad-CAM); Chattopadhyay et al. 2018,
    arXiv:1710.11063 (Grad-CAM++); Jiang et al. 2021, doi:10.1109/TIP.2021.3089943 (LayerCAM).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("early", tfs.RULES["gradient"], tfs.CAM("layer_cam", "fire3-concat"))
    >>> maps = tfs.gradient_map(worlds.shapes_model(), worlds.shapes(1, seed=0).images, method)
    >>> maps["early"].shape
    (1, 64, 64)
    """

    weights: str = "grad_cam"
    layer: str | None = None
    rule: Rule | None = None

    def __post_init__(self) -> None:
        if self.weights not in CAM_WEIGHTS:
            raise unknown_option("weights", self.weights, CAM_WEIGHTS)
        if self.layer is not None and not isinstance(self.layer, str):
            raise OptionError(f"Expected layer as a name, or None. Received: {self.layer!r}.")
        if self.rule is not None and not callable(self.rule):
            raise OptionError(
                "Expected rule as a function (upstream, site) -> gradient, such as "
                f"RULES['gradient'], or None. Received: {self.rule!r}."
            )

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        found = explain.features(points, rows, self.layer, self.rule)
        weights = CAM_WEIGHTS[self.weights](found.values, found.slopes)
        weighed = tf.reduce_sum(weights * found.values, axis=-1, keepdims=True)
        maps = _resized(tf.nn.relu(weighed), tf.shape(points)[1:-1])
        return Explained(tf.ensure_shape(maps, [*points.shape[:-1], 1]), found.scores, {})


def _resized(maps: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Return maps (k, ..., 1) of other sizes, by linear interpolation along one axis at a time."""
    for axis in _places(maps):
        shape = tf.shape(maps)
        before, after = tf.reduce_prod(shape[:axis]), tf.reduce_prod(shape[axis + 1 :])
        rows = tf.reshape(maps, [before, shape[axis], after, 1])
        rows = tf.cast(tf.image.resize(rows, [sizes[axis - 1], after]), maps.dtype)
        maps = tf.reshape(
            rows, [*tf.unstack(shape[:axis]), sizes[axis - 1], *tf.unstack(shape[axis + 1 :])]
        )
    return maps
