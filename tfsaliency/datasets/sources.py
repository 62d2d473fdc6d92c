"""Sources of images: what a run explains, in parts.

A source yields parts, numbered lists of functions that fetch one element each, so that reading can
be done by threads. Sources of a known order and number give any part at once; streams are read from
the beginning.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import OptionError
from ..tables import as_text

IMAGE_KEYS = ("image", "img", "pixels", "jpg", "jpeg", "png", "webp", "bytes", "x")
ID_KEYS = ("id", "image_id", "__key__", "key", "file_name", "filename", "image/filename")
LABEL_KEYS = ("label", "labels", "target", "class", "fine_label", "y")
_NAMED = 3  # repeated ids in an error
_PAIR, _TRIPLE = 2, 3  # (id, image) or (image, label), (id, image, label)

Fetch = Callable[[], "Element"]


class Element(NamedTuple):
    """One image of a source.

    Parameters
    ----------
    id
        Its name, unique in the source.
    image
        A path, the bytes of a file, a PIL image, or an array (h, w, c).
    path
        The path of its file; "" if it has none.
    label
        Its class, by index or name; None if unknown.
    """

    id: str
    image: Any
    path: str = ""
    label: str | int | None = None


class Source:
    """A source of images, the base of all kinds.

    Parameters
    ----------
    kind, where
        Its kind, such as "folder", and its path; "" if it has none.
    count
        The number of images; None if unknown.
    digest
        A digest of what is in it; "" if it cannot be told without reading everything.
    label_names
        The names of the class folders, sorted; empty without them.
    """

    def __init__(
        self,
        kind: str,
        where: str,
        count: int | None,
        digest: str = "",
        label_names: Iterable[str] = (),
    ) -> None:
        self.kind, self.where, self.count, self.digest = kind, where, count, digest
        self.label_names = tuple(sorted(label_names))
        if count == 0:
            raise OptionError(f"Expected images in the {kind} {where}. Received: none.")

    def parts(self, size: int, wanted: Container[int] | None) -> Iterator[tuple[int, list[Fetch]]]:
        """Yield the number and the fetching functions of the wanted parts; None is all.

        Streams, of unknown length, yield all parts.
        """
        for number, rows in ranges(self.count or 0, size, wanted):
            yield number, [functools.partial(self.fetch, i) for i in rows]

    def fetch(self, i: int) -> Element:
        """Return an element by its number."""
        raise NotImplementedError


class ListedSource(Source):
    """Files by path, with ids and labels."""

    def __init__(
        self,
        kind: str,
        where: str,
        paths: Sequence[str],
        ids: Sequence[str] | None = None,
        labels: Sequence[str | int | None] | None = None,
        label_names: Sequence[str] = (),
    ) -> None:
        ids = paths if ids is None else ids
        refuse_repeated(ids)
        digest = digest_rows(zip(ids, labels or [None] * len(ids), strict=True))
        super().__init__(kind, where, len(paths), digest, label_names)
        # Absolute, so that workers and verify find them from anywhere.
        self._paths, self._ids, self._labels = list(map(os.path.abspath, paths)), ids, labels

    def fetch(self, i: int) -> Element:
        """Return an element by its number."""
        label = None if self._labels is None else self._labels[i]
        path = self._paths[i]
        return Element(as_text(self._ids[i]), Path(path), as_text(path), label)


class SequenceSource(Source):
    """Anything with a length and items: a list, an array, a Hugging Face data set."""

    def __init__(self, items: Any, rank: int, kind: str, digest: str = "") -> None:
        super().__init__(kind, "", len(items), digest)
        self._items, self._rank = items, rank

    def fetch(self, i: int) -> Element:
        """Return an element by its number."""
        return parse_element(self._items[i], i, self._rank)


class StreamSource(Source):
    """An iterable that can only be read from its beginning."""

    def __init__(self, items: Iterable[Any], rank: int, kind: str) -> None:
        super().__init__(kind, "", None)
        self._items, self._rank = items, rank

    def parts(self, size: int, wanted: Container[int] | None) -> Iterator[tuple[int, list[Fetch]]]:
        """Yield all parts; see Source."""
        elements = enumerate(self._unbatched())
        number = 0
        while part := list(islice(elements, size)):
            yield number, [functools.partial(parse_element, e, i, self._rank) for i, e in part]
            number += 1

    def _unbatched(self) -> Iterator[Any]:
        """Yield elements of one image each."""
        for element in self._items:
            named = isinstance(element, Mapping)
            parts = element.values() if named else element
            parts = tuple(parts) if named or isinstance(element, tuple) else (element,)
            if not any(np.ndim(part) == self._rank + 1 for part in parts if _is_array(part)):
                yield element
                continue
            known = [_rows(part) for part in parts if part is not None]
            for row in zip(*known, strict=True):
                yield dict(zip(element, row, strict=True)) if named else row


def _rows(part: Any) -> Any:
    return part if isinstance(part, (list, tuple)) else np.asarray(part)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def ranges(count: int, size: int, wanted: Container[int] | None) -> Iterator[tuple[int, range]]:
    """Yield the numbers of the wanted parts, and the numbers of their elements."""
    for number, start in enumerate(range(0, count, size)):
        if wanted is None or number in wanted:
            yield number, range(start, min(start + size, count))


def parse_element(element: Any, number: int, rank: int) -> Element:
    """Return an element of a caller's source.

    Parameters
    ----------
    element
        An image; a tuple (id, image), (image, label) or (id, image, label); or a mapping with keys
        such as "image", "id" and "label".
    number
        The number of the element, its id if it has none.
    rank
        The number of axes of an image.

    >>> parse_element({"image": "a.png", "label": 3}, 7, 3)
    Element(id='7', image=PosixPath('a.png'), path='a.png', label=3)
    """
    name: Any = None
    label: Any = None
    if isinstance(element, Mapping):
        image, name, label = (_first(element, k) for k in (IMAGE_KEYS, ID_KEYS, LABEL_KEYS))
        if not set(IMAGE_KEYS) & set(element):
            raise OptionError(
                f"Expected an image under one of the keys {', '.join(IMAGE_KEYS)}. Received: the "
                f"keys {', '.join(map(str, element))}."
            )
    elif isinstance(element, (tuple, list)) and _PAIR <= len(element) <= _TRIPLE:
        parts = list(element)
        if len(parts) == _TRIPLE or (_is_name(parts[0]) and not _is_index(parts[1])):
            name, *parts = parts
        image, label = (*parts, None)[:2]
    elif isinstance(element, (tuple, list)) and len(element) == 1:
        image = element[0]
    else:
        image = element
    path = ""
    if isinstance(image, Mapping):  # of Hugging Face: bytes and path
        path = str(image.get("path") or "")
        image = image.get("bytes") or Path(path)
    if isinstance(image, (str, PathLike)):
        path = fspath(image)
        image = Path(path)
    plain = b"" if image is None else _plain_image(image)  # an error of its row
    return Element(as_text(_text(name, number)), plain, as_text(path), _label(label))


def _is_name(value: Any) -> bool:
    """Return whether the first item of a pair is an id, and not an image."""
    if isinstance(value, (str, int, np.integer)):
        return True
    return isinstance(value, bytes) or (_is_array(value) and np.ndim(value) == 0)


def _is_index(value: Any) -> bool:
    number = isinstance(value, (int, np.integer)) or (_is_array(value) and value.dtype.kind in "iu")
    return number and np.ndim(value) == 0


def _first(element: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((element[key] for key in keys if key in element), None)


def _text(name: Any, number: int) -> str:
    if name is None:
        return str(number)
    value = np.asarray(name).item() if _is_array(name) else name
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _plain_image(image: Any) -> Any:
    """Return an image as a path, bytes, a PIL image or an array."""
    if isinstance(image, (Path, bytes, Image.Image)):
        return image
    array = np.asarray(image)
    return array.item() if array.ndim == 0 and array.dtype.kind in "SO" else array


def _label(label: Any) -> str | int | None:
    """Return a label as an index or a name; that of a one-hot code as an index."""
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, bytes):
        return label.decode("utf-8", "replace")
    array = np.asarray(label)
    if array.size > 1:
        return int(array.argmax())
    value = array.reshape(-1)[0] if array.size else None
    if value is None or (array.dtype.kind == "f" and np.isnan(value)):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else int(value)


def refuse_repeated(ids: Sequence[str]) -> None:
    """Raise OptionError if an id occurs twice."""
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    twice = dict.fromkeys(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    listed = ", ".join(list(twice)[:_NAMED])
    raise OptionError(
        f"Expected each image once. Received: {len(ids) - len(seen)} repeated ids, such as "
        f"{listed}."
    )


def digest_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return a digest of ids and labels in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\0".join(map(str, row)).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
