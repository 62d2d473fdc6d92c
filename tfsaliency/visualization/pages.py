"""Results in notebooks: static HTML without scripts, in the colors of the notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..arrays import Array
from ..engine.coverage import Coverage
from ..evaluation.result import Evaluation
from ..evaluation.text import FEW, JUDGED, MEANS, RANKED, judged_rows, metric_rows, ranking_rows
from ..evaluation.verdict import FEWEST
from ..saliency_maps import SaliencyMaps
from ..sanity.comparison_result import ModelComparison, verdict_rows
from ..sanity.csc import CSCProfile
from ..sanity.input_invariance import InputInvariance
from ..sanity.result import SanityResult
from ..sanity.text import (
    has_steps,
    heading,
    headline_rows,
    legend,
    notes,
    step_rows,
    steps_heading,
)
from ..sanity.verdict import Verdict
from ..tables import short
from .maps_figure import describe_image, plot_maps, reduce_channels
from .markup import LEFT, encode_figure, encode_picture, paragraphs, picture_tag, table
from .tiles import are_pictures, as_picture, color_map

_IMAGES, _METHODS, _SIDE = 4, 6, 128  # of a preview: images, methods, pixels


def maps_page(maps: SaliencyMaps) -> str:
    """Return SaliencyMaps as HTML: the first images and maps, coverage and problems."""
    shown, names = maps[:_IMAGES], list(maps)[:_METHODS]
    parts = [f"<p><b>{escape(repr(maps))}</b></p>", _preview(shown, names)]
    left = {"images": len(maps.images) - len(shown.images), "methods": len(maps) - len(names)}
    hidden = [f"{count} {what}" for what, count in left.items() if count]
    parts.append(paragraphs([f"Not shown: {' and '.join(hidden)}."] * bool(hidden)))
    parts.append(coverage_page(list(maps.coverage.values())))
    parts.append(paragraphs(list(map(str, maps.problems))))
    return "".join(parts)


def _preview(maps: SaliencyMaps, names: Sequence[str]) -> str:
    """Return a table of images and their maps, or a figure of what are no pictures."""
    alt = f"images and their maps by {', '.join(names)}"
    if not are_pictures(maps.images):
        return picture_tag(encode_figure(plot_maps(maps, names, title=""), 72), alt)
    head = "".join(
        f'<th scope="col" style="{LEFT}">{escape(name)}</th>' for name in ("image", *names)
    )
    rows = []
    for i in range(len(maps.images)):
        caption = escape(describe_image(maps, i)).replace("\n", "<br>")
        pictures = [as_picture(maps.images[i]) * 255]
        pictures += [color_map(reduce_channels(maps[name][i], maps.images[i])) for name in names]
        cells = [
            f"<td>{_thumbnail(picture, name)}</td>"
            for picture, name in zip(pictures, ("image", *names), strict=True)
        ]
        rows.append(f'<tr>{"".join(cells)}<td style="{LEFT}">{caption}</td></tr>')
    return f"<table><thead><tr>{head}<td></td></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _thumbnail(picture: Array, name: str) -> str:
    return (
        f'<img src="{encode_picture(picture, _SIDE)}" alt="{escape(name)}" '
        f'style="width:{_SIDE}px;max-width:none">'
    )


def coverage_page(coverages: Sequence[Coverage]) -> str:
    """Return the ReLUs that the rules of methods govern, as a table."""
    return table(coverage_rows(coverages))


def coverage_rows(coverages: Sequence[Coverage]) -> list[list[str]]:
    """Return the table of coverage, with a row of names above."""
    rows = [["method", "ReLUs reached", "engine", "keep their own derivative", "layer"]]
    for each in coverages:
        reached = f"{each.reached} of {each.relus}" if each.relus else "no ReLUs"
        leaky = f", {each.leaky} of them leaky" if each.leaky else ""
        layers = "; ".join(map(str, each.grids))
        rows.append(
            [each.rule, reached + leaky, each.engine, " and ".join(each.kept) or "none", layers]
        )
    return rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]


def verdict_page(verdict: Verdict) -> str:
    """Return a Verdict as a table of one row."""
    names = ["verdict", "invariance", "95 % interval", "alike", "by chance", "defined"]
    cells = [
        verdict.verdict,
        short(verdict.invariance),
        f"{short(verdict.low)} to {short(verdict.high)}",
        short(verdict.same),
        short(verdict.other),
        f"{verdict.defined} of {verdict.cells}",
    ]
    return table([names, cells]) + paragraphs([verdict.reason] * bool(verdict.reason))


def sanity_page(result: SanityResult) -> str:
    """Return a SanityResult as HTML: verdicts, steps, and what limits them."""
    at, parts = result.headline, [_settings(result.settings)]
    if at is not None:
        title = f"<p><b>{escape(heading(result, at))}</b></p>"
        parts += [title, table(headline_rows(result, at)), paragraphs([legend(result)])]
    if has_steps(result):
        steps = f"<summary>{escape(' '.join(steps_heading(result)))}</summary>"
        opened = " open" if at is None else ""
        parts.append(f"<details{opened}>{steps}{table(step_rows(result))}</details>")
    parts.append(paragraphs([" ".join(lines) for lines in notes(result)]))
    return "".join([*parts, paragraphs(list(map(str, result.problems)))])


def evaluation_page(result: Evaluation) -> str:
    """Return an Evaluation as HTML: the metrics, the verdicts, and the ranking by each."""
    parts = [_settings(result.settings), table(metric_rows(result, " ({} to {})"))]
    if result.values.shape[-1] < FEWEST:
        parts.append(paragraphs([FEW]))
    else:
        ranking = table([["metric", "ranking"], *ranking_rows(result)])
        parts.append(paragraphs([MEANS]))
        if judged := judged_rows(result):
            parts += [paragraphs([JUDGED]), table(judged)]
        parts += [f"<details><summary>{RANKED}</summary>{ranking}</details>"]
    return "".join([*parts, paragraphs(list(map(str, result.problems)))])


def comparison_page(result: ModelComparison) -> str:
    """Return a ModelComparison as HTML: the verdicts, and the photos that changed most."""
    parts = [_settings(result.settings), table(verdict_rows(result))]
    return "".join([*parts, paragraphs(result.notes())])


def csc_page(result: CSCProfile) -> str:
    """Return a CSCProfile as HTML: the cosines of each layer, and the verdicts."""
    parts = [_settings(result.settings), table(result.rows())]
    return "".join([*parts, paragraphs(result.verdict_lines())])


def invariance_page(result: InputInvariance) -> str:
    """Return an InputInvariance as HTML: the change and the verdict of each method."""
    return _settings(result.settings) + table(result.rows())


def _settings(settings: Mapping[str, str]) -> str:
    lines = [escape(f"{key}: {value}") for key, value in settings.items()]
    return f"<details><summary>Settings</summary><p>{'<br>'.join(lines)}</p></details>"
