"""Output of the command line: lines, and files in the folder of a run."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..storage import replacing
from ..version import __version__

PNG_DPI = 150
_PNG_LEVEL = 3  # of compression: pictures are 4 % larger than by the default, in half the time
RECORD = "run.json"  # the options of the runs that wrote to a folder
_BY = "tfsaliency"  # the key of the version in it
_NAMED = 5  # files in an error
# Options that do not change results.
_OF_PLACE = ("out", "overwrite", "command")
_FILES = ("photos", "model", "old", "new", "weights", "class_names", "masks")


def escape_unprintable() -> None:
    """Let streams escape what their encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_broken_pipe() -> None:
    """Let Python close standard output in peace after its reader has left."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(text: str) -> None:
    """Print text on standard output; a reader that has left is no error of the run."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        forget_broken_pipe()


def complain(problem: object) -> int:
    """Print a problem as one line on standard error, and return the exit code 2."""
    say(problem)
    return 2


def say(message: object) -> None:
    """Print a message as one line on standard error."""
    print("tfsaliency:", " ".join(str(message).split()), file=sys.stderr)


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on standard error what takes a while; on a terminal, until it is done."""
    on_terminal = sys.stderr.isatty()
    line = f"tfsaliency: {what}"
    print(line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if on_terminal:
            print(f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def claimed_folder(arguments: argparse.Namespace, names: Sequence[str]) -> Iterator[Path]:
    """Make the output folder, and record the options of the run in it.

    If an error ends the run before it has written a file, the folder is left as it was.

    Parameters
    ----------
    arguments
        The options, with `out`, `overwrite` and `command`.
    names
        The files that the run will write. Those of an earlier run are replaced only if it had the
        same options, or with --overwrite.

    Yields
    ------
    The folder, an absolute path.

    Raises
    ------
    OptionError
        If the folder is a file, or a file in it may not be replaced.
    OSError
        If it cannot be written to.
    """
    out = Path(arguments.out).absolute()
    if out.exists() and not out.is_dir():
        raise OptionError(f"Expected a folder as --out. Received: the file {arguments.out}.")
    given = sorted(vars(arguments).items())
    options = {key: _plain(key, value) for key, value in given if key not in _OF_PLACE}
    before = (out / RECORD).read_bytes() if (out / RECORD).is_file() else None
    record = _read_record(out)
    if record is None and not arguments.overwrite:
        raise OptionError(
            f"{arguments.out} has a file {RECORD} that no run wrote. Choose another folder as "
            "--out, or pass --overwrite."
        )
    record = record or {}
    present = [name for name in names if os.path.lexists(out / name)]
    links = [name for name in present if (out / name).is_symlink()]
    if links:
        raise OptionError(
            f"Expected files or nothing at the names to write in {arguments.out}. Received: "
            f"symbolic links {_listed(links)}. Remove them, or choose another folder as --out."
        )
    if present and record.get(arguments.command) != options and not arguments.overwrite:
        raise OptionError(
            f"{arguments.out} has files of a run with other options or photos, which this one "
            f"would replace: {_listed(present)}. Choose another folder as --out, or pass "
            "--overwrite."
        )
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / RECORD, _as_text({_BY: __version__, **record, arguments.command: options}))
    try:
        yield out
    except BaseException:
        if not any(os.path.lexists(out / name) for name in names):
            with contextlib.suppress(OSError):
                _restore(out, before, is_new)
        raise


def _restore(out: Path, before: bytes | None, is_new: bool) -> None:
    if before is None:
        (out / RECORD).unlink()
    else:
        with replacing(out / RECORD, "wb") as file:
            file.write(before)
    if is_new:
        out.rmdir()


def _as_text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def write_figure(figure: Any, path: Path, **options: Any) -> None:
    """Write a figure as a PNG file, completely or not at all."""
    buffer = io.BytesIO()
    quick = {"compress_level": _PNG_LEVEL}
    figure.savefig(buffer, format="png", dpi=PNG_DPI, pil_kwargs=quick, **options)
    refuse_link(path)
    with replacing(path, "wb") as file:
        file.write(buffer.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    refuse_link(path)
    with replacing(path) as file:
        file.write(text)


def refuse_link(path: Path) -> None:
    """Raise OptionError for a symbolic link, through which nothing is written."""
    if path.is_symlink():
        raise OptionError(f"Expected a file or nothing at {path}. Received: a symbolic link.")


def _read_record(out: Path) -> dict[str, Any] | None:
    """Return the record of earlier runs, empty without one; None for another file of that name."""
    if not os.path.lexists(out / RECORD):
        return {}
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and _BY in record else None


def _plain(option: str, value: Any) -> Any:
    """Return the value of an option for JSON, with paths of files from the root."""
    if isinstance(value, (list, tuple)):
        return [_plain(option, item) for item in value]
    if option in _FILES and value is not None and os.path.exists(value):
        return os.path.abspath(value)
    return str(value) if isinstance(value, Path) else value


def _listed(names: list[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
