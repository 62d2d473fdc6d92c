"""ExplainedDataset: the rows and maps of a run, read part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..arrays import Array
from ..errors import OptionError, ResultError, unknown_option
from ..records import Record
from .arrow import import_pyarrow
from .codes import MapCode, decode_map
from .manifest import FILE, Manifest
from .parts import COLUMNS, PartEntry, make_schema, read_table

_CHUNK = 16  # rows to decode at a time


class ExplainedDataset:
    """The result of explain_dataset: rows, and maps by id.

    Iteration yields a dict for each row, with the maps by method as arrays; one part is in memory.

    Parameters
    ----------
    folder : path
        The folder.
    manifest : Manifest
        The source, record, codes and part size.
    log : dict
        The entry of each finished part, by its number.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> images = tfs.synthetic.make_shapes(3, seed=0).images
    >>> _ = tfs.explain_dataset(tfs.synthetic.shapes_model(), images, "three_maps")
    >>> maps = tfs.open_dataset("three_maps")
    >>> maps
    ExplainedDataset(3 of 3 images, ['gradient'], 0 errors)
    >>> maps.table(["id", "target"]).to_pydict()
    {'id': ['0', '1', '2'], 'target': [4, 1, 5]}
    >>> [row["maps"]["gradient"].shape for row in maps]
    [(64, 64), (64, 64), (64, 64)]
    """

    def __init__(self, folder: Path, manifest: Manifest, log: Mapping[int, PartEntry]) -> None:
        self.folder, self.manifest, self.log = folder, manifest, log
        self._places: dict[str, tuple[int, int]] | None = None

    @property
    def record(self) -> Record:
        """The record of the run."""
        return self.manifest.record

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(self.manifest.codes)

    @property
    def errors(self) -> int:
        """The number of images with an error."""
        return sum(entry.errors for entry in self.log.values())

    @property
    def complete(self) -> bool:
        """True if all images of the source are there, or their number is unknown."""
        return self.manifest.source.images in (None, len(self))

    def __len__(self) -> int:
        return sum(entry.rows for entry in self.log.values())

    def __repr__(self) -> str:
        total = self.manifest.source.images
        of = "" if total is None else f" of {total}"
        return (
            f"ExplainedDataset({len(self)}{of} images, {list(self.methods)}, {self.errors} errors)"
        )

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Return the rows without their maps as a pyarrow.Table.

        Parameters
        ----------
        columns
            The columns: "id", "path", "sha256" (of the input's bytes), "pixels" (sha256 of the
            decoded pixels), "label" (of the source), "target", "class_name", "score", "confidence"
            (the probability of the target, if the outputs are probabilities), "problems" (causes
            of meaningless maps) and "error"; by default, all.

        Raises
        ------
        OptionError
            If a column is unknown.
        """
        chosen = list(COLUMNS if columns is None else columns)
        for name in chosen:
            if name not in COLUMNS:
                raise unknown_option("column", name, COLUMNS)
        pa = import_pyarrow()
        tables = [self._read(number, chosen) for number in self.log]
        if not tables:
            schema = make_schema({})
            return pa.schema([schema.field(name) for name in chosen]).empty_table()
        return pa.concat_tables(tables)

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Return the rows without their maps as a pandas.DataFrame; see table.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        return self.table(columns).to_pandas()

    def maps(
        self, ids: str | Sequence[str], methods: str | Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Return the maps of some images, by method.

        Parameters
        ----------
        ids
            One id or several.
        methods
            The methods; by default, all.

        Returns
        -------
        Arrays (n, h, w), float32, in the order of the ids; lists if the images differ in size.

        Raises
        ------
        OptionError
            If an id or a method is unknown, or the image has no maps, because of its error.
        """
        wanted = [ids] if isinstance(ids, str) else list(ids)
        places = [self._place(name) for name in wanted]
        rows: dict[str, dict[str, Any]] = {}
        for number in dict.fromkeys(part for part, _ in places):
            inside = [place for part, place in places if part == number]
            for row in self._rows(number, self._methods(methods), inside):
                rows[row["id"]] = row
        failed = next((name for name in wanted if rows[name]["error"] is not None), None)
        if failed is not None:
            raise OptionError(
                f"Expected ids of images with maps. Received: {failed!r}, which has the error: "
                f"{rows[failed]['error']}"
            )
        return {
            method: _stack([rows[name]["maps"][method] for name in wanted])
            for method in self._methods(methods)
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in self.log:
            yield from self._rows(number, self.methods)

    def rows(self, part: int, methods: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a part, with their maps; those of an image with an error are empty."""
        return self._rows(part, self._methods(methods))

    def _rows(
        self, number: int, methods: Sequence[str], places: Sequence[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        table = self._read(number, [*COLUMNS, *methods])
        if places is not None:
            table = table.take(list(places))
        for batch in table.to_batches(max_chunksize=_CHUNK):
            for row in batch.to_pylist():
                coded = {method: row.pop(method) for method in methods}
                yield {**row, "maps": {m: self._decode(m, c) for m, c in coded.items() if c}}

    def _decode(self, method: str, coded: Mapping[str, Any]) -> Array:
        code = cast(MapCode, self.manifest.codes[method])
        return decode_map(coded["codes"], coded["peak"], coded["shape"], code)

    def _read(self, number: int, columns: Sequence[str]) -> Any:
        return read_table(self.folder, number, columns)

    def _methods(self, methods: str | Sequence[str] | None) -> list[str]:
        chosen = self.methods if methods is None else methods
        listed = [chosen] if isinstance(chosen, str) else list(chosen)
        for name in listed:
            if name not in self.methods:
                raise unknown_option("method", name, self.methods)
        return listed

    def _place(self, name: str) -> tuple[int, int]:
        """Return the part of an id and its row there."""
        if self._places is None:
            self._places = {
                each: (number, row)
                for number in self.log
                for row, each in enumerate(self._read(number, ["id"]).column("id").to_pylist())
            }
        if name not in self._places:
            raise OptionError(f"Expected an id of the data set. Received: {name!r:.100}.")
        return self._places[name]


def _stack(maps: Sequence[Array]) -> Any:
    alike = len({each.shape for each in maps}) == 1
    return np.stack(maps) if alike else list(maps)


def open_dataset(folder: str | PathLike[str]) -> ExplainedDataset:
    """Open the folder of explain_dataset, finished or not, to read its maps (h, w).

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    ExplainedDataset

    Raises
    ------
    ResultError
        If it is no folder of explain_dataset, or the manifest or a part is damaged.
    ImportError
        If pyarrow is missing.

    References
    ----------
    See explain_dataset.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> images = tfs.synthetic.make_shapes(2, seed=0).images
    >>> _ = tfs.explain_dataset(tfs.synthetic.shapes_model(), images, "two_maps")
    >>> tfs.open_dataset("two_maps").maps("1")["gradient"].shape
    (1, 64, 64)
    """
    import_pyarrow()
    try:
        path = Path(folder).absolute()
        manifest = Manifest.load(path)
    except (FileNotFoundError, NotADirectoryError, TypeError) as error:
        raise ResultError(
            f"Expected a folder that explain_dataset wrote. Received: {folder!s:.200}, without "
            f"{FILE}."
        ) from error
    return ExplainedDataset(path, manifest, manifest.read_log(path))
