"""The parts of a report for its template: checks, maps, known answers and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..display.progress import Progress
from ..evaluation.result import Evaluation
from ..evaluation.text import (
    FEW,
    JUDGED,
    MEANS,
    RANKED,
    judged_rows,
    metric_rows,
    ranking_rows,
    say_undefined,
)
from ..evaluation.verdict import CHANCE, FEWEST
from ..saliency_maps import SaliencyMaps
from ..sanity.comparison_result import ModelComparison, verdict_rows
from ..sanity.csc import FORGETS, IN_PART, CSCProfile
from ..sanity.input_invariance import NOT_INVARIANT, SAME, UNKNOWN, InputInvariance
from ..sanity.result import SanityResult
from ..sanity.text import (
    has_steps,
    heading,
    headline_rows,
    legend,
    notes,
    say_verdict,
    step_rows,
    steps_heading,
)
from ..sanity.verdict import DOES_NOT_DEPEND, INCONCLUSIVE
from .comparison_figure import plot_comparison
from .csc_figure import plot_csc
from .evaluation_figures import plot_evaluation
from .invariance_figure import plot_invariance
from .maps_figure import name_classes, plot_maps, reduce_channels, unique_names
from .markup import encode_figure, encode_picture
from .sanity_figures import plot_similarities, tile_cascade
from .tiles import are_pictures, as_picture, color_map

_BYTES = 9_000_000  # of all pictures, before base64 makes a third more of them
_BYTES_A_PIXEL = 0.4  # of a map of noise
_SIDES = 64, 320  # pixels
Check = SanityResult | CSCProfile | InputInvariance
_SMALL = 100  # pixels; smaller images are drawn with visible pixels


def check_part(check: Check, progress: Progress) -> dict[str, Any]:
    """Return the parts of a check for the template."""
    if isinstance(check, SanityResult):
        found = _sanity_part(check)
    elif isinstance(check, CSCProfile):
        found = _csc_part(check)
    else:
        found = _invariance_part(check)
    progress.advance(1)
    return found


def _sanity_part(check: SanityResult) -> dict[str, Any]:
    at = check.headline
    verdicts = [
        (name, each[len(check.steps) - 1 if at is None else at])
        for name, each in check.verdicts.items()
    ]
    kinds = {DOES_NOT_DEPEND: "no", INCONCLUSIVE: "unsure"}
    step = check.steps[-1 if at is None else at].name
    return {
        "name": check.settings.get("check", "sanity check"),
        "heading": f"{heading(check, at)}:" if at is not None else f"At the last step, {step}:",
        "verdicts": [
            {"text": say_verdict(name, verdict), "kind": kinds.get(verdict.verdict, "yes")}
            for name, verdict in verdicts
        ],
        "table": headline_rows(check, at) if at is not None else None,
        "legend": legend(check),
        "steps": step_rows(check) if has_steps(check) else None,
        "steps_heading": " ".join(steps_heading(check)),
        "figure": encode_figure(plot_similarities(check)),
        "alt": "Invariance and similarities at each step",
        "cascade": encode_figure(tile_cascade(check)) if check.shown is not None else None,
        "notes": [" ".join(lines) for lines in notes(check)],
    }


def _csc_part(check: CSCProfile) -> dict[str, Any]:
    found = {
        "heading": f"Random vectors were passed back from {check.start}. Do they arrive at "
        f"{check.layers[-1]} as one and the same?",
        "legend": "Medians of |cosine| over positions and pairs of vectors, means over images; 1: "
        "what the layers above say is lost. Chance: vectors without any relation.",
        "figure": encode_figure(plot_csc(check)),
        "alt": "Cosines of each method at each layer",
    }
    return found | _short_part(check, {FORGETS: "no", IN_PART: "unsure"})


def _invariance_part(check: InputInvariance) -> dict[str, Any]:
    found = {
        "heading": f"A constant of {check.settings['shift']} was added to the images, and "
        "subtracted again by the network. Do its maps stay the same?",
        "legend": f"Change as a fraction of the norm of a map, mean over images; up to {SAME:g} "
        "is invariant.",
        "figure": encode_figure(plot_invariance(check)),
        "alt": "The change of each map",
    }
    return found | _short_part(check, {NOT_INVARIANT: "no", UNKNOWN: "unsure"})


def _short_part(check: CSCProfile | InputInvariance, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a check without randomized networks; kinds are those of verdicts."""
    verdicts = {name: check.verdict(name) for name in check.methods}
    return {
        "name": check.settings["check"].partition(":")[0],
        "verdicts": [
            {"text": f"{name}: {verdict}.", "kind": kinds.get(verdict, "yes")}
            for name, verdict in verdicts.items()
        ],
        "table": check.rows(),
        "steps": None,
        "steps_heading": "",
        "cascade": None,
        "notes": [],
    }


