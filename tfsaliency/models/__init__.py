"""Networks with weights, in the manner of keras.applications."""

from . import squeezenet
from .squeezenet import SqueezeNet

__all__ = ["SqueezeNet", "squeezenet"]
