"""Layer-wise relevance propagation, as a composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import tensorflow as tf

from ..errors import OptionError, check_choice, check_flag, check_number, unknown_option
from ..relevance.linear_rules import LINEAR_RULES, LinearRuleName, Settings
from ..relevance.lrp import LayerwisePropagation
from ..relevance.multipliers import TransformerPropagation
from .protocol import AttributionFunction, Attributions

LayerKind = Literal["dense", "convolution", "first"]
_KINDS = get_args(LayerKind)


@dataclass(frozen=True, eq=False)
class LRP:
    """Layer-wise relevance propagation: the score, divided layer by layer among the inputs.

    The relevance of the logit is passed down through the traced graph of the model: each linear
    layer divides it by a rule, with a batch normalization behind it folded in; sums and average
    pools by the epsilon rule; max pools give it to the largest value; activations, reshapes and a
    lone normalization pass it on; gates (of squeeze-and-excite, SiLU, GELU), the softmax of
    attention and the standard deviation of a layer normalization count as constants. An operation
    without a rule is an error that names it. Attributions have the channels of the image.

    LRP is said to be patented by its inventors' institutions, free for personal and scientific use.

    The details have the "relevance" that arrives at the image, what biases "kept", and the largest
    "conservation_error": the relevance that a layer lost or made, as a fraction of the score.

    Parameters
    ----------
    rule
        The rule of linear layers, or a mapping of "dense", "convolution" and "first" (the layers
        that read the image) to rules: "epsilon", "z", "gamma", "alpha1_beta0", "alpha2_beta1",
        "z_plus", "w_square", "flat" or "z_box".
    epsilon
        The stabilizer of the epsilon and gamma rules.
    gamma
        The additional weight of positive weights in the gamma rule.
    box
        The lowest and the highest value of the preprocessed images, for "z_box".
    bias
        Whether biases take their share in the rules "epsilon", "z", "gamma" and alpha-beta.

    Raises
    ------
    UncoveredLayerError
        When a map is computed: if an operation has no rule.
    OptionError
        If a rule is unknown, or the score is no logit.

    References
    ----------
    Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019,
    doi:10.1007/978-3-030-28954-6_10; Kohlbrenner et al. 2020, arXiv:1910.09840 (composites); Ali et
    al. 2022, arXiv:2202.07304 (attention).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> sharp = tfs.LRP({"dense": "epsilon", "convolution": "gamma", "first": "flat"})
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, sharp)
    >>> bool((maps.details["lrp"]["conservation_error"] < .01).all())
    True
    """

    rule: LinearRuleName | Mapping[str, str] | Sequence[Any] = "epsilon"
    epsilon: float = 1e-6
    gamma: float = 0.25
    box: tuple[float, float] | None = None
    bias: bool = True

    name = "lrp"
    reduction = "sum"
    needs_gradient = False

    def __post_init__(self) -> None:
        rules = _rules(self.rule)
        for name in rules.values():
            LINEAR_RULES.named(name)
        if not isinstance(self.rule, str):
            object.__setattr__(self, "rule", tuple(sorted(rules.items())))
        check_number("epsilon", self.epsilon, 0)
        check_number("gamma", self.gamma, 0)
        check_flag("bias", self.bias)
        if self.box is not None:
            low, high = _pair(self.box)
            object.__setattr__(self, "box", (low, high))
        elif "z_box" in rules.values():
            raise OptionError(
                "Expected box=(lowest, highest) value of the preprocessed images beside 'z_box'. "
                "Received: none."
            )

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        settings = Settings(self.epsilon, self.gamma, self.box, self.bias)
        propagation = LayerwisePropagation(_rules(self.rule), settings)
        return attribute.relevance(points, image_index, propagation)


@dataclass(frozen=True, eq=False)
class TransformerLRP:
    """Gradient times input of a network whose gates, attention and deviations are constants.

    The softmax of attention, the standard deviation of a normalization, and the gates of SiLU, GELU
    and squeeze-and-excite pass nothing themselves, and an activation f passes f(z) / z in place of
    its derivative (CP-LRP). So the score is divided without a rest among the image and the biases.
    It is LRP("z") in a form that needs no stabilizer, and at once a modified rule for networks
    without ReLUs. Details and errors are those of LRP.

    Parameters
    ----------
    attention
        "constant": the weights of attention pass nothing (CP-LRP). "passed": they pass relevance,
        too; a product gives half of it to each factor, and a softmax passes its derivative and
        keeps the rest (AttnLRP).

    Raises
    ------
    OptionError
        If attention is neither.

    References
    ----------
    Ali et al. 2022, arXiv:2202.07304 (CP-LRP); Achtibat et al. 2024, arXiv:2402.05602 (AttnLRP).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model("vit"), images, "transformer_lrp")
    >>> bool((maps.details["transformer_lrp"]["conservation_error"] < .001).all())
    True
    """

    attention: Literal["constant", "passed"] = "constant"

    name = "transformer_lrp"
    needs_gradient = False

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, ("constant", "passed"))

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        propagation = TransformerPropagation(self.attention == "passed")
        return attribute.relevance(points, image_index, propagation)


def _rules(rule: Any) -> dict[str, str]:
    """Return the rules of dense layers, convolutions, and perhaps the first layers."""
    if isinstance(rule, str):
        return {"dense": rule, "convolution": rule}
    try:
        given = dict(rule)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"Expected rule as a name, or a mapping of kinds of layers to names. "
            f"Received: {rule!r:.100}."
        ) from error
    for kind in given:
        if kind not in _KINDS:
            raise unknown_option("kind of layer", kind, _KINDS)
    return {"dense": "epsilon", "convolution": "epsilon", **given}


def _pair(box: Any) -> tuple[float, float]:
    if not isinstance(box, (list, tuple)) or len(box) != 2:
        raise OptionError(f"Expected box as (lowest, highest). Received: {box!r:.100}.")
    low, high = box
    check_number("the lowest value of box", low, float("-inf"))
    check_number("the highest value of box", high, low, above=True)
    return float(low), float(high)
