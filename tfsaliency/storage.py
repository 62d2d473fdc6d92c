"""Result files: arrays and a JSON header in one .npz file, written completely or not at all.

Loading raises ResultError for a damaged file: it compares bytes with their checksums, the size of
each array with its shape, and the header with the types of the record.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import types
import typing
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from .errors import ResultError
from .version import __version__

if TYPE_CHECKING:  # at runtime, TensorFlow would be imported
    from .arrays import Array

T = TypeVar("T")
Arrays: TypeAlias = "Mapping[str, Array]"
Header: TypeAlias = Mapping[str, Any]

FORMAT = 1  # of the file; later versions of the library may add another
TEMPORARY = ".tfsaliency-"  # the beginning of the names of files that are being written
_HEADER = "header"
_LEVEL = 1  # of compression: maps are 5 % larger than by zlib's default, in a third of the time
_KINDS = "biufU"  # of dtypes: bool, integers, floats and text


def save(
    path: str | PathLike[str], kind: str, arrays: Mapping[str, Array], header: Mapping[str, Any]
) -> None:
    """Write arrays and a header to a compressed .npz file, replacing an earlier one.

    Parameters
    ----------
    path
        Path of the file; no suffix is added.
    kind
        Class of the saved record, such as "SaliencyMaps".
    arrays
        Arrays of numbers or booleans by name, of any shape.
    header
        Values that JSON can express; see to_plain.
    """
    with _writing(path, kind, header) as open_member:
        for name, array in arrays.items():
            with open_member(name) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def join(
    paths: Sequence[str | PathLike[str]], path: str | PathLike[str], kind: str, header: Header
) -> None:
    """Join the arrays of files along their first axes, with one array of one file in memory.

    Parameters
    ----------
    paths
        Files of the same arrays, but for the first axes.
    path, kind
        As for save.
    header
        The header of the new file.
    """
    specs = [_read_specs(each) for each in paths]
    with _writing(path, kind, header) as open_member:
        for name in (name for name in specs[0] if name != _HEADER):
            shapes, dtypes = zip(*(spec[name] for spec in specs), strict=True)
            dtype = np.result_type(*dtypes)
            about = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (sum(shape[0] for shape in shapes), *shapes[0][1:]),
            }
            with open_member(name) as member:
                np.lib.format.write_array_header_1_0(member, about)
                for each in paths:
                    with zipfile.ZipFile(each) as archive, archive.open(f"{name}.npy") as part:
                        array = np.lib.format.read_array(part, allow_pickle=False)
                    member.write(np.ascontiguousarray(array, dtype).data.cast("B"))


@contextmanager
def _writing(
    path: str | PathLike[str], kind: str, header: Header
) -> Iterator[Callable[[str], IO[bytes]]]:
    """Write a header, and yield a function that opens the member of each array in turn."""
    about = {"kind": kind, "format": FORMAT, "version": __version__, **header}
    text = json.dumps(about, allow_nan=False)
    # Older versions of np.savez_compressed leave a broken archive open when they fail.
    with (
        replacing(path, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
    ):

        def open_member(name: str) -> IO[bytes]:
            return archive.open(f"{name}.npy", "w", force_zip64=True)

        with open_member(_HEADER) as member:
            np.lib.format.write_array(member, np.array(text), allow_pickle=False)
        yield open_member


def read_header(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the header of a file that save wrote a moment ago."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{_HEADER}.npy") as member:
        header = json.loads(str(np.lib.format.read_array(member, allow_pickle=False)[()]))
    return dict(header)


def read_kind(path: str | PathLike[str]) -> str:
    """Return the class of the record in a file, or "" if no record can be read."""
    try:
        return str(read_header(path).get("kind", ""))
    except Exception:  # as in load
        return ""


def load(path: str | PathLike[str], kind: str, read: Callable[[Arrays, Header], T]) -> T:
    """Read a file that save wrote.

    Parameters
    ----------
    path, kind
        As for save.
    read
        Function (arrays, header) -> record; raises ResultError if the two disagree.

    Returns
    -------
    The record.

    Raises
    ------
    ResultError
        If the file is damaged, truncated, of another kind or of a later format.
    FileNotFoundError, PermissionError
        If the file does not exist or is not readable.
    """
    try:
        return read(*_read(path, kind))
    except (FileNotFoundError, PermissionError):
        raise
    # Damaged bytes make zipfile, zlib, NumPy and json raise anything, MemoryError included.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ResultError(
            f"Expected a file that {kind}.save wrote. Received: {path} ({reason:.300})."
        ) from error


def _read(path: str | PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    arrays = _read_arrays(path)
    if _HEADER not in arrays:
        raise ResultError("no header")
    header = json.loads(str(arrays.pop(_HEADER)[()]))
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else header
        raise ResultError(f"kind {found!r:.100}")
    if header.get("format") != FORMAT:
        raise ResultError(
            f"format {header.get('format')!r:.100} of version {header.get('version')!r:.100}, "
            f"where version {__version__} reads format {FORMAT}"
        )
    return arrays, header


@contextmanager
def replacing(
    path: str | PathLike[str], mode: str = "w", newline: str | None = None
) -> Iterator[IO[Any]]:
    """Open a temporary file beside a path, and move it to the path once it is complete.

    If writing fails, the earlier file stays unchanged. Pipes and devices are written to directly.
    """
    target = Path(os.path.realpath(path))
    encoding = None if "b" in mode else "utf-8"
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder; make it first", str(target.parent))
    if target.exists() and not target.is_file():
        with open(target, mode, encoding=encoding, newline=newline) as file:
            yield file
        return
    part = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.part")
    try:
        with open(part, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(part, target.stat().st_mode & 0o777)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def to_plain(value: Any) -> Any:
    """Convert records, mappings, sequences and numbers to JSON values; NaN becomes null.

    >>> to_plain({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """Convert a JSON value to a type; the inverse of to_plain.

    Parameters
    ----------
    kind
        A dataclass, str, int, float, bool, Any, X | None, tuple[X, ...] or Mapping[str, X].
    value
        A value that to_plain returned. Where a float is expected, None stands for NaN.

    Raises
    ------
    ResultError
        If the value has another type.

    >>> from_plain(tuple[float, ...], [1, None])
    (1.0, nan)
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        (inner,) = (part for part in parts if part is not types.NoneType)
        return None if value is None else from_plain(inner, value)
    if origin is tuple and isinstance(value, list):
        return tuple(from_plain(parts[0], item) for item in value)
    if isinstance(value, dict) and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(parts[1], item) for key, item in value.items()}
    if isinstance(value, dict) and is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value)
    if kind is float and (value is None or type(value) in (int, float)):
        return float("nan") if value is None else float(value)
    literal = origin is typing.Literal and value in parts
    if kind is Any or literal or (kind in (str, int, bool) and type(value) is kind):
        return value
    raise ResultError(f"{value!r:.100} instead of {getattr(kind, '__name__', kind)}")


def _record(kind: type, value: Mapping[str, Any]) -> Any:
    """Build a dataclass from its fields, each converted to its declared type."""
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    needed = {name for name, f in known.items() if f.default is f.default_factory is MISSING}
    if not needed <= set(value) <= set(known):
        raise ResultError(f"fields {sorted(value)} of {kind.__name__}")
    return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})


def read_array(
    arrays: Mapping[str, Array], name: str, kinds: str, shape: tuple[int | None, ...] | None = None
) -> Array:
    """Return an array of a file.

    Parameters
    ----------
    arrays
        The arrays of the file, by name.
    name
        Name of the array.
    kinds
        Accepted kinds of dtype, such as "iu" or "f".
    shape
        Required shape, with None for an axis of any size; None for any shape.

    Raises
    ------
    ResultError
        If the array is missing, or has another dtype or shape.
    """
    if name not in arrays:
        raise ResultError(f"no array {name!r}")
    array = arrays[name]
    fits = shape is None or (
        array.ndim == len(shape)
        and all(want in (None, size) for want, size in zip(shape, array.shape, strict=True))
    )
    if array.dtype.kind not in kinds or not fits:
        raise ResultError(f"{name!r} is {array.dtype} of shape {array.shape}, expected {shape}")
    return array


def _read_arrays(path: str | PathLike[str]) -> dict[str, Array]:
    """Read a .npz file; compare each array's size with its shape before allocating memory."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in arrays:
                raise ResultError(f"an unexpected entry {info.filename!r}")
            with archive.open(info) as member:
                shape, dtype = _read_shape(member)
                bytes_expected = member.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
            text = name == _HEADER and dtype.kind == "U" and shape == ()
            if info.file_size != bytes_expected or not (text or dtype.kind in _KINDS):
                raise ResultError(f"{name!r} of {info.file_size} bytes: {dtype} of shape {shape}")
            with archive.open(info) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                if member.read():  # zipfile compares the checksum at the end
                    raise ResultError(f"more than {name!r} holds")
    return arrays


def _read_specs(path: str | PathLike[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shape and dtype of each array of a file."""
    with zipfile.ZipFile(path) as archive:
        specs = {}
        for info in archive.infolist():
            with archive.open(info) as member:
                specs[info.filename.removesuffix(".npy")] = _read_shape(member)
    return specs


def _read_shape(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return shape, dtype
