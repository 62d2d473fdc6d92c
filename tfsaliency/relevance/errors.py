"""The error for an operation without a rule."""

from __future__ import annotations

import tensorflow as tf

from ..errors import UncoveredLayerError


def uncovered(op: tf.Operation) -> UncoveredLayerError:
    """Return the error for an operation without a rule."""
    return UncoveredLayerError(
        f"Expected operations that relevance has a rule for. Received: {op.type} ({op.name}). Use "
        "a method that asks nothing of the architecture, such as methods='integrated_gradients' or "
        "'occlusion'."
    )
