"""Attributions made of gradients at several images: what a Method does beside its rule.

A composition is built of others by `of`: SmoothGrad(of=IntegratedGradients()) averages the
integrated gradients of noisy images. Everything runs in the graph, some images at a time: memory
does not grow with samples or nodes.
"""

from __future__ import annotations

from .asking import Composition, Explain, Explained, Features
from .blurs import blurred
from .cams import CAM
from .noise import SmoothGrad
from .paths import BlurIG, ExpectedGradients, GuidedIG, IntegratedGradients
from .products import InputXGradient, Product

__all__ = [
    "BlurIG",
    "CAM",
    "Composition",
    "ExpectedGradients",
    "Explain",
    "Explained",
    "Features",
    "GuidedIG",
    "InputXGradient",
    "IntegratedGradients",
    "Product",
    "SmoothGrad",
    "blurred",
]
