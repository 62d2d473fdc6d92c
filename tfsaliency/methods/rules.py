"""Rules for the backward pass of a ReLU, as pure functions.

A rule takes the gradient that arrives from above and the ReLU's site, and returns the gradient to
pass down. In the formulas u is that upstream gradient, z and y are the ReLU's
input and output, and s = dy/dz is the ReLU's own slope at z: 0 or 1 for a plain ReLU, 0 above
the ceiling of a ReLU6, the negative slope of a leaky one.

The papers define the rules for plain ReLUs. For related activations, this package decides:

- Leaky ReLUs (LeakyReLU, PReLU, ReLU with a negative slope) are ReLUs. Guided backpropagation
  restricts the chain rule to positive signals (Springenberg et al. 2014, section 3.4), and the
  chain rule through a leaky ReLU is u * s: with s = 0 it is the paper's formula, and paths that
  the network uses are not cut. The deconvnet rectifies the signal on its way down, whatever the
  ReLU passed on the way up (Zeiler and Fergus 2014, section 2.1), and does not depend on s.
- ELU, SELU, CELU, GELU, SiLU are not ReLUs. Both papers assume a rectifier that is on or off;
  these functions have no off state. They keep their own derivative.
- A ReLU(6) that is the clip of a hard sigmoid, max(0, min(6, x + 3)) / 6, as in hard_silu and in
  squeeze-and-excite blocks, is a gate: it scales another signal and does not rectify. It keeps its
  own derivative.

The coverage of a result counts each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from ..errors import OptionError
from ..tables import Table


@dataclass(frozen=True, eq=False)
class Site:
    """One ReLU during a backward pass.

    Parameters
    ----------
    outputs
        y, any shape.
    backward
        The ReLU's own derivative: u -> u * s, computed by TensorFlow's own kernel.

    Examples
    --------
    >>> import tensorflow as tf, tfsaliency as tfs
    >>> site = tfs.Site(tf.constant([0.0, 2.0]), lambda u: u * [0.0, 1.0])
    >>> tfs.RULES["guided_backprop"](tf.constant([3.0, 4.0]), site).numpy().tolist()
    [0.0, 4.0]
    """

    outputs: tf.Tensor
    backward: Callable[[tf.Tensor], tf.Tensor]


Rule = Callable[[tf.Tensor, Site], tf.Tensor]


def gradient(upstream: tf.Tensor, site: Site) -> tf.Tensor:
    """Pass down u * s: the chain rule, unchanged.

    References
    ----------
    Simonyan, Vedaldi, Zisserman 2013, "Deep Inside Convolutional Networks", arXiv:1312.6034.
    """
    return site.backward(upstream)


def guided_backprop(upstream: tf.Tensor, site: Site) -> tf.Tensor:
    """Pass down max(u, 0) * s: only signals that are positive forward and backward.

    References
    ----------
    Springenberg, Dosovitskiy, Brox, Riedmiller 2014, "Striving for Simplicity",
    arXiv:1412.6806.
    """
    return site.backward(tf.nn.relu(upstream))


def zeiler_fergus(upstream: tf.Tensor, site: Site) -> tf.Tensor:
    """Pass down max(u, 0), independent of z: the "deconvnet".

    References
    ----------
    Zeiler, Fergus 2014, "Visualizing and Understanding Convolutional Networks",
    arXiv:1311.2901.
    """
    return tf.nn.relu(upstream)


def rect_grad(upstream: tf.Tensor, site: Site) -> tf.Tensor:
    """Pass down u where y * u is among the largest 2 % of its layer, and 0 elsewhere.

    u * [y * u > tau], tau the 98th percentile of y * u over one image's values in the layer.

    References
    ----------
    Kim et al. 2019, "Why are Saliency Maps Noisy? Cause of and Solution to Noisy Saliency Maps",
    arXiv:1902.04893.
    """
    return rect_grad_at(98.0)(upstream, site)


def rect_grad_at(percentile: float) -> Rule:
    """Return the rule of RectGrad with another percentile.

    Parameters
    ----------
    percentile
        Percentile of y * u over one image's values in a layer, (n, ...) for n images, in [0, 100);
        gradients above it pass.

    Returns
    -------
    A Rule, for a custom Method.

    Raises
    ------
    OptionError
        If percentile is not a number in [0, 100).

    References
    ----------
    Kim et al. 2019, arXiv:1902.04893.

    Examples
    --------
    >>> import tensorflow as tf, tfsaliency as tfs
    >>> y, u = tf.constant([[1.0, 2.0, 3.0, 4.0]]), tf.constant([[5.0, 1.0, -7.0, 2.0]])
    >>> rule = tfs.rect_grad_at(50)  # y * u is 5, 2, -21 and 8, its median 3.5
    >>> rule(u, tfs.Site(y, lambda upstream: upstream)).numpy().tolist()
    [[5.0, 0.0, 0.0, 2.0]]
    """
    if not isinstance(percentile, (int, float)) or not 0 <= percentile < 100:
        raise OptionError(
            f"Expected percentile as a number from 0 to below 100. Received: {percentile!r}."
        )

    def rule(upstream: tf.Tensor, site: Site) -> tf.Tensor:
        # float16 would overflow.
        wide = upstream.dtype if upstream.dtype.size >= tf.float32.size else tf.float32
        product = tf.cast(site.outputs, wide) * tf.cast(upstream, wide)
        flat = tf.reshape(product, [tf.shape(product)[0], -1])
        largest = flat > _percentile(flat, percentile)[:, tf.newaxis]
        return tf.where(tf.reshape(largest, tf.shape(upstream)), upstream, tf.zeros_like(upstream))

    return rule


def _percentile(values: tf.Tensor, percentile: float) -> tf.Tensor:
    """Return a percentile of each row of (n, m), interpolated linearly."""
    last = tf.cast(tf.shape(values)[1] - 1, tf.float64)
    place = last * percentile / 100
    below = tf.cast(place, tf.int32)
    largest = tf.math.top_k(values, tf.shape(values)[1] - below).values
    low, high = largest[:, -1], largest[:, -tf.minimum(2, tf.shape(largest)[1])]
    share = tf.cast(place - tf.cast(below, tf.float64), values.dtype)
    return low + share * (high - low)


RuleName = Literal["gradient", "guided_backprop", "zeiler_fergus", "rect_grad"]
RULES: Table[Rule] = Table(
    "rule", {rule.__name__: rule for rule in (gradient, guided_backprop, zeiler_fergus, rect_grad)}
)


def resolve_rule(rule: str | Rule) -> Rule:
    """Return a rule given as a function or a key of RULES, or raise OptionError."""
    if callable(rule):
        return rule
    if not isinstance(rule, str):
        raise OptionError(
            "Expected a rule as a key of RULES or a function (upstream, site) -> gradient. "
            f"Received: {rule!r}."
        )
    return RULES.named(rule)
