"""Command line, with one module for each command."""

from .commands import main

__all__ = ["main"]
