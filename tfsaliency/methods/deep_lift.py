"""DeepLIFT: differences from a baseline, passed down by the rescale rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..errors import check_number
from ..relevance.multipliers import DeepLiftPropagation
from .completeness import gap_details, over_baselines, score_difference
from .protocol import AttributionFunction, Attributions


@dataclass(frozen=True, eq=False)
class DeepLIFT:
    """The difference of the scores at image and baseline, divided among the pixels.

    A nonlinear operation passes the difference of its outputs over that of its inputs, in place of
    its derivative (the rescale rule); linear ones pass their derivatives. A product of two signals
    passes the mean of the other factor. The attributions sum to the difference of the scores; the
    detail "gap" is what is missing, as a fraction of it, and a gap above the tolerance is reported.
    An operation without a rule, such as the softmax of attention, is an error that names it.

    Parameters
    ----------
    baseline
        As for IntegratedGradients; of several, attributions are averaged.
    tolerance
        The largest gap, as a fraction of the difference of the scores.

    Raises
    ------
    UncoveredLayerError
        When a map is computed: if an operation has no rule.

    References
    ----------
    Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, tfs.DeepLIFT())
    >>> bool((maps.details["deep_lift"]["gap"] < .01).all())
    True
    """

    baseline: Any = 0.0
    tolerance: float = 0.01

    name = "deep_lift"
    needs_gradient = False

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, 0, above=True)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""

        def attribute_from(start: tf.Tensor) -> Attributions:
            found = attribute.relevance(points, image_index, DeepLiftPropagation(), start)
            ends = score_difference(found.scores, found.details["difference"])
            gap = ends.gap(found.values, tf.range(tf.shape(points)[0]))
            details = gap_details(gap, tf.ones_like(gap), self.tolerance)
            return Attributions(found.values, found.scores, details)

        return over_baselines(self.baseline, points, attribute_from)
