"""Attributions times something else."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from .asking import Composition, Explain, Explained, check_of, largest


@dataclass(frozen=True, eq=False)
class InputXGradient:
    """The image times its attributions: x * g.

    Parameters
    ----------
    of
        Of which attributions; by default of the gradient under the method's rule.

    References
    ----------
    Shrikumar et al. 2016, arXiv:1605.01713.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> method = tfs.Method("product", tfs.RULES["gradient"], tfs.InputXGradient())
    >>> images = worlds.shapes(1, seed=0).images
    >>> found = tfs.attributions(worlds.shapes_model(), images, ["gradient", method])
    >>> bool(abs(found["product"] - images * found["gradient"]).max() < 1e-6)
    True
    """

    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.of)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        found = explain.within(self.of).at(points, rows)
        return found._replace(values=tf.cast(points, found.values.dtype) * found.values)


@dataclass(frozen=True, eq=False)
class Product:
    """The product of two attributions, such as guided backpropagation and Grad-CAM.

    Parameters
    ----------
    by, of
        Which attributions; None for the gradient under the method's rule.

    References
    ----------
    Selvaraju et al. 2017, arXiv:1610.02391, section 3.2 (guided Grad-CAM).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> cam = tfs.CAM(rule=tfs.RULES["gradient"])
    >>> guided = tfs.Method("guided", tfs.RULES["guided_backprop"], tfs.Product(by=cam))
    >>> images = worlds.shapes(1, seed=0).images
    >>> methods = ["guided_backprop", "grad_cam", guided]
    >>> found = tfs.attributions(worlds.shapes_model(), images, methods)
    >>> product = found["guided_backprop"] * found["grad_cam"]
    >>> bool(abs(found["guided"] - product).max() < 1e-6)
    True
    """

    by: Composition | None
    of: Composition | None = None

    def __post_init__(self) -> None:
        check_of(self.by, "by")
        check_of(self.of)

    def __call__(self, explain: Explain, points: tf.Tensor, rows: tf.Tensor) -> Explained:
        """Return the attributions at points (k, h, w, c) of the images with these rows (k,)."""
        one, other = (explain.within(each).at(points, rows) for each in (self.of, self.by))
        told = {**one.details, **other.details}
        both = one.details.keys() & other.details.keys()
        told.update(largest([{name: each.details[name] for name in both} for each in (one, other)]))
        return Explained(one.values * other.values, one.scores, told)
