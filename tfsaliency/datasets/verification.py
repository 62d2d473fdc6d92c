"""Verification: what differs between a result and the same computation done again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array
from ..records import Record, describe_versions, name_device
from ..records.comparison import Difference, compare_values
from ..records.record import ROUNDING, uses_onednn

_SHOWN = 20  # differences


@dataclass(frozen=True)
class Verification:
    """The comparison of a result with the same computation done again.

    Parameters
    ----------
    subject
        The result in words.
    differences
        What differs, by name; empty if the result is confirmed.
    compared
        What was computed again and compared, in words.
    notes
        What else to know: other versions or another device, for which a tolerance holds.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> model = tfs.synthetic.shapes_model()
    >>> maps = tfs.saliency_map(model, tfs.synthetic.make_shapes(2, seed=0).images)
    >>> print(tfs.verify(maps, model))
    confirmed: SaliencyMaps of 2 images
    compared: maps of gradient, targets, scores and outputs of 2 images, bit by bit
    note: the record has no digest of the weights; prepare(model, digest=True) adds it
    """

    subject: str
    differences: tuple[Difference, ...]
    compared: str
    notes: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """True if nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        count = len(self.differences)
        verdict = "confirmed" if self.confirmed else f"differs in {count} respects"
        if count == 1:
            verdict = "differs in 1 respect"
        lines = [f"{verdict}: {self.subject}"]
        lines += [f"differs: {difference}" for difference in self.differences[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"and {count - _SHOWN} more")
        lines.append(f"compared: {self.compared}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Standard:
    """The closeness that numbers must have.

    Parameters
    ----------
    tolerance
        The largest difference, relative to the norm of the recorded array; 0 bit by bit.
    notes
        The versions or the device that differ, in words, for which there is a tolerance.
    """

    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The standard in words."""
        if not self.tolerance:
            return "bit by bit"
        # Without a note, it is the rounding of oneDNN.
        what = "" if self.notes else "the rounding of oneDNN, "
        return f"up to {what}{self.tolerance:g} of their norm"

    def accepts(self, recorded: Array, found: Array, extra: float = 0.0) -> bool:
        """Return whether two arrays are the same; `extra` widens a tolerance that is not 0."""
        if recorded.shape != found.shape:
            return False
        if np.array_equal(recorded, found, equal_nan=recorded.dtype.kind == "f"):
            return True
        return self.tolerance > 0 and relative_difference(recorded, found) <= self.tolerance + extra


def relative_difference(recorded: Array, found: Array) -> float:
    """Return the norm of the difference of two arrays, relative to that of the first."""
    a, b = (np.asarray(each, np.float64).ravel() for each in (recorded, found))
    known = np.isfinite(a)
    if (known != np.isfinite(b)).any():
        return np.inf
    norm = float(np.linalg.norm(a[known]))
    gap = float(np.linalg.norm(a[known] - b[known]))
    return gap / norm if norm else (0.0 if gap == 0 else np.inf)


def choose_standard(record: Record, device: str | None = None) -> Standard:
    """Return the standard for a record: bit by bit with its versions, on its device.

    With oneDNN, the last bits differ from trace to trace, so that its rounding is allowed.

    Parameters
    ----------
    record
        The record.
    device
        The device on one line, if it may be another one than that of the record.
    """
    recorded, here = device or name_device(record.device), name_device()
    notes = [
        f"{difference.name.removeprefix('versions.')} {difference.found}, recorded "
        f"{difference.recorded}"
        for difference in _compare_versions(record.versions)
    ]
    if recorded != here:
        notes.append(f"another device: {here}, recorded {recorded}")
    rounding = ROUNDING if uses_onednn() else 0.0
    return Standard(record.tolerance if notes else rounding, tuple(notes))


def _compare_versions(versions: Mapping[str, str]) -> Iterable[Difference]:
    here = describe_versions()
    for name in dict.fromkeys((*versions, *here)):
        yield from compare_values(f"versions.{name}", versions.get(name), here.get(name))


def compare_numbers(name: str, recorded: Any, found: Any, standard: Standard) -> list[Difference]:
    """Return two arrays as a difference, or nothing if they are as close as they must be."""
    old, new = np.asarray(recorded), np.asarray(found)
    if standard.accepts(old, new):
        return []
    if old.size == 1 == new.size:
        return [Difference(name, f"{old.item():.9g}", f"{new.item():.9g}")]
    if old.shape != new.shape:
        return [Difference(name, f"shape {old.shape}", f"shape {new.shape}")]
    gap = np.nanmax(np.abs(old.astype(np.float64) - new), initial=0.0)
    return [
        Difference(name, f"largest {np.nanmax(np.abs(old)):.3g}", f"others, by up to {gap:.3g}")
    ]


def compare_each(names: Iterable[str], old: Any, new: Any, standard: Standard) -> list[Difference]:
    """Return the differences of several attributes of two results."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
    return [d for name, a, b in pairs for d in compare_numbers(name, a, b, standard)]


def make_verification(
    subject: str, found: list[Difference], what: str, standard: Standard, notes: tuple[str, ...]
) -> Verification:
    """Return the verification of a subject, of which numbers in words were compared."""
    compared = f"{what}, {standard.words}"
    return Verification(subject, tuple(found), compared, (*notes, *standard.notes))
