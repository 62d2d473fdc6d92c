"""Evaluation of maps: metrics beside controls, with confidence intervals and verdicts."""

from .additivity import CompletenessGap, Infidelity, SensitivityN
from .complexity import EffectiveComplexity, Entropy, Sparseness
from .controls import CONTROLS, ExplainedBy
from .curves import Deletion, Insertion, MaskedImage, PixelFlipping
from .metric import Context, Metric
from .result import Difference, Evaluation
from .run import evaluate
from .stability import Sensitivity
from .table import METRICS
from .verdict import MetricVerdict, judge_metric

__all__ = [
    "CONTROLS",
    "CompletenessGap",
    "Context",
    "Deletion",
    "Difference",
    "EffectiveComplexity",
    "Entropy",
    "Evaluation",
    "ExplainedBy",
    "Infidelity",
    "Insertion",
    "METRICS",
    "MaskedImage",
    "Metric",
    "MetricVerdict",
    "PixelFlipping",
    "Sensitivity",
    "SensitivityN",
    "Sparseness",
    "evaluate",
    "judge_metric",
]