def maps_text(maps: SaliencyMaps | None) -> str:
    """Return the sentences above the maps."""
    if maps is None:
        return ""
    signed = [name for name in maps if (maps[name] < 0).any()]
    text = (
        "Each map has its own scale, with full color at its 99th percentile: from white, its "
        "minimum, to red."
    )
    if signed:
        text += f" {', '.join(signed)}: from blue, negative, to red; white is zero."
    over = " Maps lie over their image." if are_pictures(maps.images) else ""
    return f"{text} A constant map is gray.{over}"


def photo_parts(maps: SaliencyMaps, progress: Progress) -> list[dict[str, Any]]:
    """Return the images and their maps for the template."""
    tiles = len(maps.images) * (1 + len(maps))
    side = int(np.clip(np.sqrt(_BYTES / tiles / _BYTES_A_PIXEL), *_SIDES))
    photos = []
    for i, name in enumerate(unique_names(maps)):
        photos.append(_photo(maps, i, name, side))
        progress.advance(1)
    return photos


def _photo(maps: SaliencyMaps, i: int, name: str, side: int) -> dict[str, Any]:
    image = np.asarray(maps.images[i])
    classes = name_classes(maps, i)
    found: dict[str, Any] = {
        "index": i,
        "title": name,
        "label": f"{name}, {classes[0]}",
        "caption": ", ".join(classes),
        "background": None,
        "figure": None,
        "small": False,
    }
    if not are_pictures(maps.images):
        return {**found, "figure": encode_figure(plot_maps(maps.select(i), title=""))}
    h, w = image.shape[:2]
    painted = {name: color_map(reduce_channels(each[i], image)) for name, each in maps.items()}
    return {
        **found,
        "background": encode_picture(as_picture(image) * 255, side),
        "shape": f"{w} / {h}",
        "small": max(h, w) <= _SMALL,
        "maps": [
            {"name": name, "address": encode_picture(each, side, 70)}
            for name, each in painted.items()
        ],
    }


def evaluation_part(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Return the parts of an evaluation for the template."""
    if evaluation is None:
        return None
    few = evaluation.values.shape[-1] < FEWEST
    correct = evaluation.correct
    text = [
        f"{evaluation.values.shape[-1]} images. Numbers are {FEW if few else MEANS}. "
        f"{_direction_of(evaluation)} Names that are not methods are controls without a network"
        + ("; chance is the mean for shuffled maps." if CHANCE in evaluation.names else "."),
        f"Classified correctly: {np.mean(correct):.1%}." if correct is not None else "",
        say_undefined(evaluation),
    ]
    masks = CHANCE in evaluation.names
    return {
        "short": "Known answers" if masks else "Faithfulness",
        "heading": "Known answers: do the maps find the relevant pixels?"
        if masks
        else "Faithfulness: do the maps say what the score depends on?",
        "text": [line for line in text if line],
        "table": metric_rows(evaluation, " ({} to {})"),
        "figure": encode_figure(plot_evaluation(evaluation)),
        "judged": JUDGED,
        "verdicts": None if few else judged_rows(evaluation) or None,
        "ranked": RANKED,
        "ranking": None if few else [["metric", "ranking"], *ranking_rows(evaluation)],
    }


def _direction_of(evaluation: Evaluation) -> str:
    if set(evaluation.directions) <= {1}:
        return "A higher value is better."
    return "An arrow up marks metrics of which a higher value is better, an arrow down a lower one."


def comparison_part(comparison: ModelComparison | None) -> dict[str, Any] | None:
    """Return the parts of a comparison of two models for the template."""
    if comparison is None:
        return None
    names = comparison.settings
    return {
        "heading": f"Old model: {names['model']}. New model: {names['new model']}.",
        "table": verdict_rows(comparison),
        "notes": comparison.notes(),
        "figure": encode_figure(plot_comparison(comparison)),
    }
