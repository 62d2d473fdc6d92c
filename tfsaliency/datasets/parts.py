"""Parts of a run: Parquet files of rows, put in place when they are complete, and a log of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..arrays import Array
from ..errors import ResultError
from ..storage import replacing
from .arrow import import_pyarrow
from .codes import MapCode, encode_maps

LOG = "parts.jsonl"
UNKNOWN = "unknown"  # a device
_COMPRESSION = 3  # of zstd
_GROUP = 64  # rows of a row group


@dataclass
class Rows:
    """The rows of a part, without their maps, and the maps by method.

    Parameters
    ----------
    columns
        Lists of values by the name of the column.
    maps
        Lists of maps by method: a dict of codes, peak and shape, or None for a row with an error.
    """

    columns: dict[str, list[Any]]
    maps: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class PartEntry:
    """A line of the log: what a finished part contains.

    Parameters
    ----------
    part
        The number of the part.
    rows, errors
        The number of rows, and of those with an error.
    ids
        sha256 of the ids.
    sha256
        sha256 of the file.
    seconds
        The time that it took; -1 if it is not known, because the process ended before it was noted.
    device
        The processor or GPU; UNKNOWN then.
    batches
        The rows that were computed in one batch, for each; those with errors are in none. Empty if
        the line was made from the file.
    """

    part: int
    rows: int
    errors: int
    ids: str
    sha256: str
    seconds: float
    device: str
    batches: Sequence[Sequence[int]] = ()


def part_name(number: int) -> str:
    """Return the name of a part's file."""
    return f"part-{number:06d}.parquet"


def make_schema(codes: Mapping[str, str]) -> Any:
    """Return the Arrow schema of the parts of a run."""
    pa = import_pyarrow()
    text, whole = pa.string(), pa.int32()
    fields = [
        pa.field("id", text, nullable=False),
        ("path", text),
        ("sha256", text),
        ("pixels", text),
        ("label", text),
        ("target", whole),
        ("class_name", text),
        ("score", pa.float32()),
        ("confidence", pa.float32()),
        ("problems", pa.list_(text)),
        ("error", text),
    ]
    one = pa.struct([("codes", pa.binary()), ("peak", pa.float32()), ("shape", pa.list_(whole))])
    for method, code in codes.items():
        fields.append(pa.field(method, one, metadata={"code": code}))
    return pa.schema(fields)


COLUMNS = (
    *("id", "path", "sha256", "pixels", "label", "target", "class_name"),
    *("score", "confidence", "problems", "error"),
)


def encode_rows(maps: Array, code: MapCode) -> list[dict[str, Any] | None]:
    """Return maps (n, ...) as values of a column."""
    shape = list(maps.shape[1:])
    codes, peaks = encode_maps(maps, code)
    return [
        {"codes": data, "peak": float(peak), "shape": shape}
        for data, peak in zip(codes, peaks, strict=True)
    ]


@contextmanager
def writing_part(folder: Path, number: int, schema: Any) -> Iterator[Callable[[Rows], None]]:
    """Write a part beside its place, and put it there if all goes well.

    Yields the function that adds rows. The bytes of the file depend on the rows alone, and not on
    how they are divided among calls.
    """
    pa = import_pyarrow()
    options = {"compression": "zstd", "compression_level": _COMPRESSION, "use_dictionary": False}
    with (
        replacing(folder / part_name(number), "wb") as file,
        pa.parquet.ParquetWriter(file, schema, **options) as writer,
    ):
        waiting = schema.empty_table()

        def add(rows: Rows) -> None:
            nonlocal waiting
            new = pa.table({**rows.columns, **rows.maps}, schema=schema)
            waiting = pa.concat_tables([waiting, new]).combine_chunks()
            while len(waiting) >= _GROUP:
                writer.write_table(waiting.slice(0, _GROUP))
                waiting = waiting.slice(_GROUP)

        yield add
        if len(waiting):
            writer.write_table(waiting)


