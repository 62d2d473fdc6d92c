"""Detection of a notebook, and outputs of its cells that change."""

from __future__ import annotations

import sys
from typing import Any


def find_shell() -> Any:
    """Return the shell of a running notebook, None elsewhere; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


class ChangingOutput:
    """An output of a notebook's cell that is replaced by its next value."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, html: str) -> None:
        """Show a value, as text and as HTML."""
        bundle = {"text/plain": text, "text/html": html}
        if self._handle is None:
            display = sys.modules["IPython"].display.display  # imported, as this is a notebook
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
