"""Evaluations in words and tables, for printing, notebooks and reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..tables import UNPRINTED, align, short
from .verdict import BETTER, CHANCE, FEWEST, NO_BETTER, UNKNOWN

FEW = f"means; intervals and a ranking need at least {FEWEST} images"
MEANS = "means, with 95 % intervals over images"
RANKED = "From best to worst; = marks a difference from the first of the group that may be chance:"
JUDGED = "Better than noise, edges, a blob and the method's own map of another photo?"
_ANSWERS = {BETTER: "yes", NO_BETTER: "no", UNKNOWN: "cannot tell"}
_COLUMNS = 5  # of a printed table


def lines(result: Any) -> list[str]:
    """Return the lines that an evaluation prints."""
    lines = [f"{key}: {value}" for key, value in result.settings.items() if key not in UNPRINTED]
    if result.correct is not None:
        lines.append(f"classified correctly: {np.mean(result.correct):.1%}")
    for rows in _side_by_side(metric_rows(result)):
        lines += ["", *align(rows)]
    lines.append("")
    if result.values.shape[-1] < FEWEST:
        lines.append(FEW)
    else:
        lines += [MEANS, "", RANKED, "", *align(ranking_rows(result))]
        if judged := judged_rows(result):
            lines += ["", JUDGED]
            for rows in _side_by_side(judged):
                lines += ["", *align(rows)]
    undefined = say_undefined(result)
    return [*lines, "", undefined] if undefined else lines


def _side_by_side(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    """Divide a table into tables of a few columns each, beside the column of names."""
    for start in range(1, len(rows[0]), _COLUMNS):
        yield [[row[0], *row[start : start + _COLUMNS]] for row in rows]


def judged_rows(result: Any) -> list[list[str]]:
    """Return the table of verdicts, with a row of names above; empty if no metric judges."""
    judging = judging_metrics(result)
    if not judging or not result.controls:
        return []
    rows = [["", *judging]]
    for method in result.methods:
        verdicts = (result.verdict(method, metric).verdict for metric in judging)
        rows.append([method, *(_ANSWERS[verdict] for verdict in verdicts)])
    return rows


def metric_rows(result: Any, interval: str = "  {} to {}") -> list[list[str]]:
    """Return the table of metrics with their intervals, with a row of names above."""
    arrows = {1: " ↑", -1: " ↓", 0: ""} if set(result.directions) - {1} else {1: ""}
    rows = [["", *(metric + arrows[result.direction(metric)] for metric in result.metrics)]]
    for name in result.names:
        cells = []
        for metric in result.metrics:
            low, high = result.interval(name, metric)
            known = name != CHANCE and np.isfinite((low, high)).all()
            spread = interval.format(short(low), short(high)) if known else ""
            mean = result.mean(name, metric)
            unknown = name == CHANCE and not np.isfinite(mean)
            cells.append("" if unknown else short(mean) + spread)
        rows.append([name, *cells])
    return rows


def ranking_rows(result: Any) -> list[list[str]]:
    """Return the ranking by each metric that tells better from worse."""
    judging = judging_metrics(result)
    groups = map(result.ranking, judging)
    rankings = [" > ".join(map(" = ".join, each)) for each in groups]
    return [list(row) for row in zip(judging, rankings, strict=True)]


def judging_metrics(result: Any) -> list[str]:
    """Return the metrics that tell better from worse."""
    return [metric for metric in result.metrics if result.direction(metric)]


def say_undefined(result: Any) -> str:
    """Return the number of undefined values in words; "" if there are none."""
    undefined = int((~np.isfinite(result.values)).sum())
    what = "a map is constant or not finite, a mask is empty, or a metric divides by zero"
    return f"Undefined, because {what}: {undefined} of {result.values.size}." if undefined else ""
