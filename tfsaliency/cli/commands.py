"""The command line `tfsaliency`, with the commands demo, map and check."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from ..errors import TfSaliencyError, unknown_option
from ..version import __version__
from . import check, demo, map
from .options import complain


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments; by default, those of the process.

    Returns
    -------
    0, or 2 if an option or a photo is invalid, with one line on standard error. Valid photos are
    processed in any case.
    """
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (TfSaliencyError, ImportError) as error:
        return complain(error)
    except OSError as error:
        return complain(f"Cannot write to {arguments.out}: {error.strerror or error}.")


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors, which suggest the nearest name for an unknown one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = str(action.metavar or action.dest).lower()
            raise argparse.ArgumentError(action, str(unknown_option(kind, value, action.choices)))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="tfsaliency", description="Saliency maps of Keras image networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, map, check):
        command.add_command(commands)
    return parser
