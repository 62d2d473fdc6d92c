"""Tasks with a known answer: pictures, networks, and the scores of maps against what matters."""

from .closed_form import CLOSED_FORM, KnownModel, closed_form_model
from .evaluation import CHANCE, Difference, Evaluation, evaluate
from .localisation import LOCALISATION, Localisation
from .network import shapes_model, shapes_twins
from .pictures import CLASSES, VARIANTS, World, shapes

__all__ = [
    "CHANCE",
    "CLASSES",
    "CLOSED_FORM",
    "Difference",
    "Evaluation",
    "KnownModel",
    "LOCALISATION",
    "Localisation",
    "VARIANTS",
    "World",
    "closed_form_model",
    "evaluate",
    "shapes",
    "shapes_model",
    "shapes_twins",
]
