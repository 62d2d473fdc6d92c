"""Saliency maps of Keras image networks that are what their names say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfsaliency needs Keras on the TensorFlow backend, but Keras runs on "
        f"{_keras.backend.backend()!r}: set the environment variable KERAS_BACKEND=tensorflow "
        "before keras is first imported."
    )

from . import models, worlds
from .census import Coverage
from .compositions import (
    CAM,
    BlurIG,
    ExpectedGradients,
    GuidedIG,
    InputXGradient,
    IntegratedGradients,
    Product,
    SmoothGrad,
)
from .controls import ExplainedBy
from .data_randomization import Twins, data_randomization_check, train_twins
from .draws import DRAWS, Draw
from .errors import (
    ImageError,
    MeaninglessMapError,
    ModelError,
    NoReluError,
    OpaqueModelError,
    OptionError,
    TfSaliencyError,
    UncoveredReluError,
    WeightsError,
)
from .injection import AttributionReLU
from .maps import SaliencyMaps, attributions, gradient_map
from .methods import METHODS, Method
from .photos import load_images
from .prepared import Prepared, prepare
from .problems import Problem, SaliencyWarning
from .randomization import randomize_layer, randomize_model_parameters
from .results import SanityResult, StepRecord
from .rules import RULES, Site, rect_grad_at
from .sanity import emprt_check, random_logit_check, sanity_check, smprt_check
from .scores import SCORES
from .similarity import SIMILARITIES, Similarity
from .streams import gradient_map_batches
from .verdicts import Verdict, judge
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .reports import (
        RED,
        overlay,
        plot_evaluation,
        plot_similarities,
        tile_cascade,
        tile_input_and_maps,
        tile_world,
    )

__all__ = [
    "AttributionReLU",
    "BlurIG",
    "CAM",
    "Coverage",
    "DRAWS",
    "Draw",
    "ExpectedGradients",
    "ExplainedBy",
    "GuidedIG",
    "ImageError",
    "InputXGradient",
    "IntegratedGradients",
    "METHODS",
    "MeaninglessMapError",
    "Method",
    "ModelError",
    "NoReluError",
    "OpaqueModelError",
    "OptionError",
    "Prepared",
    "Problem",
    "Product",
    "RED",
    "RULES",
    "SCORES",
    "SIMILARITIES",
    "SaliencyMaps",
    "SaliencyWarning",
    "SanityResult",
    "Similarity",
    "Site",
    "SmoothGrad",
    "StepRecord",
    "TfSaliencyError",
    "Twins",
    "UncoveredReluError",
    "Verdict",
    "WeightsError",
    "attributions",
    "data_randomization_check",
    "emprt_check",
    "gradient_map",
    "gradient_map_batches",
    "judge",
    "load_images",
    "models",
    "overlay",
    "plot_evaluation",
    "plot_similarities",
    "prepare",
    "random_logit_check",
    "randomize_layer",
    "randomize_model_parameters",
    "rect_grad_at",
    "sanity_check",
    "smprt_check",
    "tile_cascade",
    "tile_input_and_maps",
    "tile_world",
    "train_twins",
    "worlds",
]

_DRAWING = (
    "RED",
    "overlay",
    "plot_evaluation",
    "plot_similarities",
    "tile_cascade",
    "tile_input_and_maps",
    "tile_world",
)


def __getattr__(name: str) -> Any:
    # Matplotlib takes longer to import than all of this package: only who draws waits for it.
    if name in _DRAWING:
        from . import reports  # noqa: PLC0415

        return getattr(reports, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
