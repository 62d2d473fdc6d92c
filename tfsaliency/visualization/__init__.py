"""Figures, pages and reports. Matplotlib is imported only here, and only when one is made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callback import SaliencyCallback
    from .evaluation_figures import plot_evaluation, tile_ground_truth
    from .report import write_report
    from .sanity_figures import plot_similarities, tile_cascade
    from .tiles import RED, overlay, tile_input_and_maps

__all__ = [
    "RED",
    "SaliencyCallback",
    "overlay",
    "plot_evaluation",
    "plot_similarities",
    "tile_cascade",
    "tile_ground_truth",
    "tile_input_and_maps",
    "write_report",
]

# Matplotlib takes longer to import than all of this package, so it is imported when needed.
_MODULES = ("tiles", "sanity_figures", "evaluation_figures", "report", "callback")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"{__name__}.{module}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
