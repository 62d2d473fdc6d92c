"""The command line `tfsaliency`, which runs its commands."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from ..errors import TfSaliencyError
from .output import announced, complain, escape_unprintable, forget_broken_pipe, say
from .parser import parse

INTERRUPTED = 130  # the exit code of Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments; by default, those of the process.

    Returns
    -------
    0; 2 if an option or a photo is invalid, or a file cannot be written, with one line on standard
    error; 130 after Ctrl-C. Valid photos are processed in any case, and what is done is kept.
    """
    escape_unprintable()
    try:
        arguments = parse(argv)
        command = _import_command(arguments.command)
        return int(command.run(arguments))
    except KeyboardInterrupt as error:
        say(f"interrupted; {error}" if str(error) else "interrupted; nothing was written")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has left
        forget_broken_pipe()
        return 0
    except (TfSaliencyError, ImportError) as error:
        return complain(error)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        out = getattr(arguments, "out", None)
        what = "Cannot read" if out is None else f"Cannot write to {out}:"
        return complain(f"{what}{where} {error.strerror or error}.")


def _import_command(name: str) -> Any:
    """Import a command, and TensorFlow with it, without TensorFlow's log."""
    if "tensorflow" in sys.modules:
        return importlib.import_module(f".{name}", __package__)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On by default only for some processors, and on others faster by a half.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Some lines come before TensorFlow reads its log level.
    with announced("loading TensorFlow"), tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        try:
            sys.stderr.flush()
            os.dup2(log.fileno(), 2)
            return importlib.import_module(f".{name}", __package__)
        except Exception:  # the log may tell why
            log.seek(0)
            os.write(saved, log.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
