"""The manifest of a run: what all its parts have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import ResultError
from ..records import Record
from ..records.comparison import Difference, compare_records, compare_values
from ..storage import from_plain, replacing, to_plain
from .parts import PartEntry, read_log

FILE = "manifest.json"
FORMAT = 1
_DECODING = {
    "sqrt_uint8": "peak * (numpy.frombuffer(codes, 'uint8').reshape(shape) / 255.0) ** 2",
    "signed_sqrt_int8": "(lambda c: peak * c * abs(c))"
    "(numpy.frombuffer(codes, 'int8').reshape(shape) / 127.0)",
    "float16": "peak * numpy.frombuffer(codes, 'float16').reshape(shape).astype('float32')",
}


@dataclass(frozen=True)
class SourceRecord:
    """The source of a run.

    Parameters
    ----------
    kind, where
        Its kind, such as "folder", and its path; "" if it is an object of Python.
    images
        The number of images; None if unknown.
    digest
        sha256 of the ids and labels in their order; "" if it cannot be told without reading all.
    """

    kind: str
    where: str
    images: int | None
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The common facts of all parts of a run.

    Parameters
    ----------
    source
        The source of the images.
    record
        The model, methods, options, versions and device; see Record.
    part_size
        The number of images of a part.
    codes
        The code of each method's maps.
    class_names
        The names of the classes; empty if unknown.
    created
        The time of the start, ISO 8601 in UTC.
    """

    source: SourceRecord
    record: Record
    part_size: int
    codes: Mapping[str, str]
    class_names: tuple[str, ...]
    created: str

    def save(self, folder: Path) -> None:
        """Write the manifest to a folder."""
        decoding = {code: _DECODING[code] for code in dict.fromkeys(self.codes.values())}
        plain = {"tfsaliency": FILE, "format": FORMAT, **to_plain(self), "decoding": decoding}
        with replacing(folder / FILE) as file:
            json.dump(plain, file, indent=1)
            file.write("\n")

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Manifest:
        """Read the manifest of a folder.

        Raises
        ------
        ResultError
            If it is damaged, or of another program.
        FileNotFoundError
            If there is none.
        """
        path = Path(folder) / FILE
        text = path.read_bytes()
        try:
            plain = json.loads(text)
            if plain.pop("tfsaliency") != FILE or plain.pop("format") != FORMAT:
                raise ResultError("another kind or format")
            plain.pop("decoding", None)
            manifest: Manifest = from_plain(cls, plain)
        except (ResultError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ResultError(
                f"Expected a manifest of explain_dataset. Received: {path} ({error!s:.200})."
            ) from error
        return manifest

    def read_log(self, folder: Path) -> dict[int, PartEntry]:
        """Return the entry of each finished part in a folder; see parts.read_log."""
        return read_log(folder, self.source.images, self.part_size)

    def differences(self, other: Manifest) -> list[Difference]:
        """Return what differs from another run, by name; not the device and the time."""
        found = compare_records(self.record, other.record)
        for name in ("part_size", "codes", "class_names"):
            found += compare_values(name, getattr(self, name), getattr(other, name))
        for name in ("kind", "images", "digest"):  # the same photos may have another path
            pair = (getattr(each.source, name) for each in (self, other))
            found += compare_values(f"source.{name}", *pair)
        return found
