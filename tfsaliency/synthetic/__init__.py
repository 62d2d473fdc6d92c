"""Synthetic tasks with a known answer: pictures, and trained or constructed networks."""

from .closed_form import CLOSED_FORM, KnownModel, closed_form_model
from .networks import permuted_label_models, shapes_model
from .shapes import CLASSES, VARIANTS, GroundTruth, make_shapes

__all__ = [
    "CLASSES",
    "CLOSED_FORM",
    "GroundTruth",
    "KnownModel",
    "VARIANTS",
    "closed_form_model",
    "make_shapes",
    "permuted_label_models",
    "shapes_model",
]
