"""Photos of the command line: their pixels, and the names of their pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from ..arrays import Array
from ..diagnostics import Problem
from ..errors import OptionError, TfSaliencyError
from ..image_io import list_photos, load_images
from ..prepared import Prepared
from ..tables import Fit, is_pattern

_NAMED = 3  # the largest number of photos to name in a warning
_LONGEST = 200  # bytes in the name of a picture; file systems allow 255


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo: its path, the name of its picture, and pixels (1, h, w, c)."""

    path: str
    name: str
    pixels: Array


def find_photos(words: Sequence[str]) -> list[str]:
    """Return the photos that words name: files, folders with all images below, and patterns.

    Raises
    ------
    OptionError
        If a folder has no images, or nothing matches a pattern.
    """
    photos: list[str] = []
    for word in words:
        if os.path.isdir(word):
            found, what = list_photos(word), "images in the folder"
        elif is_pattern(word) and not os.path.lexists(word):
            found = sorted(path for path in glob(word, recursive=True) if os.path.isfile(path))
            what = "files that match the pattern"
        else:
            found, what = [word], ""
        if not found:
            raise OptionError(f"Expected {what} {word}. Received: none.")
        photos += found
    return photos


def read_photos(
    photos: list[tuple[str, str]],
    prepared: Prepared,
    fit: Fit,
    size: Any,
    problems: list[TfSaliencyError],
) -> list[Photo]:
    """Read all readable photos, and append the errors of the others to problems."""
    read = []
    for path, name in photos:
        try:
            read.append(Photo(path, name, load_images(path, prepared, fit=fit, size=size)))
        except TfSaliencyError as error:
            problems.append(error)
    return read


def picture_names(photos: Sequence[str]) -> dict[str, str]:
    """Name each photo's picture like the photo, with a number if two names are equal.

    Long names are cut.

    >>> picture_names(["a/dog.jpg", "b/dog.jpg", "cat.png"])
    {'a/dog.jpg': 'dog', 'b/dog.jpg': 'dog-2', 'cat.png': 'cat'}
    """
    names: dict[str, str] = {}
    taken = set()
    for photo in dict.fromkeys(photos):
        stem, number = os.fsdecode(os.fsencode(Path(photo).stem)[:_LONGEST]), 1
        name = stem
        while name.casefold() in taken:  # some file systems ignore case
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[photo] = name
    return names


def check_pictures(out: Path, photos: Sequence[str], names: Sequence[str]) -> None:
    """Raise OptionError if a picture (names, without suffix) would replace a photo."""
    given = {Path(photo).resolve() for photo in photos}
    for name in names:
        if (out / f"{name}.png").resolve() in given:
            raise OptionError(
                f"The picture {out / name}.png would replace the photo of that name. "
                "Expected another folder as --out."
            )


def name_images(problem: Problem, photos: Sequence[str]) -> str:
    """Name the photos that a problem affects, at most three."""
    named = ", ".join(photos[i] for i in problem.images[:_NAMED])
    return f"{named}, ... ({len(problem.images)})" if len(problem.images) > _NAMED else named
