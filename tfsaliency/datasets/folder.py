"""The folder of a run: its lock, its manifest, and what an earlier process left in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import OptionError
from ..storage import TEMPORARY
from .manifest import FILE, Manifest
from .parts import list_parts

_LOCK = ".lock"
_NAMED = 8  # differences


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other runs out of it; the system unlocks it if the process dies.

    Raises
    ------
    OptionError
        If another run is at work in it.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"Expected a folder as out. Received: the file {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "w", encoding="utf-8") as file:
        if not _try_lock(file):
            raise OptionError(
                f"Expected a folder in which no other run is at work. Received: {folder}. Wait for "
                "it, or choose another folder."
            )
        for left in folder.glob(f"{TEMPORARY}*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        yield


def _try_lock(file: IO[Any]) -> bool:
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def claim(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a run, or return that of the run which is continued.

    Raises
    ------
    OptionError
        If the folder has a run with other options, or parts without a manifest.
    ResultError
        If the manifest is damaged.
    """
    if not os.path.lexists(folder / FILE):
        if list_parts(folder):
            raise OptionError(
                f"Expected a folder of a run, or none. Received: {folder}, which has parts without "
                f"{FILE}. Choose another folder."
            )
        manifest.save(folder)
        return manifest
    before = Manifest.load(folder)
    differences = before.differences(manifest)
    if differences and not list_parts(folder):  # a start that came to nothing
        manifest.save(folder)
        return manifest
    if differences:
        listed = "; ".join(map(str, differences[:_NAMED]))
        more = f"; and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        raise OptionError(
            f"{folder} has a run that differs: {listed}{more}. Continue with the same options, or "
            "choose another folder."
        )
    return before
