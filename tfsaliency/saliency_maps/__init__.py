"""The result of saliency_map, and its files."""

from .record import SaliencyMaps

__all__ = ["SaliencyMaps"]
