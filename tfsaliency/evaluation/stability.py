"""Stability: how much maps change if the image hardly does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..arrays import Array, digest_array
from ..errors import check_choice, check_int, check_number
from .metric import Context


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Change of a map under small noise: the norm of phi(x + d) - phi(x) over that of phi(x).

    A map that ignores the image, such as a blob, scores 0, so it is not judged.

    Parameters
    ----------
    statistic
        The "max" or the "mean" over noises.
    radius
        The largest absolute value of the uniform noise d, as a fraction of the image's range.
    samples
        The number of noises; all maps have the same ones.

    Raises
    ------
    OptionError
        If an option is impossible.

    References
    ----------
    Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", arXiv:1901.09392.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")  # its gradient is constant
    >>> data = known.ground_truth(8, seed=0)
    >>> tfs.evaluate(known.model, data, "gradient", metrics="max_sensitivity").mean(
    ...     "gradient", "max_sensitivity")
    0.0
    """

    statistic: Literal["max", "mean"] = "max"
    radius: float = 0.02
    samples: int = 10

    name = "sensitivity"
    direction = 0

    def __post_init__(self) -> None:
        check_choice("statistic", self.statistic, ("max", "mean"))
        check_number("radius", self.radius, 0, above=True)
        check_int("samples", self.samples, 1)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the change of each map (m, h, w) of an image, (m,)."""
        key = ("noisy maps", self.radius, self.samples, digest_array(maps))
        noisy = context.once(key, lambda: self._noisy(context))
        axes = (-2, -1)
        change = np.sqrt(((noisy.astype(np.float64) - maps) ** 2).sum(axis=axes))
        size = np.sqrt((maps.astype(np.float64) ** 2).sum(axis=axes))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(size > 0, change / size, np.nan)
        return ratios.max(axis=0) if self.statistic == "max" else ratios.mean(axis=0)

    def _noisy(self, context: Context) -> Array:
        image, rng = context.image, context.generator("noise")
        reach = self.radius * float(np.ptp(image))
        noise = rng.uniform(-reach, reach, (self.samples, *image.shape))
        return context.explain(image + noise)
