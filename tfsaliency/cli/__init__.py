"""The command line, a module for each command."""

from .commands import main

__all__ = ["main"]
