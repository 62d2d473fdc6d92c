"""The protocol of propagations: from a score down to the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from .graph import Graph


class Relevance(NamedTuple):
    """The relevance of images.

    Parameters
    ----------
    values
        Of the shape of the images.
    details
        Numbers about each image, (n,) by name.
    """

    values: tf.Tensor
    details: Mapping[str, tf.Tensor]


class Propagation(Protocol):
    """Rules that pass a score down."""

    @property
    def needs_baseline(self) -> bool:
        """True if the model runs on a baseline, too."""
        ...

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """The layers of the last graph and their rules, from the score down."""
        ...

    def run(
        self,
        graph: Graph,
        target: tf.Tensor,
        seed: tf.Tensor,
        scores: tf.Tensor,
        twins: Mapping[Any, tf.Tensor],
    ) -> Relevance:
        """Return the relevance of the images.

        Parameters
        ----------
        graph, target
            The graph and its end, the logits.
        seed
            The derivative of the scores with respect to the target.
        scores
            The scores, (n,).
        twins
            For each tensor, the one of the baseline; empty without a baseline.
        """
        ...
