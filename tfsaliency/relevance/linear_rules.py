"""Rules that divide the relevance of a linear operation's outputs among its inputs.

For inputs a_i, weights w_ij and a bias b_j, the contributions a_i w_ij and b_j make the output z_j.
Each rule passes the relevance R_j of an output to the inputs, in proportion to some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import tensorflow as tf

from ..tables import Table
from .blocks import Block, pull_normalization, shift_of_normalization
from .graph import Graph, apply_again, pull

LinearRuleName = Literal[
    "epsilon", "z", "gamma", "alpha1_beta0", "alpha2_beta1", "z_plus", "w_square", "flat", "z_box"
]


@dataclass(frozen=True)
class Settings:
    """The numbers of the rules.

    Parameters
    ----------
    epsilon
        The stabilizer of the epsilon and gamma rules.
    gamma
        The additional weight of positive weights.
    box
        The lowest and highest value of the images, for z_box.
    bias
        Whether biases take their share.
    """

    epsilon: float = 1e-6
    gamma: float = 0.25
    box: tuple[float, float] | None = None
    bias: bool = True


class Linear(NamedTuple):
    """A linear block with the relevance at the outputs of its operation.

    Parameters
    ----------
    block, graph
        The block and its graph.
    relevance
        The relevance R.
    a, y, z
        The inputs, the outputs of the operation without a bias of its own, and its outputs scaled
        and shifted.
    scale
        The factors between the two, s; z = s * y + b.
    """

    block: Block
    graph: Graph
    relevance: tf.Tensor
    a: tf.Tensor
    y: tf.Tensor
    z: tf.Tensor
    scale: tf.Tensor

    @property
    def weights(self) -> tf.Tensor:
        """The weights w."""
        return self.block.core.inputs[self._weights_at]

    @property
    def _weights_at(self) -> int:
        return 0 if self.block.number == 1 else 1

    def parts(self, settings: Settings) -> tuple[tf.Tensor, tf.Tensor]:
        """Return z and b; without biases, s * y and 0."""
        scaled = self.scale * self.y
        b = self.z - scaled
        return (self.z, b) if settings.bias else (scaled, tf.zeros_like(b))

    def apply(self, a: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the operation for other inputs and weights."""
        inputs = list(self.block.core.inputs)
        inputs[self.block.number], inputs[self._weights_at] = a, w
        return apply_again(self.block.core, inputs)

    def pull(self, values: tf.Tensor) -> tf.Tensor:
        """Pull values at the outputs of the operation back to its inputs."""
        if self.block.root is not None:
            return pull_normalization(self.block, values, self.graph)
        return pull(self.block.core, [values], [self.block.number])[0]


# (linear block, settings) -> relevance of the inputs, and what the biases keep, at the outputs.
Shares = tuple[tf.Tensor, tf.Tensor]
LinearRule = Callable[[Linear, Settings], Shares]


def make_linear(block: Block, graph: Graph, end: tf.Operation, relevance: tf.Tensor) -> Linear:
    """Return a block with the relevance that arrives at its end."""
    ones = tf.ones_like(end.outputs[0])
    shift = 0.0 if block.root is None else shift_of_normalization(block, graph)
    return Linear(
        block,
        graph,
        block.to_core(relevance, graph, False),
        block.inputs,
        block.outputs - shift,
        block.to_core(end.outputs[0], graph, False),
        block.to_core(ones, graph, True),
    )


