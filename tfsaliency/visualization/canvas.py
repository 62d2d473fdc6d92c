"""Figures, which the methods `plot` of results show in scripts with pyplot and in notebooks."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from matplotlib import get_backend
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..display.notebooks import find_shell

_OWN = (f"{__package__.split('.')[0]}.", "matplotlib.", "keras.", "tensorflow.")  # not callers
_to_show: ContextVar[bool] = ContextVar("to_show", default=False)


class InlineFigure(Figure):
    """A Figure that notebooks display, also if pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()

    def _ipython_display_(self) -> None:
        manager = _find_manager(self)
        if manager is not None and not get_backend().endswith("inline"):
            return  # its window or widget is there
        sys.modules["IPython"].display.display(
            {"image/png": self._repr_png_(), "text/plain": repr(self)}, raw=True
        )
        if manager is not None:  # or the end of the cell would show it again
            Gcf.destroy(manager)

    def with_plain_text(self) -> InlineFigure:
        """Return the figure, with dollar signs in names as they are, instead of as mathematics."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        return self


def make_figure(width: float, height: float, layout: str = "constrained") -> InlineFigure:
    """Return an empty figure of a size in inches; pyplot knows it only within `showing`."""
    options: dict[str, Any] = {"figsize": (width, height), "layout": layout}
    pyplot = _pyplot_in_use() if _to_show.get() else None
    if pyplot is not None:
        made: InlineFigure = pyplot.figure(FigureClass=InlineFigure, **options)
        return made
    figure = InlineFigure(**options)
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def showing() -> Iterator[None]:
    """Make figures that pyplot shows, if it is in use, and notebooks, wherever in a cell."""
    token = _to_show.set(True)
    try:
        yield
    finally:
        _to_show.reset(token)


def _pyplot_in_use() -> Any:
    """Return pyplot in a notebook, or if a caller uses it; else None.

    Keras imports pyplot too, so that it is imported means nothing.
    """
    if find_shell() is not None:
        return import_module("matplotlib.pyplot")
    pyplot = sys.modules.get("matplotlib.pyplot")
    frame: Any = sys._getframe()
    while pyplot is not None and frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_OWN) and _uses(frame, pyplot):
            return pyplot
        frame = frame.f_back
    return pyplot if Gcf.figs else None


def _uses(frame: Any, pyplot: Any) -> bool:
    """Return whether the module or the function of a frame has imported pyplot."""
    values = [*frame.f_globals.values(), *frame.f_locals.values()]
    through_package = "pyplot" in frame.f_code.co_names  # matplotlib.pyplot.show()
    package = sys.modules["matplotlib"] if through_package else pyplot
    return any(value is pyplot or value is package for value in values)


def _find_manager(figure: Figure) -> Any:
    """Return pyplot's manager of a figure that it knows and has not closed; else None."""
    manager = Gcf.figs.get(getattr(figure, "number", -1))
    return manager if manager is not None and manager.canvas.figure is figure else None
