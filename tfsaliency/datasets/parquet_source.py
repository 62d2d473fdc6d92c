"""Images in Parquet files: their bytes in a column, as Hugging Face and others write them."""

from __future__ import annotations

import bisect
import functools
import os
from collections.abc import Container, Iterator, Sequence
from itertools import accumulate
from typing import Any

from ..errors import OptionError, one_line
from .arrow import import_pyarrow
from .sources import (
    ID_KEYS,
    IMAGE_KEYS,
    LABEL_KEYS,
    Element,
    Fetch,
    Source,
    digest_rows,
    parse_element,
    ranges,
)

_RANK = 3
_BATCH = 64  # rows to read at a time


class ParquetSource(Source):
    """Rows of Parquet files with the bytes of an image."""

    def __init__(self, where: str, files: Sequence[str]) -> None:
        parquet = import_pyarrow().parquet
        try:
            readers = [parquet.ParquetFile(file) for file in files]
        except Exception as error:  # pyarrow raises various errors
            raise OptionError(
                f"Cannot read Parquet files of {where}: {one_line(error)}."
            ) from error
        names = readers[0].schema_arrow.names
        keys = (IMAGE_KEYS, ID_KEYS, LABEL_KEYS)
        self._columns = [next((k for k in each if k in names), None) for each in keys]
        if self._columns[0] is None:
            raise OptionError(
                f"Expected a column of image bytes in {files[0]}: {', '.join(IMAGE_KEYS)}. "
                f"Received: the columns {', '.join(names):.200}."
            )
        self._files = list(files)
        counts = [file.metadata.num_rows for file in readers]
        self._starts = [0, *accumulate(counts)]
        about = zip(map(os.path.basename, files), map(os.path.getsize, files), counts, strict=True)
        super().__init__("Parquet", where, self._starts[-1], digest_rows(about))

    def parts(self, size: int, wanted: Container[int] | None) -> Iterator[tuple[int, list[Fetch]]]:
        """Yield the wanted parts; see Source."""
        reader = _RowReader(self._files, self._starts, [c for c in self._columns if c])
        for number, rows in ranges(self._starts[-1], size, wanted):
            found = reader.read(rows)
            yield (
                number,
                [
                    functools.partial(self._element, row, i)
                    for row, i in zip(found, rows, strict=True)
                ],
            )

    def _element(self, row: dict[str, Any], number: int) -> Element:
        image, name, label = (None if c is None else row[c] for c in self._columns)
        parsed = {"image": image, "id": name, "label": label}
        return parse_element(parsed, number, _RANK)


class _RowReader:
    """Reads ranges of rows in increasing order, one batch of one file in memory."""

    def __init__(self, files: Sequence[str], starts: Sequence[int], columns: list[str]) -> None:
        self._files, self._starts, self._columns = files, starts, columns
        self._at, self._next, self._batches = -1, 0, iter(())
        self._held: list[dict[str, Any]] = []

    def read(self, rows: range) -> list[dict[str, Any]]:
        """Return the rows of a range."""
        found: list[dict[str, Any]] = []
        position = rows.start
        while position < rows.stop:
            self._seek(position)
            offset = position - self._next
            part = self._held[offset : offset + rows.stop - position]
            found += part
            position += len(part)
        return found

    def _seek(self, position: int) -> None:
        """Hold the batch that has a row."""
        file = bisect.bisect_right(self._starts, position) - 1
        if file != self._at or position < self._next:
            self._open(file, position)
        while position >= self._next + len(self._held):
            self._next += len(self._held)
            self._held = next(self._batches).to_pylist()

    def _open(self, file: int, position: int) -> None:
        """Begin to read a file at the row group that has a row."""
        reader = import_pyarrow().parquet.ParquetFile(self._files[file])
        start, first = self._starts[file], 0
        groups = range(reader.num_row_groups)
        while start + reader.metadata.row_group(first).num_rows <= position:
            start += reader.metadata.row_group(first).num_rows
            first += 1
        self._batches = reader.iter_batches(
            _BATCH, row_groups=list(groups[first:]), columns=self._columns
        )
        self._at, self._next, self._held = file, start, []
