"""Products of attributions: with the image, or with other attributions."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from .protocol import AttributionFunction, Attributions, Composition, check_inner, largest


@dataclass(frozen=True, eq=False)
class InputXGradient:
    """The image times its attributions: x * g.

    Parameters
    ----------
    inner
        The attributions to multiply; None for the gradient under the method's rule.

    References
    ----------
    Shrikumar et al. 2016, arXiv:1605.01713.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> methods = ["gradient", tfs.InputXGradient()]
    >>> maps = tfs.attributions(synthetic.shapes_model(), images, methods)
    >>> bool(abs(maps["input_x_gradient"] - images * maps["gradient"]).max() < 1e-6)
    True
    """

    inner: Composition | None = None

    name = "input_x_gradient"

    def __post_init__(self) -> None:
        check_inner(self.inner)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        inner = attribute.of(self.inner)(points, image_index)
        return inner._replace(values=tf.cast(points, inner.values.dtype) * inner.values)


@dataclass(frozen=True, eq=False)
class Product:
    """The product of two attributions, such as guided backpropagation and Grad-CAM.

    Parameters
    ----------
    by, inner
        The two attributions; None for the gradient under the method's rule.

    References
    ----------
    Selvaraju et al. 2017, arXiv:1610.02391, section 3.2 (guided Grad-CAM).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> cam = tfs.CAM(rule="gradient")
    >>> guided = tfs.Method("guided", "guided_backprop", tfs.Product(by=cam))
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> methods = ["guided_backprop", "grad_cam", guided]
    >>> maps = tfs.attributions(synthetic.shapes_model(), images, methods)
    >>> product = maps["guided_backprop"] * maps["grad_cam"]
    >>> bool(abs(maps["guided"] - product).max() < 1e-6)
    True
    """

    by: Composition | None
    inner: Composition | None = None

    name = "product"

    def __post_init__(self) -> None:
        check_inner(self.by, "by")
        check_inner(self.inner)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        one, other = (attribute.of(each)(points, image_index) for each in (self.inner, self.by))
        shared = one.details.keys() & other.details.keys()
        joint = largest([{name: each.details[name] for name in shared} for each in (one, other)])
        details = {**one.details, **other.details, **joint}
        return Attributions(one.values * other.values, one.scores, details)
