"""Figures and pages; nothing below this package imports Matplotlib."""

from .tiles import RED, overlay, tile_input_and_maps

__all__ = ["RED", "overlay", "tile_input_and_maps"]
