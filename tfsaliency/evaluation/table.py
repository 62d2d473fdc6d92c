"""The METRICS table, and metrics as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import OptionError
from ..methods.plain import describe_value
from ..tables import MetricName, Table, by_name, first_line, is_iterable
from .additivity import CompletenessGap, Infidelity, SensitivityN
from .complexity import EffectiveComplexity, Entropy, Sparseness
from .curves import Deletion, Insertion, MaskedImage, PixelFlipping
from .localization import LOCALIZATION, Localization
from .metric import Metric, MetricFunction
from .stability import Sensitivity

MetricsArgument = (
    MetricName | Metric | MetricFunction | Sequence[MetricName | Metric | MetricFunction]
)

METRICS: Table[Metric] = Table(
    "metric",
    by_name(
        (
            *LOCALIZATION,
            Metric(
                "deletion",
                Deletion(),
                description="Area under the falling score, pixels to 0; prefers noise to the truth",
            ),
            Metric(
                "deletion_mean",
                Deletion("mean"),
                description="... to the image's mean color; hardly tells truth from noise in a CNN",
            ),
            Metric(
                "deletion_blur",
                Deletion("blur"),
                description="... to the blurred image; prefers noise to the truth in a CNN",
            ),
            Metric(
                "road",
                Deletion("linear", steps=10),
                description="... to noisy linear imputations of what is left",
            ),
            Metric(
                "insertion",
                Insertion(),
                description="Area under the rising score; the blurred image comes back",
            ),
            Metric(
                "insertion_mean", Insertion("mean"), description="... from the image's mean color"
            ),
            Metric(
                "pixel_flipping",
                PixelFlipping(),
                description="Mean fall of the score, most relevant regions first (MoRF)",
            ),
            Metric(
                "pixel_flipping_lerf",
                PixelFlipping("lerf"),
                description="... least relevant regions first (LeRF)",
            ),
            Metric(
                "pixel_flipping_gap", PixelFlipping("gap"), description="... the first minus this"
            ),
            Metric(
                "infidelity",
                Infidelity(),
                description="Error of predicted falls of the score; for gradients",
            ),
            Metric(
                "sensitivity_n",
                SensitivityN(),
                description="Correlation of sums of attributions with falls of the score",
            ),
            Metric(
                "faithfulness_correlation",
                SensitivityN(0.2, samples=100),
                description="... for subsets of one size",
            ),
            Metric(
                "average_drop",
                MaskedImage("drop"),
                description="Relative fall of the score of the image times the map; weak for a ViT",
            ),
            Metric(
                "increase",
                MaskedImage("increase"),
                description="Whether the score of the image times the map is higher; not for a ViT",
            ),
            Metric(
                "average_gain",
                MaskedImage("gain"),
                description="Relative rise of the score of the image times the map; not for a ViT",
            ),
            Metric(
                "completeness_gap",
                CompletenessGap(),
                description="Gap of the sum of attributions; not judged",
            ),
            Metric(
                "max_sensitivity",
                Sensitivity(),
                description="Largest change of the map under small noise; not judged",
            ),
            Metric(
                "average_sensitivity",
                Sensitivity("mean"),
                description="Mean change of the map under small noise; not judged",
            ),
            Metric(
                "sparseness",
                Sparseness(),
                description="Gini index of the map; not judged",
            ),
            Metric(
                "entropy",
                Entropy(),
                description="Entropy of the map; not judged",
            ),
            Metric(
                "effective_complexity",
                EffectiveComplexity(),
                description="Fraction of pixels that restores the score; not judged",
            ),
        )
    ),
    lambda metric: metric.description,
)

# The metrics of evaluate, with and without masks.
OF_MASKS = tuple(metric.name for metric in LOCALIZATION)
OF_IMAGES = ("insertion", "pixel_flipping_gap")  # those that tell truth from noise, and are fast


def resolve_metrics(metrics: MetricsArgument | None, masks: bool) -> tuple[Metric, ...]:
    """Return the metrics, by default those of data with or without masks.

    Raises
    ------
    OptionError
        If a metric is unknown, occurs twice, or needs masks that are not there.
    """
    if metrics is None:
        metrics = OF_MASKS if masks else OF_IMAGES  # type: ignore[assignment]
    several = not isinstance(metrics, str) and is_iterable(metrics)
    given: Any = list(metrics) if several else [metrics]  # type: ignore[arg-type]
    if not given:
        raise OptionError(f"Expected at least one metric of {', '.join(METRICS)}. Received: none.")
    found = tuple(_resolve(each) for each in given)
    names = [metric.name for metric in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(
            f"Expected metrics of different names. Received: {', '.join(twice)} twice. Name one: "
            f"Metric('another_name', Deletion(steps=64))."
        )
    lacking = [metric.name for metric in found if metric.needs_masks and not masks]
    if lacking:
        raise OptionError(
            f"Expected a GroundTruth with masks for {', '.join(lacking)}. Received: images alone. "
            f"Metrics without masks: {', '.join(n for n in METRICS if n not in OF_MASKS)}."
        )
    return found


def _resolve(metric: Any) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if callable(metric) and not isinstance(metric, type):
        name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
        return Metric(str(name or type(metric).__name__), metric, description=first_line(metric))
    return METRICS.named(metric)


def metric_to_plain(metric: Metric) -> dict[str, Any]:
    """Return a metric with its settings as JSON values; a function of the caller by its name.

    >>> metric_to_plain(METRICS["road"])["settings"]
    {'baseline': 'linear', 'steps': 10}
    """
    function, settings = metric.function, {}
    if is_dataclass(function) and not metric.needs_masks:
        settings = {f.name: describe_value(getattr(function, f.name)) for f in fields(function)}
    kind, direction = type(function).__name__, metric.direction
    return {"name": metric.name, "function": kind, "settings": settings, "direction": direction}


def metrics_from_plain(values: Sequence[Any]) -> list[Metric]:
    """Return the metrics that metric_to_plain recorded.

    Raises
    ------
    OptionError
        If one is a function or has an array of the caller.
    """
    return [_from_plain(value) for value in values]


def _from_plain(value: Any) -> Metric:
    name = value["name"]
    if name in METRICS and metric_to_plain(METRICS[name]) == value:
        return METRICS[name]
    kinds: dict[str, Any] = {
        type(each.function).__name__: type(each.function) for each in METRICS.values()
    }
    settings = value["settings"]
    if (
        value["function"] not in kinds
        or value["function"] == Localization.__name__
        or any(isinstance(v, dict) for v in settings.values())
    ):
        raise OptionError(
            f"Expected the metric {name!r} as a part of this version of tfsaliency. Received: "
            f"{value['function']} with {settings}. Pass the metrics of the record as metrics=."
        )
    made = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Metric(name, kinds[value["function"]](**made), value.get("direction"))