def stabilized(z: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Return z + epsilon * sign(z), where the sign of 0 is +1."""
    step = tf.constant(epsilon, z.dtype)
    return tf.where(z < 0, z - step, z + step)


def epsilon(linear: Linear, settings: Settings) -> Shares:
    """Pass down a w R / (z + epsilon sign(z)).

    References
    ----------
    Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 58.
    """
    whole, kept = linear.parts(settings)
    share = linear.relevance / stabilized(whole, settings.epsilon)
    return linear.a * linear.pull(share * linear.scale), kept * share


def z(linear: Linear, settings: Settings) -> Shares:
    """Pass down a w R / z, where outputs of 0 pass nothing.

    References
    ----------
    Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 56.
    """
    whole, kept = linear.parts(settings)
    share = tf.math.divide_no_nan(linear.relevance, whole)
    return linear.a * linear.pull(share * linear.scale), kept * share


def gamma(linear: Linear, settings: Settings) -> Shares:
    """Pass down by the epsilon rule of the weights w + gamma max(w, 0).

    References
    ----------
    Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10.
    """
    s, (whole, b) = linear.scale, linear.parts(settings)
    weights = tf.nn.relu(linear.weights), -tf.nn.relu(-linear.weights)
    above, below = (linear.apply(linear.a, w) for w in weights)  # by the sign of s
    b += settings.gamma * tf.nn.relu(b)
    whole = s * linear.y + settings.gamma * s * tf.where(s >= 0, above, below) + b
    share = linear.relevance / stabilized(whole, settings.epsilon)
    zero = tf.zeros_like(share)
    passed = linear.pull(s * share)
    for output, own in ((above, s >= 0), (below, s < 0)):
        (more,) = tf.gradients(output, linear.a, tf.where(own, s * share, zero))
        passed += settings.gamma * more
    return linear.a * passed, b * share


def alpha_beta(linear: Linear, alpha: float, beta: float, settings: Settings) -> Shares:
    """Pass down alpha (a w)+ R / sum (a w)+ - beta (a w)- R / sum (a w)-.

    References
    ----------
    Bach et al. 2015, doi:10.1371/journal.pone.0130140, equation 60.
    """
    s, (_, b) = linear.scale, linear.parts(settings)
    signed = [(tf.nn.relu(t), -tf.nn.relu(-t)) for t in (linear.a, linear.weights)]
    (a_up, a_down), (w_up, w_down) = signed
    terms = {
        (x, w): linear.apply(inputs, weights)
        for x, inputs in enumerate((a_up, a_down))
        for w, weights in enumerate((w_up, w_down))
    }
    same, other = terms[0, 0] + terms[1, 1], terms[0, 1] + terms[1, 0]
    up, down = s * tf.where(s >= 0, same, other), s * tf.where(s >= 0, other, same)
    b_up, b_down = tf.nn.relu(b), -tf.nn.relu(-b)
    share_up = alpha * tf.math.divide_no_nan(linear.relevance, up + b_up)
    share_down = -beta * tf.math.divide_no_nan(linear.relevance, down + b_down)
    of_same = s * tf.where(s >= 0, share_up, share_down)
    of_other = s * tf.where(s >= 0, share_down, share_up)
    passed = tf.zeros_like(linear.a)
    for (x, w), output in terms.items():
        inputs = (a_up, a_down)[x]
        (slope,) = tf.gradients(output, inputs, of_same if x == w else of_other)
        passed += inputs * slope
    return passed, b_up * share_up + b_down * share_down


def alpha1_beta0(linear: Linear, settings: Settings) -> Shares:
    """Pass down (a w)+ R / sum (a w)+, where positive biases take their share."""
    return alpha_beta(linear, 1.0, 0.0, settings)


def alpha2_beta1(linear: Linear, settings: Settings) -> Shares:
    """Pass down 2 (a w)+ R / sum (a w)+ - (a w)- R / sum (a w)-, with biases."""
    return alpha_beta(linear, 2.0, 1.0, settings)


def z_plus(linear: Linear, settings: Settings) -> Shares:
    """Pass down (a w)+ R / sum (a w)+, without biases.

    References
    ----------
    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.
    """
    return alpha_beta(linear, 1.0, 0.0, replace(settings, bias=False))


def w_square(linear: Linear, settings: Settings) -> Shares:
    """Pass down w^2 R / sum w^2, whatever the inputs.

    References
    ----------
    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.
    """
    return _by_weights(linear, tf.square(linear.weights))


def flat(linear: Linear, settings: Settings) -> Shares:
    """Pass down R / n to each of the n inputs of an output.

    References
    ----------
    Lapuschkin et al. 2017, doi:10.1109/ICCVW.2017.22.
    """
    return _by_weights(linear, tf.ones_like(linear.weights))


def _by_weights(linear: Linear, weights: tf.Tensor) -> Shares:
    ones = tf.ones_like(linear.a)
    output = linear.apply(ones, weights)
    share = tf.math.divide_no_nan(linear.relevance, output)
    (passed,) = tf.gradients(output, ones, share)
    return passed, tf.zeros_like(share)


def z_box(linear: Linear, settings: Settings) -> Shares:
    """Pass down a w - low w+ - high w-, of images from low to high.

    References
    ----------
    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.
    """
    low, high = (
        tf.fill(tf.shape(linear.a), tf.constant(v, linear.a.dtype)) for v in settings.box or ()
    )
    s = linear.scale
    w_up, w_down = tf.nn.relu(linear.weights), -tf.nn.relu(-linear.weights)
    terms = [(low, w_up, True), (high, w_down, True), (low, w_down, False), (high, w_up, False)]
    outputs = [linear.apply(at, w) for at, w, _ in terms]
    least = s * tf.where(s >= 0, outputs[0] + outputs[1], outputs[2] + outputs[3])
    share = s * tf.math.divide_no_nan(linear.relevance, s * linear.y - least)
    zero = tf.zeros_like(share)
    passed = linear.a * linear.pull(share)
    for (at, _, above), output in zip(terms, outputs, strict=True):
        own = tf.where(s >= 0, share, zero) if above else tf.where(s < 0, share, zero)
        (slope,) = tf.gradients(output, at, own)
        passed -= at * slope
    return passed, tf.zeros_like(share)


LINEAR_RULES: Table[LinearRule] = Table(
    "rule of relevance",
    {
        rule.__name__: rule
        for rule in (
            epsilon, z, gamma, alpha1_beta0, alpha2_beta1, z_plus, w_square, flat, z_box,
        )
    },
)  # fmt: skip
