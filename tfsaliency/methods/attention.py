"""Maps of a transformer's attention, as a composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import tensorflow as tf

from ..errors import check_choice
from .protocol import AttributionFunction, Attributions

AttentionKind = Literal["rollout", "generic_attention", "legrad"]
_NAMES = {"rollout": "attention_rollout"}


@dataclass(frozen=True, eq=False)
class Attention:
    """A map of the attention of a transformer, placed where its tokens look.

    Attention is found in the traced graph: a softmax of a product of two signals that multiplies a
    third. All layers are used. A network in which attention is confined to windows is refused, as
    is one without attention. Rows of the class token are read, or the mean over all rows, as the
    score does. The map has one channel, a value for each token.

    Parameters
    ----------
    kind
        "rollout" (the product of (A + I) / 2 over the blocks, which does not know the class),
        "generic_attention" (A times its gradient, Chefer) or "legrad" (the gradient of the score
        that the head reads from each block).

    Raises
    ------
    UncoveredLayerError
        When a map is computed: if there is no attention among all tokens of an image.
    GeometryError
        If the tokens have no place in the image.

    References
    ----------
    Abnar, Zuidema 2020, arXiv:2005.00928 (rollout); Chefer, Gur, Wolf 2021, arXiv:2103.15679;
    Bousselham et al. 2024, arXiv:2404.03214 (LeGrad).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model("vit"), images, "legrad")
    >>> maps["legrad"].shape
    (1, 64, 64)
    """

    kind: AttentionKind = "generic_attention"

    reduction = "sum"
    never_negative = True
    needs_gradient = False
    needs_sizes = True

    @property
    def name(self) -> str:
        """The key of METHODS."""
        return _NAMES.get(self.kind, self.kind)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, get_args(AttentionKind))

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        found = attribute.attention(points, image_index, self.kind)
        maps = tf.cast(found.values, points.dtype)
        return found._replace(values=tf.ensure_shape(maps, [*points.shape[:-1], 1]))
