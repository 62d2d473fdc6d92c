"""Sanity checks: dependence of maps on the network that they claim to explain."""

from .checks import random_logit_check, sanity_check
from .comparison_result import ModelComparison
from .csc import CSCProfile, csc_profile
from .data_randomization import (
    PermutedLabelModels,
    data_randomization_check,
    train_permuted_label_models,
)
from .input_invariance import InputInvariance, input_invariance_check
from .model_comparison import compare_models
from .randomize import randomize_layer, randomize_model_parameters
from .randomizers import RANDOMIZERS, Randomizer
from .result import SanityResult, StepRecord
from .verdict import Verdict, judge

__all__ = [
    "CSCProfile",
    "InputInvariance",
    "ModelComparison",
    "PermutedLabelModels",
    "RANDOMIZERS",
    "Randomizer",
    "SanityResult",
    "StepRecord",
    "Verdict",
    "compare_models",
    "csc_profile",
    "data_randomization_check",
    "input_invariance_check",
    "judge",
    "random_logit_check",
    "randomize_layer",
    "randomize_model_parameters",
    "sanity_check",
    "train_permuted_label_models",
]
