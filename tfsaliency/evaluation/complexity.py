"""Complexity: how few pixels a map names. None of these says whether they are the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import check_int, check_number
from .metric import Context
from .perturbation import check_baseline, cover, ranks


@dataclass(frozen=True, eq=False)
class Sparseness:
    """Gini index of the absolute values: 0 if all are equal, near 1 if few are large.

    Raises
    ------
    OptionError
        Never; there is no option.

    References
    ----------
    Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training",
    arXiv:1810.06583.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> tfs.Sparseness()(np.array([[[0.0, 0.0, 0.0, 1.0]]]))
    array([0.75])
    """

    name = "sparseness"
    direction = 0

    def __call__(self, maps: Array, context: Context | None = None) -> Array:
        """Return the index of each map (m, h, w), (m,); NaN for a map of zeros."""
        values = np.sort(_sizes(maps), axis=1)
        n = values.shape[1]
        weights = 2 * np.arange(1, n + 1) - n - 1
        return _quotient(values @ weights, n * values.sum(axis=1))


@dataclass(frozen=True, eq=False)
class Entropy:
    """Entropy in nats of the absolute values as fractions of their sum.

    Raises
    ------
    OptionError
        Never; there is no option.

    References
    ----------
    Bhatt et al. 2020, "Evaluating and aggregating feature-based model explanations",
    arXiv:2005.00631 (complexity).

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> bool(np.isclose(tfs.Entropy()(np.ones((1, 2, 2)))[0], np.log(4)))
    True
    """

    name = "entropy"
    direction = 0

    def __call__(self, maps: Array, context: Context | None = None) -> Array:
        """Return the entropy of each map (m, h, w), (m,); NaN for a map of zeros."""
        values = _sizes(maps)
        shares = _quotient(values.T, values.sum(axis=1)).T
        return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)


@dataclass(frozen=True, eq=False)
class EffectiveComplexity:
    """Smallest fraction of the pixels, the highest first, that restores most of f.

    The other pixels are replaced. f is the probability of the class, or the score if outputs are no
    probabilities; 1 if only the whole image is enough.

    Parameters
    ----------
    tolerance
        The fraction of f(x) that may be lacking.
    baseline
        What replaces the other pixels, as for Deletion. The paper draws them from data.
    steps
        The number of fractions to try: 0, 1 / steps, 2 / steps, ...

    Raises
    ------
    OptionError
        If an option is impossible.

    References
    ----------
    Nguyen and Martinez 2020, "On quantitative aspects of model interpretability", arXiv:2007.07584.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("masked")  # one patch is visible
    >>> data = known.ground_truth(8, seed=0)
    >>> result = tfs.evaluate(known.model, data, "gradient", metrics="effective_complexity")
    >>> bool(result.mean("gradient", "effective_complexity") < .2)
    True
    """

    tolerance: float = 0.1
    baseline: Any = 0.0
    steps: int = 32

    name = "effective_complexity"
    direction = 0

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, 0)
        check_baseline(self.baseline)
        check_int("steps", self.steps, 1)

    def __call__(self, maps: Array, context: Context) -> Array:
        """Return the fraction for each map (m, h, w) of an image, (m,)."""
        counts = np.round(np.arange(self.steps) / self.steps * maps[0].size)

        def masks() -> Iterator[Array]:
            for i in range(len(maps)):
                (places,) = ranks(maps[i : i + 1], context)
                yield from (places >= count for count in counts)

        before = context.probability
        f = context.probabilities(cover(context, masks(), self.baseline))
        enough = f.reshape(len(maps), -1) >= before - self.tolerance * abs(before)
        first = np.where(enough.any(axis=1), enough.argmax(axis=1), self.steps)
        return first / self.steps


def _sizes(maps: Array) -> Array:
    """Return the absolute values of maps as (m, pixels)."""
    return np.abs(np.asarray(maps, np.float64)).reshape(len(maps), -1)


def _quotient(a: Array, b: Array) -> Array:
    return np.where(b > 0, a / np.where(b > 0, b, 1), np.nan)
