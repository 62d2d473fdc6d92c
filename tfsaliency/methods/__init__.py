"""Attribution methods: the METHODS table, the rules of one ReLU, and compositions of gradients.

Compositions nest by `inner`: SmoothGrad(inner=IntegratedGradients()) averages the integrated
gradients of noisy images. Everything runs in the graph, in chunks of images, so memory does not
grow with the number of samples or steps.
"""

from .table import *  # noqa: F403 - a new method is exported where its row is
from .table import __all__ as __all__
