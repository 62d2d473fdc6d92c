"""Networks with weights, in the manner of keras.applications."""

from . import efficientnet_lite, imagenet, squeezenet
from .efficientnet_lite import EfficientNetLite0
from .squeezenet import SqueezeNet

__all__ = ["EfficientNetLite0", "SqueezeNet", "efficientnet_lite", "imagenet", "squeezenet"]