def read_rows(folder: Path, number: int) -> Rows:
    """Read a part, with the codes of its maps."""
    columns = read_table(folder, number).to_pydict()
    if not set(COLUMNS) <= columns.keys():
        raise ResultError(
            f"Expected the columns {', '.join(COLUMNS)}. Received: {folder / part_name(number)} "
            f"with {', '.join(columns)}."
        )
    own = {name: columns.pop(name) for name in COLUMNS}
    return Rows(own, columns)


def read_table(folder: Path, number: int, columns: Sequence[str] | None = None) -> Any:
    """Read columns of a part as an Arrow table; by default, all.

    Raises
    ------
    ResultError
        If the part is damaged.
    """
    path = folder / part_name(number)
    names = None if columns is None else list(columns)
    try:
        table = import_pyarrow().parquet.read_table(path, columns=names, partitioning=None)
        table.validate(full=True)  # texts are UTF-8
        if names is not None and len(table.columns) < len(names):
            raise LookupError(f"no column {next(n for n in names if n not in table.column_names)}")
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # pyarrow raises various errors for damaged bytes
        raise ResultError(
            f"Expected a part that explain_dataset wrote. Received: {path} ({error!s:.200}). "
            "Delete the file, and run the same call again; it computes this part anew."
        ) from error
    return table


def list_parts(folder: Path) -> set[int]:
    """Return the numbers of the parts in a folder."""
    return {
        int(name[5:-8])
        for name in os.listdir(folder)
        if name.startswith("part-") and name.endswith(".parquet") and name[5:-8].isdecimal()
    }


def digest_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_ids(ids: Sequence[str]) -> str:
    """Return the sha256 of ids in their order."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()


def append_entry(folder: Path, entry: PartEntry) -> None:
    """Add a finished part to the log."""
    _append_line(folder, asdict(entry))


def add_missing_lines(folder: Path, log: Mapping[int, PartEntry]) -> None:
    """Add the lines of parts that were put in place just before the process ended."""
    known = dict(_read_lines(folder / LOG))
    for number, entry in log.items():
        if known.get(number) is None:
            append_entry(folder, replace(entry, seconds=-1.0))  # the time is not known


def forget_entry(folder: Path, number: int) -> None:
    """Note in the log that a part is about to be replaced."""
    _append_line(folder, {"part": number, "replaced": True})


def _append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the log, on a line of its own even behind one that was torn."""
    path = folder / LOG
    torn = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
    with open(path, "a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_log(folder: Path, images: int | None, part_size: int) -> dict[int, PartEntry]:
    """Return the last line of each finished part, by its number.

    A part is finished if its file is there. If its line is missing, because the process ended
    between the two, the line is made from the file, and its device is UNKNOWN.

    Parameters
    ----------
    folder
        The folder of the run.
    images, part_size
        The number of images of the source, None if unknown, and of a part.

    Raises
    ------
    ResultError
        If a part is damaged, or there is one that no run of so many images has.
    """
    lines = dict(_read_lines(folder / LOG))
    numbers = sorted(list_parts(folder))
    if images is not None and numbers and numbers[-1] * part_size >= images:
        raise ResultError(
            f"Expected parts of {images} images, {part_size} each. Received: "
            f"{folder / part_name(numbers[-1])}, which is none of them. Delete it."
        )
    return {number: lines.get(number) or entry_of_file(folder, number) for number in numbers}


def _read_lines(path: Path) -> Iterator[tuple[int, PartEntry | None]]:
    """Yield the number of a part and its entry, None where the file may be a newer one."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                values = json.loads(line)
                yield values["part"], None if "replaced" in values else PartEntry(**values)
            except (ValueError, TypeError, LookupError):  # torn
                continue


def entry_of_file(folder: Path, number: int) -> PartEntry:
    """Return the entry of a part, as far as its file says."""
    table = read_table(folder, number, ["id", "error"])
    ids, errors = (table.column(name) for name in ("id", "error"))
    sha256 = digest_file(folder / part_name(number))
    failed = len(errors) - errors.null_count
    return PartEntry(number, len(ids), failed, digest_ids(ids.to_pylist()), sha256, 0.0, UNKNOWN)
