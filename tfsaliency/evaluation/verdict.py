"""Verdicts: whether a method is better than its controls, by one metric.

The method is compared with each control on the same images. "more faithful" needs a lower end of
the 95 % interval above zero for all of them. "no better" needs one control to which the method's
lead is negligible: its upper end is below a quarter of the standard deviation over images. All
else is "cannot tell".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from ..statistics import bootstrap, interval, nanmean
from ..tables import short

CHANCE, OTHER_PHOTO = "chance", "the same map of another photo"
BETTER, NO_BETTER, UNKNOWN = "more faithful than its controls", "no better", "cannot tell"
NEGLIGIBLE = 0.25  # of the standard deviation of the differences over images
FEWEST = 8  # images; with fewer, intervals contain the mean too rarely


@dataclass(frozen=True)
class MetricVerdict:
    """A verdict on a method by one metric, with the control that decides it.

    Parameters
    ----------
    verdict
        "more faithful than its controls", "no better" or "cannot tell".
    control
        The control with the smallest lead of the method, in standard deviations; "" if none is
        defined.
    difference
        The mean lead of the method over this control, on the same images; positive is better.
    low, high
        Its 95 % interval over images.
    reason
        The reason of "cannot tell"; else empty.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> rng = np.random.default_rng(0)
    >>> print(tfs.judge_metric(rng.normal(1, 1, 64), {"random_map": rng.normal(0, 1, 64)}))
    more faithful than its controls: 1.01 [.67, 1.38] above random_map
    """

    verdict: str
    control: str
    difference: float
    low: float
    high: float
    reason: str = ""

    def __str__(self) -> str:
        if not self.control:
            return f"{self.verdict} ({self.reason})"
        numbers = f"{short(self.difference)} [{short(self.low)}, {short(self.high)}]"
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.verdict}: {numbers} above {self.control}{reason}"


def judge_metric(
    values: Array, controls: Mapping[str, Array], higher_is_better: bool = True
) -> MetricVerdict:
    """Judge from the values of a metric of images (n, h, w, c) whether a method is better.

    Parameters
    ----------
    values
        The values of the method, (n,).
    controls
        Those of each control on the same images, arrays (n,) by name.
    higher_is_better
        Whether a higher value is better.

    Returns
    -------
    MetricVerdict

    Raises
    ------
    OptionError
        Never; NaN is left out.

    References
    ----------
    docs/faithfulness.md has the error rates.

    Examples
    --------
    >>> import numpy as np, tfsaliency as tfs
    >>> tfs.judge_metric(np.ones(8), {"random_map": np.zeros(8)}).verdict
    'more faithful than its controls'
    """
    sign, found, few = 1 if higher_is_better else -1, [], []
    for name, others in controls.items():
        leads = sign * (np.asarray(values, np.float64) - others)
        leads = leads[np.isfinite(leads)]
        if len(leads) < FEWEST:
            few.append(f"{name} has values for {len(leads)} images")
            continue
        low, high = interval(bootstrap(leads[np.newaxis])[0])
        found.append((name, nanmean(leads), low, high, float(leads.std(ddof=1))))
    if not found:
        missing = f"fewer than {FEWEST} images have values"
        return MetricVerdict(UNKNOWN, "", np.nan, np.nan, np.nan, missing)
    name, mean, low, high, _ = min(found, key=_size)
    if all(low > 0 for _, _, low, _, _ in found):
        if few:
            return MetricVerdict(UNKNOWN, name, mean, low, high, "; ".join(few))
        return MetricVerdict(BETTER, name, mean, low, high)
    if any(high <= NEGLIGIBLE * spread for _, _, _, high, spread in found):
        return MetricVerdict(NO_BETTER, name, mean, low, high)
    return MetricVerdict(UNKNOWN, name, mean, low, high, "more images narrow the interval")


def _size(lead: tuple[str, float, float, float, float]) -> float:
    """Return a lead in standard deviations; of leads without any, their sign."""
    _, mean, _, _, spread = lead
    if spread > 0 or mean == 0:
        return mean / (spread or 1.0)
    return float(np.copysign(np.inf, mean))
