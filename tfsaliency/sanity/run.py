"""What all checks share: what is checked, what is run beside it, and the result with verdicts."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from .arrays import Array, nanmean, storable
from .controls import explain
from .draws import Draw, Drawn, Unit, draw_weights, units_of
from .endpoints import Model
from .errors import ModelError, OptionError
from .maps import attributions
from .measuring import COSINE, SIGNED, Measured, Subject, Variant, measure
from .methods import Method, resolve_methods
from .prepared import Prepared, Preprocess, as_prepared
from .problems import Problem, Problems
from .randomization import Plan, Step, new_weights, order_of_use, plan_steps
from .results import SanityResult, Shown, StepRecord
from .scores import TOP_CLASS, Score
from .similarity import SIMILARITIES, resolve_similarities
from .verdicts import CHANCE_LIMIT, INCONCLUSIVE, PARAMETERS, Verdict, verdict_of
from .version import __version__

_IMAGE_AXES = 4


class Options(NamedTuple):
    """What a check is called, and how maps are compared; see sanity_check."""

    similarities: Any
    baseline: float
    verbose: int
    name: str = "parameter randomization"


def subject_of(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method],
    targets: Any,
    score: str | Score | None,
    preprocess: Preprocess | None,
    batch_size: int,
) -> Subject:
    """Return what is checked, with the maps of the trained network; see sanity_check."""
    resolved = resolve_methods(methods)
    prepared = as_prepared(model, resolved, score, preprocess)
    batch = prepared.check(images)
    if batch.images.ndim != _IMAGE_AXES:
        raise OptionError(
            "Expected images (n, h, w, c) to check, as the similarities are of images. "
            f"Received: {batch.images.shape}."
        )
    trained = attributions(
        prepared, images, resolved, targets=targets, batch_size=batch_size, on_problem="ignore"
    )
    trace = prepared.trace(resolved, batch)
    return Subject(prepared, resolved, batch, trace, trained, batch_size)


def check_parameters(
    subject: Subject,
    plan: Plan,
    draw: Draw,
    seeds: int | Sequence[int],
    retarget: bool,
    options: Options,
) -> SanityResult:
    """Return the result of parameter randomization; see sanity_check."""
    model = subject.prepared.model
    order: tuple[int, ...] = ()
    if isinstance(model, keras.Model):
        units = units_of(model)
        order = order_of_use(model, units, subject.trace.used)
    if not isinstance(model, keras.Model) or not order:
        raise ModelError(
            "Expected a keras.Model whose score depends on weights of its layers, to draw them "
            f"anew. Received: {type(model).__name__}."
        )
    steps = plan_steps(plan, units, order)
    numbers = seeds_of(seeds)
    targets = subject.trained.targets
    if retarget:
        targets = np.full_like(targets, TOP_CLASS)
    record: dict[int, Drawn] = {}
    digests: dict[int, set[bytes]] = {position: set() for position in order}
    before = fingerprint(model)

    def variants() -> Iterator[Variant]:
        for r, seed in enumerate(numbers):
            drawn: dict[int, Drawn] = {}
            for k, step in enumerate(steps):
                for position in step.units:
                    if position not in drawn:
                        drawn[position] = draw_weights(units[position], draw, seed, position)
                weights = new_weights(units, step, drawn, model.weights)
                yield Variant(k, r, weights, targets)
            record.update(drawn)
            for position, found in drawn.items():
                digests[position].add(_digest(found.arrays))
        if fingerprint(model) != before:
            raise ModelError(
                "The model's weights changed while it was checked. Expected a model that nothing "
                "else trains or assigns to meanwhile."
            )

    measured = measured_by(subject, len(steps), numbers, variants(), options)
    records = tuple(_record(step, units, record) for step in steps)
    repeated = {
        k
        for k, step in enumerate(steps)
        if len(numbers) > 1 and all(len(digests[position]) == 1 for position in step.units)
    }
    settings = {
        "check": f"{options.name}, {_plan_text(plan, steps)}",
        "draw": draw.name,
        "moving statistics": _statistics(units, record),
        "target": "each network's own top class" if retarget else "fixed on the trained network",
    }
    others = subject.trace.others
    if others:
        settings["not randomized"] = f"{others} variables that are no weights of layers"
    at = _headline(plan, len(steps))
    return result_of(subject, measured, records, numbers, at, PARAMETERS, settings, repeated)


def measured_by(
    subject: Subject,
    steps: int,
    seeds: Sequence[int],
    variants: Iterator[Variant],
    options: Options,
) -> Measured:
    """Measure variants by the similarities that were asked for, and by Spearman's in any case."""
    wanted = resolve_similarities(options.similarities)
    if isinstance(options.baseline, bool) or not isinstance(options.baseline, (int, float)):
        raise OptionError(f"Expected baseline as a number. Received: {options.baseline!r}.")
    if all(similarity.name != "spearman" for similarity in wanted):
        wanted = (SIMILARITIES["spearman"], *wanted)  # controls need it
    return measure(subject, steps, len(seeds), variants, wanted, options.baseline, options.verbose)


