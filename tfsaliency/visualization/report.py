"""A report of maps and checks in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from os import PathLike
from typing import Any, get_args

import keras
import numpy as np

from ..arrays import Array
from ..display.progress import Progress, Verbose
from ..engine.coverage import Coverage
from ..errors import OptionError
from ..evaluation.result import Evaluation
from ..records import digest_model
from ..saliency_maps import SaliencyMaps
from ..sanity.comparison_result import ModelComparison
from ..storage import replacing
from ..version import __version__
from .pages import coverage_rows
from .report_parts import (
    Check,
    check_part,
    comparison_part,
    evaluation_part,
    maps_text,
    photo_parts,
)
from .tiles import check_title

_TEMPLATE = "report.html.jinja"
_SCRIPT = """
document.documentElement.classList.add("scripted");
for (const input of document.querySelectorAll(".slider input")) {
  const show = () => input.closest("article").style.setProperty("--opacity", input.value / 100);
  input.addEventListener("input", show);
  show();
}
"""
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
    sanity: Check | Sequence[Check] | None = None,
    evaluation: Evaluation | None = None,
    comparison: ModelComparison | None = None,
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
        One result of a check, or several: SanityResult, CSCProfile or InputInvariance.
    evaluation
        A result of evaluate.
    comparison
        A result of compare_models.
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
    checks = _checked(maps, sanity, evaluation, comparison, model)
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
            summary=_summary(maps, checks, evaluation, comparison, model),
            checks=[check_part(each, progress) for each in checks],
            unsaid=_UNSAID,
            photos=[] if maps is None else photo_parts(maps, progress),
            maps_text=maps_text(maps),
            evaluation=evaluation_part(evaluation),
            comparison=comparison_part(comparison),
            coverage=_coverage(maps, checks, evaluation),
            problems=_problems(maps, checks, evaluation),
            record=_record(_parts(maps, checks, evaluation, comparison), own),
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


def _checked(
    maps: Any, sanity: Any, evaluation: Any, comparison: Any, model: Any
) -> tuple[Check, ...]:
    """Return the sanity checks as a tuple, or raise OptionError for results of another kind."""
    listed = sanity if isinstance(sanity, Iterable) else [sanity] if sanity is not None else []
    checks = tuple(listed)
    kinds = [
        ("maps", maps, SaliencyMaps),
        *(("sanity", check, Check) for check in checks),
        ("evaluation", evaluation, Evaluation),
        ("comparison", comparison, ModelComparison),
        ("model", model, keras.Model),
    ]
    for name, value, kind in kinds:
        if value is not None and not isinstance(value, kind):
            expected = " or ".join(each.__name__ for each in get_args(kind) or (kind,))
            raise OptionError(f"Expected {name} as {expected}. Received: {type(value).__name__}.")
    if maps is evaluation is comparison is None and not checks:
        raise OptionError(
            "Expected maps, sanity, evaluation or comparison to report. Received: none of them."
        )
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
    checks: Sequence[Check],
    evaluation: Evaluation | None,
    comparison: ModelComparison | None,
    model: keras.Model | None,
) -> list[str]:
    """Return the first sentences: what was explained, with which model, how and when."""
    results = (maps, *checks, evaluation, comparison)
    every = [each.settings for each in results if each is not None]
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


def _parts(
    maps: SaliencyMaps | None,
    checks: Sequence[Check],
    evaluation: Evaluation | None,
    comparison: ModelComparison | None = None,
) -> list[tuple[str, Any]]:
    """Return all results with their titles."""
    named = [(f"check: {check.settings.get('check', 'sanity')}", check) for check in checks]
    every = [("maps", maps), *named, ("evaluation", evaluation), ("comparison", comparison)]
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
        f"{title}: {each}"
        for title, result in _parts(*results)
        for each in getattr(result, "problems", ())
    ]


def _record(results: Sequence[tuple[str, Any]], own: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return versions, settings, seeds and digests of all that the report shows."""
    parts = [("Model", {"name": own["model"], "weights": own["weights"]})] if own else []
    for title, result in results:
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
