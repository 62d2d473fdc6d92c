"""Score-CAM: the outputs of a layer, weighted by the scores of the image seen through each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .cam import CAM
from .protocol import AttributionFunction, Attributions, fold


@dataclass(frozen=True, eq=False)
class ScoreCAM:
    """A class activation map whose weights are scores of the image, masked by each channel.

    Each channel of the layer is placed in the image, scaled to [0, 1], and multiplied with the
    image; the weights are the softmax over channels of the scores of these images. The map is
    ReLU(sum over channels of weights * outputs). It takes as many forward passes as the layer has
    channels, and no gradient. The map has one channel.

    Parameters
    ----------
    layer, grid, prefix
        As for CAM.

    Raises
    ------
    GeometryError
        As for CAM.

    References
    ----------
    Wang et al. 2020, arXiv:1910.01279. The score of the baseline image, which the paper subtracts
    from all others, has no effect on the softmax.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, "score_cam")
    >>> maps["score_cam"].shape
    (1, 64, 64)
    """

    layer: Any = None
    grid: Sequence[int] | None = None
    prefix: int = 0

    name = "score_cam"
    reduction = "sum"
    never_negative = True
    needs_gradient = False
    needs_sizes = True

    @property
    def expected_samples(self) -> int:
        """The expected number of channels, for the progress of a call."""
        return 256

    def __post_init__(self) -> None:
        checked = CAM(layer=self.layer, grid=self.grid, prefix=self.prefix)
        object.__setattr__(self, "grid", checked.grid)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        outputs = attribute.at_layer(
            points, image_index, self.layer, None, self.grid, self.prefix, gradients=False
        )
        cells, channels = outputs.values, outputs.values.shape[-1]
        axes = list(range(1, cells.shape.rank - 1))
        low, high = (f(cells, axes, keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
        scaled = tf.math.divide_no_nan(cells - low, high - low)

        def draw(channel: tf.Tensor) -> tf.Tensor:
            one = tf.gather(scaled, channel, axis=-1)[..., tf.newaxis]
            return points * tf.cast(outputs.grid.to_image(one), points.dtype)

        def place(samples: tf.Tensor, drawn: Attributions) -> tf.Tensor:
            """Return the scores at the places of their channels, and zeros, (k, channels)."""
            at = tf.one_hot(samples, channels, dtype=drawn.values.dtype)
            return tf.tensordot(drawn.values, at, [[0], [0]])

        scores, _ = fold(
            channels, draw, attribute.scores_alone(), points, image_index, place, tf.add
        )
        weights = tf.cast(tf.nn.softmax(scores), cells.dtype)
        shape = [-1, *([1] * len(axes)), channels]
        maps = tf.reduce_sum(tf.reshape(weights, shape) * cells, -1, keepdims=True)
        maps = outputs.grid.to_image(tf.nn.relu(maps))
        maps = tf.ensure_shape(maps, [*points.shape[:-1], 1])
        return Attributions(maps, outputs.scores, {})
