"""Photos of the command line: their names, their pixels, and the pictures made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..arrays import Array
from ..diagnostics import Problem
from ..errors import OptionError, TfSaliencyError
from ..image_io import Fit, load_images
from ..prepared import Prepared

_NAMED = 3  # photos in a warning


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that could be read: its path, the name of its picture, and (1, h, w, c) pixels."""

    path: str
    name: str
    pixels: Array


def read_photos(
    photos: list[tuple[str, str]], prepared: Prepared, fit: Fit, problems: list[TfSaliencyError]
) -> list[Photo]:
    """Read the photos that can be read; collect the problems of the others."""
    read = []
    for path, name in photos:
        try:
            read.append(Photo(path, name, load_images(path, prepared, fit=fit)))
        except TfSaliencyError as error:
            problems.append(error)
    return read


def picture_names(photos: Sequence[str]) -> dict[str, str]:
    """Return a name for each photo's picture: its own, numbered where two are called the same.

    >>> picture_names(["a/dog.jpg", "b/dog.jpg", "cat.png"])
    {'a/dog.jpg': 'dog', 'b/dog.jpg': 'dog-2', 'cat.png': 'cat'}
    """
    names: dict[str, str] = {}
    for photo in photos:
        stem, number = Path(photo).stem, 1
        name = stem
        while name in names.values():
            number += 1
            name = f"{stem}-{number}"
        names.setdefault(photo, name)
    return names


def check_out(out: Path, photos: list[tuple[str, str]]) -> None:
    """Raise OptionError unless there can be a folder to write to, and no photo is replaced."""
    if out.exists() and not out.is_dir():
        raise OptionError(f"Expected a folder to write to as --out. Received: the file {out}.")
    given = {Path(photo).resolve() for photo, _ in photos}
    for _, name in photos:
        if (out / f"{name}.png").resolve() in given:
            raise OptionError(
                f"The picture {out / name}.png would replace the photo of that name. "
                "Expected another folder as --out."
            )


def name_images(problem: Problem, photos: Sequence[str]) -> str:
    """Return the photos that a problem concerns, the first three by name."""
    named = ", ".join(photos[i] for i in problem.images[:_NAMED])
    return f"{named}, ... ({len(problem.images)})" if len(problem.images) > _NAMED else named
