"""The way from results to their figures and pages.

Results lie below `visualization` in the import order, and are drawn there. Their methods `plot` and
`_repr_html_` call this module, which imports `visualization`, and with it Matplotlib, only then.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PACKAGE = __package__.rpartition(".")[0]


def draw(name: str, *arguments: Any, **options: Any) -> Any:
    """Call a function of tfsaliency.visualization, given as "module.function"."""
    module, function = name.split(".")
    return getattr(_import(module), function)(*arguments, **options)


def plot(name: str, *arguments: Any, **options: Any) -> Any:
    """Draw a figure that is shown in scripts that use pyplot, and in notebooks."""
    with _import("canvas").showing():
        return draw(name, *arguments, **options)


def _import(module: str) -> Any:
    return import_module(f"{_PACKAGE}.visualization.{module}")
