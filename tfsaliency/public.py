"""The public names, imported together with TensorFlow when one of them is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "tfsaliency needs Keras on the TensorFlow backend, but Keras runs on "
        f"{_keras.backend.backend()!r}: set the environment variable KERAS_BACKEND=tensorflow "
        "before keras is first imported."
    )

from . import datasets as _datasets
from . import evaluation as _evaluation
from . import methods as _methods
from . import models, synthetic
from . import sanity as _sanity
from . import visualization as _visualization
from .datasets import *  # noqa: F403
from .diagnostics import Problem, SaliencyWarning
from .engine.clone import AttributionReLU
from .engine.coverage import Coverage
from .engine.scores import SCORES, on_logits, similarity_to
from .errors import (
    ErrorLimitError,
    GeometryError,
    ImageError,
    MeaninglessMapError,
    ModelError,
    NoReluError,
    OpaqueModelError,
    OptionError,
    ResultError,
    TfSaliencyError,
    UncoveredLayerError,
    UncoveredReluError,
    WeightsError,
)

# The names of these packages are listed where they are defined, and nowhere else.
from .evaluation import *  # noqa: F403
from .image_io import load_images
from .map_batches import saliency_map_batches
from .maps import attributions, gradient_map, saliency_map
from .methods import *  # noqa: F403
from .prepared import Prepared, clear_traces, prepare
from .saliency_maps import SaliencyMaps
from .sanity import *  # noqa: F403
from .similarity import SIMILARITIES, Similarity
from .synthetic import GroundTruth

if TYPE_CHECKING:
    from .visualization import *  # noqa: F403

__all__ = [
    "AttributionReLU",
    "Coverage",
    "ErrorLimitError",
    "GeometryError",
    "GroundTruth",
    "ImageError",
    "MeaninglessMapError",
    "ModelError",
    "NoReluError",
    "OpaqueModelError",
    "OptionError",
    "Prepared",
    "Problem",
    "ResultError",
    "SCORES",
    "SIMILARITIES",
    "SaliencyMaps",
    "SaliencyWarning",
    "Similarity",
    "TfSaliencyError",
    "UncoveredLayerError",
    "UncoveredReluError",
    "WeightsError",
    "attributions",
    "clear_traces",
    "gradient_map",
    "load_images",
    "models",
    "on_logits",
    "prepare",
    "saliency_map",
    "saliency_map_batches",
    "similarity_to",
    "synthetic",
]
__all__ += _datasets.__all__
__all__ += _evaluation.__all__
__all__ += _methods.__all__
__all__ += _sanity.__all__
__all__ += _visualization.__all__
__all__.sort()


def __getattr__(name: str) -> Any:
    lazy = globals().get("_visualization")  # this module may still be being imported
    if lazy is not None and name in lazy.__all__:
        return getattr(lazy, name)
    raise AttributeError(f"module 'tfsaliency' has no attribute {name!r}")
