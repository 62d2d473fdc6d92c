"""A report of maps and checks in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from os import PathLike
from typing import Any

import keras
import numpy as np

from ..arrays import Array
from ..display.progress import Progress, Verbose
from ..engine.coverage import Coverage
from ..errors import OptionError
from ..evaluation.result import (
    FEW,
    FEWEST,
    MEANS,
    RANKED,
    Evaluation,
    metric_rows,
    ranking_rows,
    say_undefined,
)
from ..records import digest_model
from ..saliency_maps import SaliencyMaps
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
from ..storage import replacing
from ..version import __version__
from .evaluation_figures import plot_evaluation
from .maps_figure import name_classes, plot_maps, reduce_channels, unique_names
from .markup import encode_figure, encode_picture
from .pages import coverage_rows
from .sanity_figures import plot_similarities, tile_cascade
from .tiles import are_pictures, as_picture, check_title, color_map

_TEMPLATE = "report.html.jinja"
_SCRIPT = """
document.documentElement.classList.add("scripted");
for (const input of document.querySelectorAll(".slider input")) {
  const show = () => input.closest("article").style.setProperty("--opacity", input.value / 100);
  input.addEventListener("input", show);
  show();
}
"""
_BYTES = 9_000_000  # of all pictures, before base64 makes a third more of them
_BYTES_A_PIXEL = 0.4  # of a map of noise
_SIDES = 64, 320  # pixels
_SMALL = 100  # pixels; smaller images are drawn with visible pixels
_UNSAID = (
    "Whether a map is right. A map that depends on the network may still miss what the network "
    "uses; known answers and faithfulness metrics test that.",
    "Whether the network is right, fair or safe. A map can show a good reason for a wrong answer.",
    "Anything about other photos, layers or networks. The intervals cover the choice among photos "
    "like these, and of random seeds.",
    "That a method is useless if it does not depend on the network. It may find objects, as an "
    "edge detector does, but it cannot explain this network's decision.",
)


def write_report(
    path: str | PathLike[str],
    maps: SaliencyMaps | None = None,
    sanity: SanityResult | Sequence[SanityResult] | None = None,
    evaluation: Evaluation | None = None,
    *,
    model: keras.Model | None = None,
    title: str = "Saliency report",
    verbose: Verbose = "auto",
) -> None:
    """Write a report of maps, checks and an evaluation to one HTML file.

    The file has its pictures and styles inside, loads nothing, and can be mailed, printed and read
    on a phone. A slider fades the maps of each photo; all else works without scripts. Names of
    photos and classes are escaped.

    Parameters
    ----------
    path
        Path of the file. An existing file is replaced once the new one is complete.
    maps
        Maps (n, h, w) of n images. Pictures are at most 320 pixels wide, less if there are many, so
        that 50 photos take less than 15 MB.
    sanity
        One result of a sanity check, or several.
    evaluation
        A result of evaluate.
    model
        The explained model, for its size and the digest of its weights.
    title
        The title of the page.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    None

    Raises
    ------
    OptionError
        If there is nothing to report, or a result is of another kind.
    ImportError
        If jinja2 is not installed, which the extra "report" brings.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292 (the question of the verdicts).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> model, images = synthetic.shapes_model(), synthetic.make_shapes(2, seed=0).images
    >>> tfs.write_report("report.html", tfs.saliency_map(model, images), model=model)
    >>> open("report.html").read().count("<article")
    2
    """
    template = load_template()
    checks = _checked(maps, sanity, evaluation, model)
    check_title(title)
    own = {}
    if model is not None:
        own = {"model": model.name, "weights": f"sha256 {digest_model(model).weights}"}
    _check_model(_parts(maps, checks, evaluation), own)
    script_hash = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    count = 0 if maps is None else len(maps.images)
    with Progress(verbose, count + len(checks), "part", "report") as progress:
        text = template.render(
            version=__version__,
            title=title,
            script=_SCRIPT,
            script_hash=f"sha256-{script_hash}",
            summary=_summary(maps, checks, evaluation, model),
            checks=[_check(each, progress) for each in checks],
            unsaid=_UNSAID,
            photos=[] if maps is None else _photos(maps, progress),
            maps_text=_maps_text(maps),
            evaluation=_evaluation(evaluation),
            coverage=_coverage(maps, checks, evaluation),
            problems=_problems(maps, checks, evaluation),
            record=_record(maps, checks, evaluation, own),
        )
    with replacing(path, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # file names may be no text


def load_template() -> Any:
    """Return the template of the page, or raise ImportError without jinja2."""
    try:
        import jinja2  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "Expected jinja2, which fills in the report. Received: an environment without it. "
            "Install it: pip install 'tfsaliency[report]', or pip install jinja2."
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source)


def _checked(maps: Any, sanity: Any, evaluation: Any, model: Any) -> tuple[SanityResult, ...]:
    """Return the sanity checks as a tuple, or raise OptionError for results of another kind."""
    listed = sanity if isinstance(sanity, Iterable) else [sanity] if sanity is not None else []
    checks = tuple(listed)
    kinds = [
        ("maps", maps, SaliencyMaps),
        *(("sanity", check, SanityResult) for check in checks),
        ("evaluation", evaluation, Evaluation),
        ("model", model, keras.Model),
    ]
    for name, value, kind in kinds:
        if value is not None and not isinstance(value, kind):
            raise OptionError(
                f"Expected {name} as {kind.__name__}. Received: {type(value).__name__}."
            )
    if maps is None and evaluation is None and not checks:
        raise OptionError("Expected maps, sanity or evaluation to report. Received: none of them.")
    return checks


def _check_model(parts: Sequence[tuple[str, Any]], own: Mapping[str, str]) -> None:
    """Raise OptionError if a result is of a model of another name, or of other weights."""
    for title, result in parts:
        for key, value in own.items():
            if result.settings.get(key, value) != value:
                raise OptionError(
                    f"Expected the model of all results. The {title} has another {key}: "
                    f"{result.settings[key]}. Received: {value}."
                )


def _models(*results: Any) -> list[str]:
    """Return a sentence for each part of a report of several models, else none."""
    parts, keys = _parts(*results), ("model", "weights")
    differ = [len({r.settings[k] for _, r in parts if k in r.settings}) > 1 for k in keys]
    if not any(differ):
        return []
    named = "; ".join(f"{title}: {r.settings.get('model', 'not recorded')}" for title, r in parts)
    what = "models" if differ[0] else "weights of the model"
    return [f"These results are of different {what}. {named}."]


def _summary(
    maps: SaliencyMaps | None,
    checks: Sequence[SanityResult],
    evaluation: Evaluation | None,
    model: keras.Model | None,
) -> list[str]:
    """Return the first sentences: what was explained, with which model, how and when."""
    every = [each.settings for each in (maps, *checks, evaluation) if each is not None]
    names = {model.name} if model is not None else {s["model"] for s in every if "model" in s}
    lines = [f"Model: {', '.join(sorted(names)) or 'not recorded'}."]
    if model is not None:
        lines[0] = f"Model: {model.name}, {model.count_params():,} parameters."
    if maps is not None:
        n = len(maps.images)
        size = " x ".join(map(str, maps.images.shape[1:]))
        plural = "" if n == 1 else "s"
        lines.append(
            f"Explained: the {maps.score} of {n} image{plural} ({size}), by {', '.join(maps)}."
        )
    scores = {s["score"] for s in every if "score" in s} - {maps.score if maps else ""}
    if scores:
        lines.append(f"Score of the checks: {', '.join(sorted(scores))}.")
    lines += _models(maps, checks, evaluation)
    return [*lines, f"Written on {datetime.now(UTC):%Y-%m-%d, %H:%M} UTC."]


def _check(check: SanityResult, progress: Progress) -> dict[str, Any]:
    """Return the parts of a sanity check for the template."""
    at = check.headline
    verdicts = [
        (name, each[len(check.steps) - 1 if at is None else at])
        for name, each in check.verdicts.items()
    ]
    kinds = {DOES_NOT_DEPEND: "no", INCONCLUSIVE: "unsure"}
    step = check.steps[-1 if at is None else at].name
    found = {
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
        "curves": encode_figure(plot_similarities(check)),
        "cascade": encode_figure(tile_cascade(check)) if check.shown is not None else None,
        "notes": [" ".join(lines) for lines in notes(check)],
    }
    progress.advance(1)
    return found


def _maps_text(maps: SaliencyMaps | None) -> str:
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


def _photos(maps: SaliencyMaps, progress: Progress) -> list[dict[str, Any]]:
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


def _evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    few = evaluation.values.shape[-1] < FEWEST
    correct = evaluation.correct
    text = [
        f"{evaluation.values.shape[-1]} images with masks of the relevant pixels; a higher value "
        f"is better. Numbers are {FEW if few else MEANS}. Names that are not methods are controls "
        "without a network; chance is the mean for shuffled maps.",
        f"Classified correctly: {np.mean(correct):.1%}." if correct is not None else "",
        say_undefined(evaluation),
    ]
    return {
        "text": [line for line in text if line],
        "table": metric_rows(evaluation, " ({} to {})"),
        "figure": encode_figure(plot_evaluation(evaluation)),
        "ranked": RANKED,
        "ranking": None if few else [["metric", "ranking"], *ranking_rows(evaluation)],
    }


def _parts(
    maps: SaliencyMaps | None, checks: Sequence[SanityResult], evaluation: Evaluation | None
) -> list[tuple[str, Any]]:
    """Return all results with their titles."""
    named = [(f"check: {check.settings.get('check', 'sanity')}", check) for check in checks]
    every = [("maps", maps), *named, ("evaluation", evaluation)]
    return [(title, result) for title, result in every if result is not None]


def _coverage(*results: Any) -> list[dict[str, Any]]:
    """Return the tables of coverage of all results, equal ones once."""
    titles: dict[tuple[Coverage, ...], list[str]] = {}
    for title, result in _parts(*results):
        titles.setdefault(tuple(result.coverage.values()), []).append(title)
    return [
        {"title": "; ".join(named), "rows": coverage_rows(each)} for each, named in titles.items()
    ]


def _problems(*results: Any) -> list[str]:
    return _models(*results) + [
        f"{title}: {each}" for title, result in _parts(*results) for each in result.problems
    ]


def _record(
    maps: SaliencyMaps | None,
    checks: Sequence[SanityResult],
    evaluation: Evaluation | None,
    own: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return versions, settings, seeds and digests of all that the report shows."""
    parts = [("Model", {"name": own["model"], "weights": own["weights"]})] if own else []
    for title, result in _parts(maps, checks, evaluation):
        entries = dict(result.settings)
        if isinstance(result, SaliencyMaps):
            arrays = {"images": result.images, **result.maps}
            entries |= {"score": result.score, **{n: _digest(a) for n, a in arrays.items()}}
        else:
            entries["values"] = _digest(result.values)
        parts.append((title.capitalize(), entries))
    parts.append(("Report", {"written by": f"tfsaliency {__version__}"}))
    return [{"title": title, "entries": list(entries.items())} for title, entries in parts]


def _digest(array: Array) -> str:
    return f"sha256 {hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}"
