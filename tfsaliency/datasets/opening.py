"""Opening of sources: folders, patterns, lists of files, Parquet, and objects of Python."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import iglob
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from PIL import Image

from ..errors import OptionError, one_line
from ..image_io import PHOTO_SUFFIXES, list_photos
from ..tables import is_pattern
from .parquet_source import ParquetSource
from .sources import ListedSource, SequenceSource, Source, StreamSource

_LISTS, _TABLES, _PARQUET = (".txt", ".lst"), (".csv", ".tsv"), (".parquet",)
_PATHS = ("path", "file", "filename", "file_name", "image")
_LABELS = ("label", "class", "target")
_KNOWN = (
    "a folder, a pattern such as 'photos/*.jpg', a text, CSV or Parquet file, a list of paths, a "
    "tf.data.Dataset, or an iterable of images, (id, image), (image, label) or (id, image, label)"
)


def open_source(source: Any, rank: int = 3) -> Source:
    """Open a source of images.

    Parameters
    ----------
    source
        See explain_dataset.
    rank
        The number of axes of an image.

    Raises
    ------
    OptionError
        If it is none, or has no images.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, PathLike)):
        return _open_path(os.fspath(source))
    if isinstance(source, (list, tuple)) and source and all(map(_is_path, source)):
        return ListedSource("list of files", "", [fspath(path) for path in source])
    return _open_object(source, rank)


def _open_object(source: Any, rank: int) -> Source:
    """Open an object of Python that yields images."""
    if isinstance(source, tf.data.Dataset):
        return StreamSource(_Fresh(source.as_numpy_iterator), rank, "tf.data.Dataset")
    if isinstance(source, keras.utils.PyDataset):
        batches = _Fresh(lambda: (_pair(source[i]) for i in range(len(source))))
        return StreamSource(batches, rank, "keras.utils.PyDataset")
    one = isinstance(source, (bytes, Mapping, Image.Image))
    one = one or len(getattr(source, "shape", ())) == rank
    indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if one or not (isinstance(source, Iterable) or indexed):
        raise OptionError(f"Expected {_KNOWN}. Received: {type(source).__name__}.")
    kind, digest = "sequence" if indexed else "iterable", ""
    if hasattr(source, "column_names") and hasattr(source, "features"):
        source, kind = _undecoded(source), "Hugging Face data set"
        digest = str(getattr(source, "_fingerprint", ""))
    if indexed:
        return SequenceSource(source, rank, kind, digest)
    return StreamSource(source, rank, kind)


def _pair(batch: Any) -> Any:
    """Return the images and labels of a batch for Keras, without weights of samples."""
    return keras.utils.unpack_x_y_sample_weight(batch)[:2]


class _Fresh:
    """An iterable that calls a function for each iterator."""

    def __init__(self, start: Any) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return iter(self._start())


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, PathLike))


def _undecoded(source: Any) -> Any:
    """Return a Hugging Face data set that yields the bytes of images, for their digests."""
    for name, feature in (source.features or {}).items():
        if type(feature).__name__ == "Image":
            source = source.cast_column(name, type(feature)(decode=False))
    return source


def _open_path(path: str) -> Source:
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        return _open_folder(path)
    if not os.path.lexists(path):
        if not is_pattern(path):
            raise OptionError(f"Expected {_KNOWN}. Received: {path}, no such file or folder.")
        path = os.path.abspath(path)  # ids must not depend on the working directory
        files = sorted(each for each in iglob(path, recursive=True) if os.path.isfile(each))
        if files and all(each.lower().endswith(_PARQUET) for each in files):
            return ParquetSource(path, files)
        return ListedSource("pattern", path, files)
    if suffix in _PARQUET:
        return ParquetSource(os.path.abspath(path), [path])
    if suffix in (*_LISTS, *_TABLES):
        return _open_table(path, suffix)
    if suffix in PHOTO_SUFFIXES:
        return ListedSource("list of files", os.path.abspath(path), [os.path.abspath(path)])
    raise OptionError(f"Expected {_KNOWN}. Received: the file {path}.")


def _open_folder(folder: str) -> Source:
    """Open a folder: its photos with the first folder below it as label, or its Parquet files."""
    paths = list_photos(folder)
    if not paths:
        tables = sorted(str(path) for path in Path(folder).rglob("*.parquet"))
        if tables:
            return ParquetSource(os.path.abspath(folder), tables)
        raise OptionError(f"Expected images in the folder {folder}. Received: none.")
    start = len(os.path.join(folder, ""))
    ids = [path[start:].replace(os.sep, "/") for path in paths]
    labels = [name.partition("/")[0] if "/" in name else None for name in ids]
    known = labels if any(labels) else None
    classes = [each.name for each in os.scandir(folder) if each.is_dir() and each.name[0] != "."]
    names = classes if known else ()
    return ListedSource("folder", os.path.abspath(folder), paths, ids, known, names)


def _open_table(path: str, suffix: str) -> Source:
    """Open a text file of one path per line, or a table with a column of paths.

    Relative paths are relative to the file's folder.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise OptionError(f"Cannot read {path} ({one_line(error)}).") from error
    lines = [line for line in text.splitlines() if line.strip()]
    folder = os.path.dirname(os.path.abspath(path))
    if suffix in _LISTS or not lines:
        return ListedSource("list of files", os.path.abspath(path), _absolute(folder, lines), lines)
    rows = list(csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ","))
    header = [name.strip().lower() for name in rows[0]]
    column = next((header.index(name) for name in _PATHS if name in header), None)
    if column is None:
        raise OptionError(
            f"Expected a column {', '.join(_PATHS[:-1])} or {_PATHS[-1]} in {path}. Received: the "
            f"columns {', '.join(header):.200}."
        )
    short = next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if short is not None:
        raise OptionError(
            f"Expected {len(header)} cells in each row of {path}. Received: {len(rows[short - 1])} "
            f"in row {short}."
        )
    names = [row[column] for row in rows[1:]]
    ids = [row[header.index("id")] for row in rows[1:]] if "id" in header else names
    at = next((header.index(name) for name in _LABELS if name in header), None)
    labels = None if at is None else [_as_label(row[at]) for row in rows[1:]]
    return ListedSource("table", os.path.abspath(path), _absolute(folder, names), ids, labels)


def _absolute(folder: str, names: Sequence[str]) -> list[str]:
    return [os.path.join(folder, name) for name in names]


def _as_label(text: str) -> str | int | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else text
