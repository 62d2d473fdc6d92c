"""Results whose fields are arrays and plain values: how they are saved and loaded."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from typing import Any, Self

from .. import storage
from ..arrays import Array
from ..errors import ResultError


class SavedResult:
    """The base of results with a file: frozen dataclasses.

    What is here serves those whose fields are arrays of floats and plain values; others have
    `_to_file` and `_from_file` of their own.
    """

    def save(self, path: str | PathLike[str]) -> None:
        """Save to a NumPy .npz file.

        Parameters
        ----------
        path
            Path of the file; no suffix is added. An existing file is replaced once the new one is
            complete.
        """
        storage.save(path, type(self).__name__, *self._to_file())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Load a result that save wrote.

        Raises
        ------
        ResultError
            If the file is damaged or of another kind.
        FileNotFoundError
            If the file does not exist.
        """
        return storage.load(path, cls.__name__, cls._from_file)

    def _to_file(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        """Return the arrays and the header of a file."""
        arrays, plain = _fields(type(self))
        header = {name: storage.to_plain(getattr(self, name)) for name in plain}
        return {name: getattr(self, name) for name in arrays}, header

    @classmethod
    def _from_file(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Self:
        """Build a result from the arrays and the header of a file, or raise ResultError."""
        names, plain = _fields(cls)
        values = {name: storage.from_plain(kind, header[name]) for name, kind in plain.items()}
        values |= {name: storage.read_array(arrays, name, "f") for name in names}
        result = cls(**values)
        for name, shape in result._shapes().items():
            if getattr(result, name).shape != shape or 0 in shape:
                raise ResultError(f"{name!r} of shape {getattr(result, name).shape}, not {shape}")
        return result

    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of arrays that follow from the other fields."""
        return {}


def _fields(kind: type) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the fields that are arrays, and the types of the others by name."""
    kinds = typing.get_type_hints(kind)
    names = [f.name for f in fields(typing.cast(Any, kind))]
    plain = {name: kinds[name] for name in names if kinds[name] != Array}
    return [name for name in names if name not in plain], plain
