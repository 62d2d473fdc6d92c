"""Evaluation of maps: metrics beside controls, with confidence intervals."""

from .controls import CONTROLS, ExplainedBy
from .localization import METRICS, Metric
from .result import Difference, Evaluation
from .run import evaluate

__all__ = [
    "CONTROLS",
    "Difference",
    "Evaluation",
    "ExplainedBy",
    "METRICS",
    "Metric",
    "evaluate",
]
