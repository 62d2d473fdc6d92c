"""The text of a SanityResult."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..similarity import RESERVED
from ..statistics import nanmean
from ..tables import UNPRINTED, align, short
from .verdict import (
    CHANCE_LIMIT,
    DEPENDS_BELOW,
    DOES_NOT_DEPEND,
    DOES_NOT_DEPEND_ABOVE,
    INCONCLUSIVE,
    Verdict,
)

COSINE, SIGNED = RESERVED

_SAME = 0.01  # similarities that differ by less are shown once
_LEGEND = (
    "alike: similarity of maps of the same photo, with chance (different photos) in brackets, as\n"
    "for the other similarities. invariance: (alike - chance) / (1 - chance), with chance at most\n"
    f"{CHANCE_LIMIT:g}; about the share of the maps that survives randomization. An interval below "
    f"{DEPENDS_BELOW:g}:\ndepends; above {DOES_NOT_DEPEND_ABOVE:g}: does not depend. "
    "edges: Spearman correlation of the trained maps with\nthe edges of the photos."
)


def format_result(result: Any) -> list[str]:
    """Return the lines that a SanityResult prints."""
    lines = [f"{key}: {value}" for key, value in result.settings.items() if key not in UNPRINTED]
    at = result.headline
    if at is not None:
        lines += ["", f"{heading(result, at)}:", "", *align(headline_rows(result, at))]
        lines += ["", legend(result)]
    if has_steps(result):
        lines += ["", *steps_heading(result), "", *align(step_rows(result))]
    for paragraph in notes(result):
        lines += ["", *paragraph]
    return lines


def legend(result: Any) -> str:
    """Return the meaning of the columns of the table of verdicts."""
    masked = any(
        "(x != " in name and is_worth_showing(result, name) for name in result.similarities
    )
    where = "\n(x != ...): over the pixels that differ from that value." if masked else ""
    return _LEGEND + where


def has_steps(result: Any) -> bool:
    """Return whether a result has more to tell of its steps than the headline."""
    return result.headline is None or len(result.steps) > 1


def steps_heading(result: Any) -> list[str]:
    """Return the lines above the table of steps."""
    adds = "each step adds one layer to those of the steps above"
    how = adds if is_cumulative(result) else "at each step, all other layers are trained"
    return [
        f"Invariance at each step ({how});",
        "D depends, N does not depend, I inconclusive:",
    ]


def notes(result: Any) -> list[list[str]]:
    """Return paragraphs on what limits the verdicts, each a list of lines."""
    alike = [
        f"{name}: its Spearman correlation, {short(e.spearman)}, is close to that of "
        f"x * noise, {short(e.noise_to_noise)}, so it cannot distinguish the two."
        for name, e in result.explained_by.items()
        if e.like_noise
    ]
    unchanged = sorted({name for step in result.steps for name in step.unchanged})
    named = ", ".join(unchanged[:3]) + (", ..." if len(unchanged) > 3 else "")
    kept = (
        f"{len(unchanged)} weights are unchanged, because the randomizer has only one value "
        f"for them: {named}"
    )
    cells = result.values[:, :, result.similarities.index(COSINE)]
    undefined = int((~np.isfinite(cells)).sum())
    missing = (
        f"Undefined, because a map is zero, constant or not finite: {undefined} of {cells.size}."
    )
    found = [alike, _reasons(result), [kept] * bool(unchanged), [missing] * bool(undefined)]
    return [paragraph for paragraph in found if paragraph]


def say_verdict(method: str, verdict: Verdict) -> str:
    """Return a verdict on a method in a sentence or two."""
    share, low, high = (f"{100 * x:.0f}" for x in (verdict.invariance, verdict.low, verdict.high))
    if verdict.verdict == INCONCLUSIVE:
        return f"{method}: undecided, because of this: {verdict.reason}."
    what = f"About {share} % of what they show stays the same (95 % interval: {low} to {high} %)"
    caveat = f". Note: {verdict.reason}" if verdict.reason else ""
    if verdict.verdict == DOES_NOT_DEPEND:
        told = "the maps hardly change, so they do not show what this network has learned"
    else:
        told = f"the maps depend on {verdict.verdict.partition(' on ')[2]}"
    return f"{method}: {told}. {what}{caveat}."


def is_cumulative(result: Any) -> bool:
    """Return whether each step contains the layers of the step before."""
    layers = [set(step.layers) for step in result.steps]
    return all(a < b for a, b in pairwise(layers))


def heading(result: Any, at: int) -> str:
    """Return what was changed at a step, in words."""
    record = result.steps[at]
    count = len(record.layers)
    if not count:
        return f"With {record.name}"
    names = " + ".join(record.layers[:3]) + (" + ..." if count > 3 else "")
    words = f"With new weights in {names} ({count} layer{'s' * (count > 1)}"
    if len(result.steps) > 1:
        return f"{words}; the upper layers, which distinguish the classes; other steps below)"
    return f"{words})"


def headline_rows(result: Any, at: int) -> list[list[str]]:
    """Return the table of verdicts at a step, with a row of names above."""
    compared = [s for s in result.similarities if is_worth_showing(result, s)]
    rows = [["method", "verdict", "invariance", "95 %", "alike", *compared, "edges", "defined"]]
    for m, (name, verdicts) in enumerate(result.verdicts.items()):
        v = verdicts[at]
        cells = [f"{short(v.same)} ({short(v.other)})"]
        for similarity in compared:
            s = result.similarities.index(similarity)
            value, chance = (nanmean(t[m, at, s]) for t in (result.values, result.chance))
            cells.append(short(value) + (f" ({short(chance)})" if np.isfinite(chance) else ""))
        rows.append(
            [
                name,
                v.verdict,
                short(v.invariance),
                f"{short(v.low)} to {short(v.high)}",
                *cells,
                short(result.explained_by[name].edges),
                f"{v.defined} of {v.cells}",
            ]
        )
    return rows


def is_worth_showing(result: Any, name: str) -> bool:
    """Return whether a similarity is neither part of the invariance nor a repetition."""
    if name in (COSINE, SIGNED):
        return False
    plain = name.partition(" (x != ")[0]
    if plain == name:
        return True
    own, other = (result.select(similarity=s) for s in (name, plain))
    differences = np.abs(own - other)
    return bool(np.nanmax(differences, initial=0.0) > _SAME)


def _reasons(result: Any) -> list[str]:
    """Return the reasons of verdicts, with the steps of the same reason on one line."""
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


def step_rows(result: Any) -> list[list[str]]:
    """Return the table of invariance at each step, with a row of names above."""
    rows = [["step", *result.methods]]
    for at, step in enumerate(result.steps):
        cells = [result.verdicts[name][at] for name in result.methods]
        rows.append([step.name, *(f"{short(v.invariance)} {_letter(v)}" for v in cells)])
    return rows


def _letter(verdict: Verdict) -> str:
    return {INCONCLUSIVE: "I", DOES_NOT_DEPEND: "N"}.get(verdict.verdict, "D")
