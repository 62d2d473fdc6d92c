"""Differences of two records, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from .digests import ModelDigest
from .record import Record

_LONGEST = 60  # characters of a value


@dataclass(frozen=True)
class Difference:
    """Something that differs from what a record says.

    Parameters
    ----------
    name
        What differs, such as "methods.smooth_grad.samples".
    recorded, found
        The two values in words.

    Examples
    --------
    >>> from tfsaliency.records.comparison import Difference
    >>> print(Difference("parameters.fit", "crop", "squash"))
    parameters.fit: squash, recorded crop
    """

    name: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}, recorded {self.recorded}"


def compare_records(recorded: Record, current: Record) -> list[Difference]:
    """Return the differences of model, methods, parameters and versions; not of device and call."""
    found = compare_models(recorded.model, current.model, recorded.versions.get("keras"))
    ours, theirs = ({str(m["name"]): m for m in each.methods} for each in (recorded, current))
    found += compare_values("methods", list(ours), list(theirs))
    for name in ours:
        if name in theirs:
            found += _compare(f"methods.{name}", ours[name], theirs[name])
    found += _compare("parameters", recorded.parameters, current.parameters)
    return found + _compare("versions", recorded.versions, current.versions)


def _compare(path: str, recorded: Any, current: Any) -> list[Difference]:
    """Compare the leaves of nested mappings."""
    ours, theirs = (dict(_flatten(path, each)) for each in (recorded, current))
    keys = dict.fromkeys((*ours, *theirs))
    return [d for key in keys for d in compare_values(key, ours.get(key), theirs.get(key))]


def compare_values(name: str, recorded: Any, found: Any) -> list[Difference]:
    """Return two values as a difference, or nothing if they are equal."""
    return [] if recorded == found else [Difference(name, shorten(recorded), shorten(found))]


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by their dotted path."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, item in value.items():
        # A composition is said by its options alone.
        yield from _flatten(path if key == "composition" else f"{path}.{key}", item)


def compare_models(
    recorded: ModelDigest, current: ModelDigest, version: str | None = None
) -> list[Difference]:
    """Return the differences of two models, with the weights that differ.

    Names are not compared: Keras numbers them in each process. What one of the two does not know is
    not compared, and neither are the architectures if another version of Keras described one.
    """
    found = []
    if recorded.kind != current.kind:
        found.append(Difference("model.kind", recorded.kind, current.kind))
    same_version = version in (None, keras.__version__)
    if recorded.architecture and current.architecture and same_version:
        ours, theirs = recorded.architecture[:16], current.architecture[:16]
        if ours != theirs:
            found.append(Difference("model.architecture", ours, theirs))
    if recorded.weights and current.weights and recorded.weights != current.weights:
        # By position: the names of layers may differ.
        pairs = list(zip(recorded.tensors.items(), current.tensors.values(), strict=False))
        changed = [(path, a, b) for (path, a), b in pairs if a != b]
        found += [Difference(f"model.weights.{path}", a, b) for path, a, b in changed]
        counts = len(recorded.tensors), len(current.tensors)
        if counts[0] != counts[1]:
            found.append(Difference("model.weights", *(f"{n} weights" for n in counts)))
    return found


def shorten(value: Any) -> str:
    """Return a value on one line, cut if it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
