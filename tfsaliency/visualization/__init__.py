"""Figures and pages; nothing below this package imports Matplotlib."""

from .answers import plot_evaluation, tile_world
from .curves import plot_similarities, tile_cascade
from .tiles import RED, overlay, tile_input_and_maps

__all__ = [
    "RED",
    "overlay",
    "plot_evaluation",
    "plot_similarities",
    "tile_cascade",
    "tile_input_and_maps",
    "tile_world",
]