def result_of(
    subject: Subject,
    measured: Measured,
    steps: tuple[StepRecord, ...],
    seeds: tuple[int, ...],
    headline: int | None,
    of: str,
    settings: Mapping[str, str],
    repeated: Collection[int] = (),
) -> SanityResult:
    """Return the result of what was measured: verdicts, controls, and what was asked for.

    Parameters
    ----------
    subject, measured
        What was checked, and its numbers.
    steps, seeds
        What was randomized, and by which seeds.
    headline
        The index of the step to quote.
    of
        What was randomized, in words.
    settings
        What was asked for.
    repeated
        The indices of steps at which all seeds gave the same network.
    """
    trained, methods = subject.trained, tuple(method.name for method in subject.methods)
    verdicts = {
        method: tuple(
            _verdict(measured, m, k, step, of, k in repeated) for k, step in enumerate(steps)
        )
        for m, method in enumerate(methods)
    }
    at = len(steps) - 1 if headline is None else headline
    quoted = measured.values[:, at, measured.similarities.index("spearman")]
    inputs = subject.batch.images_in
    explained_by = explain(
        dict(zip(methods, measured.trained, strict=True)),
        inputs,
        {method: nanmean(quoted[m]) for m, method in enumerate(methods)},
    )
    alike = tuple(name for name in methods if verdicts[name][at].other >= CHANCE_LIMIT)
    problems = trained.problems
    twins = _twins(inputs)
    if twins:
        problems = Problems((*problems, Problem("same_image", twins)))
    if alike:
        largest = max(verdicts[name][at].other for name in alike)
        everywhere = tuple(range(len(inputs)))
        found = Problem("alike_maps", everywhere, alike, f"on average {largest:.2f}")
        problems = Problems((*problems, found))
    n = len(inputs)
    counts = {"photos": str(n), "seeds": ", ".join(map(str, seeds))}
    said = {**settings, **described(subject.prepared, trained.score, counts)}
    if subject.smoothing is not None:
        samples, noise = subject.smoothing
        said["maps"] = f"averaged over {samples} images with noise of {noise:g} of max - min"
    return SanityResult(
        measured.values,
        measured.floors,
        methods,
        steps,
        measured.similarities,
        trained.names or tuple(map(str, range(n))),
        seeds,
        trained.targets,
        trained.scores.astype(np.float64),
        verdicts,
        headline,
        explained_by,
        trained.coverage,
        said,
        problems,
        Shown(storable(trained.images[0]), measured.steps, measured.maps),
    )


def _twins(images: Array) -> tuple[int, ...]:
    """Return the indices of images that are given more than once."""
    keys = [image.tobytes() for image in images]
    return tuple(i for i, key in enumerate(keys) if keys.count(key) > 1)


def described(prepared: Prepared, score: str, counts: Mapping[str, str]) -> dict[str, str]:
    """Return what a result says of the model, with how much was run, and of the score."""
    preprocess = prepared.preprocess
    return {
        "model": str(getattr(prepared.model, "name", "a function")),
        **counts,
        "score": score,
        "preprocess": "none"
        if preprocess is None
        else getattr(preprocess, "__qualname__", repr(preprocess)),
        "versions": f"tfsaliency {__version__}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}",
    }


def _verdict(
    measured: Measured, m: int, k: int, step: StepRecord, of: str, repeated: bool
) -> Verdict:
    cosine, signed = map(measured.similarities.index, (COSINE, SIGNED))
    values, floors = measured.values[m, k], measured.floors[m, k]
    verdict = verdict_of(values[cosine].T, floors[cosine].T, values[signed].T, of)
    if step.layers and len(step.unchanged) == step.tensors:
        reason = "no weight changed: the draw returned none, or what they were"
        return replace(verdict, verdict=INCONCLUSIVE, reason=reason)
    if repeated:
        reason = "the draw gave every seed the same weights, as good as 1 seed"
        return replace(verdict, verdict=INCONCLUSIVE, reason=reason)
    return verdict


def _record(step: Step, units: Sequence[Unit], drawn: Mapping[int, Drawn]) -> StepRecord:
    names = tuple(units[position].path for position in step.units)
    found = [drawn[position] for position in step.units]
    tensors = sum(array is not None for each in found for array in each.arrays)
    return StepRecord(step.name, names, tensors, tuple(n for each in found for n in each.unchanged))


def _headline(plan: Plan, steps: int) -> int | None:
    """Return the step to quote: of a cascade that after two layers, else one that is alone."""
    if plan == "cascade":
        return min(1, steps - 1)
    return 0 if steps == 1 else None


def _plan_text(plan: Plan, steps: Sequence[Step]) -> str:
    if isinstance(plan, str):
        return f"{plan} of {len(steps[-1].units) if plan == 'all' else len(steps)} layers"
    return f"{', '.join(step.name for step in steps)}" + (" alone" if len(steps) > 1 else "")


def _statistics(units: Sequence[Unit], drawn: Mapping[int, Drawn]) -> str:
    """Say what became of the moving statistics of batch normalizations."""
    arrays = [
        array
        for position, found in drawn.items()
        for array in found.arrays[len(units[position].parameters) :]
    ]
    if not arrays:
        return "none"
    return "kept" if all(array is None for array in arrays) else "reset"


def seeds_of(seeds: Any) -> tuple[int, ...]:
    """Return the seeds: those given, or as many as said."""
    try:
        listed = seeds if isinstance(seeds, (list, tuple, range)) else range(operator.index(seeds))
        numbers = tuple(map(operator.index, listed))
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers) or seeds is True:
        raise OptionError(
            "Expected seeds as a number of them, at least 1, or a list of different whole numbers "
            f"from 0. Received: {seeds!r}."
        )
    return numbers


def fingerprint(model: keras.Model) -> bytes:
    """Return what tells the weights of a model from others."""
    return _digest(weight.numpy() for weight in model.weights)


def _digest(arrays: Iterable[Array | None]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"" if array is None else array.tobytes())
    return digest.digest()
