"""The tables that a SanityResult prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, nanmean
from .measuring import COSINE, SIGNED
from .verdicts import DOES_NOT_DEPEND, INCONCLUSIVE, Verdict, short


def lines_of(result: Any) -> list[str]:
    """Return the lines that a SanityResult prints."""
    lines = [f"{key}: {value}" for key, value in result.settings.items()]
    at = result.headline
    if at is not None:
        record = result.steps[at]
        names = " + ".join(record.layers[:3]) + (" + ..." if len(record.layers) > 3 else "")
        count = len(record.layers)
        heading = f"With new weights in {names} ({count} layer{'s' * (count > 1)}):"
        lines += ["", heading if count else f"With {record.name}:", ""]
        lines += _aligned(_headline_rows(result, at))
        lines += [
            f"{name}: a Spearman correlation of {short(e.spearman)} is what x * noise has, "
            f"{short(e.noise_to_noise)}: not distinguishable from x * noise by it"
            for name, e in result.explained_by.items()
            if e.like_noise
        ]
    if at is None or len(result.steps) > 1:
        lines += ["", "Index at each step; D depends, N does not depend, I inconclusive:", ""]
        lines += _aligned(_step_rows(result))
    reasons = _reasons(result)
    if reasons:
        lines += ["", *reasons]
    unchanged = sorted({name for step in result.steps for name in step.unchanged})
    if unchanged:
        named = ", ".join(unchanged[:3]) + (", ..." if len(unchanged) > 3 else "")
        lines += [
            "",
            f"Weights that the draw has one value for and that had it already: {named} "
            f"({len(unchanged)}).",
        ]
    undefined = int((~np.isfinite(_of(result, COSINE))).sum())
    if undefined:
        total = _of(result, COSINE).size
        lines += [
            "",
            f"Undefined, as a map is zero, constant or not finite: {undefined} of {total}.",
        ]
    return lines


def _headline_rows(result: Any, at: int) -> list[list[str]]:
    compared = [s for s in result.similarities if s not in (COSINE, SIGNED)]
    rows = [
        [
            "method",
            "verdict",
            "index",
            "95 %",
            "same photo",
            "other photos",
            "signed",
            *compared,
            "edges",
            "defined",
        ]
    ]
    for m, (name, verdicts) in enumerate(result.verdicts.items()):
        v = verdicts[at]
        means = [nanmean(result.values[m, at, result.similarities.index(s)]) for s in compared]
        rows.append(
            [
                name,
                v.verdict,
                short(v.index),
                f"{short(v.low)} to {short(v.high)}",
                short(v.same),
                short(v.other),
                short(v.signed),
                *map(short, means),
                short(result.explained_by[name].edges),
                f"{v.defined} of {v.cells}",
            ]
        )
    return rows


def _reasons(result: Any) -> list[str]:
    """Return what is said about verdicts, once for all the steps that it is said of."""
    where: dict[tuple[str, str], list[str]] = {}
    for method, verdicts in result.verdicts.items():
        for step, verdict in zip(result.steps, verdicts, strict=True):
            if verdict.reason:
                where.setdefault((method, verdict.reason), []).append(step.name)
    lines = []
    for (method, reason), steps in where.items():
        named = ", ".join(steps[:3]) + (f", ... ({len(steps)} steps)" if len(steps) > 3 else "")
        lines.append(f"{method} at {named}: {reason}.")
    return lines


def _step_rows(result: Any) -> list[list[str]]:
    rows = [["step", *result.methods]]
    for at, step in enumerate(result.steps):
        cells = [result.verdicts[name][at] for name in result.methods]
        rows.append([step.name, *(f"{short(v.index)} {_letter(v)}" for v in cells)])
    return rows


def _letter(verdict: Verdict) -> str:
    return {INCONCLUSIVE: "I", DOES_NOT_DEPEND: "N"}.get(verdict.verdict, "D")


def _of(result: Any, similarity: str) -> Array:
    return result.values[:, :, result.similarities.index(similarity)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
