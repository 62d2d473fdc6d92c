"""Saliency maps for Keras image models, and evidence of whether to trust them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .public import *  # noqa: F403

_PUBLIC_MODULES = ("models", "synthetic")


# TensorFlow takes seconds to import, so that the command line would take as long to print its help.
def __getattr__(name: str) -> Any:
    inner = f"{__name__}.{name}"
    # A module that is imported by itself must not import all others while it is being imported.
    if name not in _PUBLIC_MODULES and importlib.util.find_spec(inner):
        return importlib.import_module(inner)
    return getattr(importlib.import_module(".public", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__getattr__("__all__"), "__version__"])


if "keras" in sys.modules:  # nothing to wait for; another backend is refused at once
    importlib.import_module(".public", __name__)
