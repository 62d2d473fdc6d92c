"""Sanity checks: whether maps change when what they claim to explain is changed.

Each check says what is run beside the trained network: other weights, or another class; measuring
runs it and compares the maps; the numbers and the verdicts on them are a SanityResult.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np

from .arrays import nanmean
from .controls import explain
from .draws import Draw, Drawn, Unit, draw_named, draw_weights, units_of
from .endpoints import Model
from .errors import ModelError, OptionError
from .maps import attributions
from .measuring import COSINE, SIGNED, Measured, Smoothing, Subject, Variant, measure
from .methods import Method, resolve_methods
from .prepared import Prepared, Preprocess, as_prepared
from .problems import Problem, Problems, tell
from .randomization import Plan, Step, new_weights, order_of_use, plan_steps
from .results import SanityResult, Shown, StepRecord
from .scores import TOP_CLASS, Score
from .similarity import SIMILARITIES, Similarity, emprt, resolve_similarities
from .verdicts import CHANCE_LIMIT, INCONCLUSIVE, PARAMETERS, Verdict, verdict_of

_IMAGE_AXES = 4


def sanity_check(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    plan: Plan = "cascade",
    draw: str | Draw = "own_initializer",
    similarities: str | Similarity | Sequence[str | Similarity] = ("spearman", "ssim"),
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    retarget: bool = False,
    baseline: float = 0.0,
    batch_size: int = 32,
    on_problem: str = "warn",
    verbose: int = 1,
) -> SanityResult:
    """Check whether maps depend on the weights of the network that they claim to explain.

    Layers get new random weights, step by step, and the maps of the same photos for the same
    class are compared with those of the trained network.

    Parameters
    ----------
    model, images, methods, targets, score, preprocess, batch_size, on_problem
        As for gradient_map; images (n, h, w, c), 8 or more of different things.
    plan
        "cascade" (step k: the last k layers with weights), "bottom_up" (the first k),
        "independent" (one layer at a time, from the last to the first), "all" (one step), or a
        list of layer names, a step each; names in a tuple are one step together. "outer/inner" is
        a layer inside another, "outer" all layers inside.
    draw
        How weights are drawn: a key of DRAWS or a Draw. Those that use initializers reset the
        moving statistics of batch normalizations, the others keep them; the settings say so.
    similarities
        Keys of SIMILARITIES, or Similarity objects, reported beside the verdict. "spearman" is
        always computed.
    seeds
        How many random networks a step has, or their seeds.
    retarget
        Explain each network's own top class, as the MATLAB original and the code of Adebayo et
        al. do, instead of the trained network's. Then a change of class is a change of map.
    baseline
        The value in the (preprocessed) image that says nothing: similarities are also computed
        over the pixels that differ from it.
    verbose
        1 for a progress bar, 0 for none.

    Returns
    -------
    SanityResult; print it.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for gradient_map; and for an unknown plan, layer, draw or similarity, or a model that
        is not a keras.Model with weights.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292; Sundararajan and Taly 2018, arXiv:1806.04205, for the
    pixels that differ from the baseline.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((12, 12, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(3, name="top")])
    >>> photos = np.random.default_rng(0).uniform(size=(4, 12, 12, 3))
    >>> result = tfs.sanity_check(model, photos, draw="matched", verbose=0)
    >>> [step.name for step in result.steps]
    ['top', 'conv']
    """
    subject = _subject(model, images, methods, targets, score, preprocess, batch_size)
    options = _Options(similarities, baseline, on_problem, verbose)
    return _check_parameters(subject, plan, draw_named(draw), seeds, retarget, options)


def emprt_check(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    draw: str | Draw = "own_initializer",
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
    verbose: int = 1,
) -> SanityResult:
    """Compare the complexity of maps before and after all weights are drawn anew (eMPRT).

    xi(e) is the entropy of the histogram of a map e, in 100 equal bins between its minimum and
    maximum; the score is (xi(randomized) - xi(trained)) / xi(trained), the similarity "emprt" of
    the result. A map of a random network should be more complex.

    Parameters
    ----------
    model, images, methods, draw, seeds, targets, score, preprocess, batch_size, on_problem, verbose
        As for sanity_check; images (n, h, w, c).

    Returns
    -------
    SanityResult of one step.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for sanity_check.

    References
    ----------
    Hedstroem et al. 2023, "Sanity checks revisited", arXiv:2401.06465.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((12, 12, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(3)])
    >>> photos = np.random.default_rng(0).uniform(size=(4, 12, 12, 3))
    >>> tfs.emprt_check(model, photos, draw="matched", verbose=0).similarities[-2:]
    ('emprt', 'emprt (x != 0)')
    """
    subject = _subject(model, images, methods, targets, score, preprocess, batch_size)
    options = _Options(emprt, 0.0, on_problem, verbose)
    return _check_parameters(subject, "all", draw_named(draw), seeds, False, options)


def smprt_check(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    samples: int = 50,
    noise: float = 0.1,
    draw: str | Draw = "own_initializer",
    similarities: str | Similarity | Sequence[str | Similarity] = ("spearman", "ssim"),
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
    verbose: int = 1,
) -> SanityResult:
    """Compare maps averaged over noisy images, before and after all weights are drawn anew (sMPRT).

    Parameters
    ----------
    model, images, methods, targets, score, preprocess, batch_size, on_problem
        As for gradient_map; images (n, h, w, c).
    samples
        How many noisy copies of each image are averaged; the same for all networks.
    noise
        The standard deviation of the noise, as a fraction of an image's max - min.
    draw, similarities, seeds, verbose
        As for sanity_check.

    Returns
    -------
    SanityResult of one step.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for sanity_check.

    References
    ----------
    Hedstroem et al. 2023, "Sanity checks revisited", arXiv:2401.06465.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((12, 12, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(3)])
    >>> photos = np.random.default_rng(0).uniform(size=(4, 12, 12, 3))
    >>> result = tfs.smprt_check(model, photos, samples=5, draw="matched", verbose=0)
    >>> result.settings["maps"]
    'averaged over 5 images with noise of 0.1 of max - min'
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1 or noise <= 0:
        raise OptionError(
            "Expected samples as an int of at least 1, and noise above 0. "
            f"Received: samples={samples!r}, noise={noise!r}."
        )
    subject = _subject(model, images, methods, targets, score, preprocess, batch_size)
    subject = subject._replace(smoothing=Smoothing(samples, noise))
    options = _Options(similarities, 0.0, on_problem, verbose)
    return _check_parameters(subject, "all", draw_named(draw), seeds, False, options)


def random_logit_check(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    similarities: str | Similarity | Sequence[str | Similarity] = ("spearman", "ssim"),
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
    verbose: int = 1,
) -> SanityResult:
    """Check whether maps depend on the class that they claim to explain.

    The network stays; the map of each photo's class is compared with that of another class,
    drawn uniformly, one for each photo and seed.

    Parameters
    ----------
    model, images, methods, targets, score, preprocess, batch_size, on_problem
        As for gradient_map; images (n, h, w, c).
    similarities, seeds, verbose
        As for sanity_check.

    Returns
    -------
    SanityResult of one step, "another class"; its verdicts say "depends on the class".

    Raises
    ------
    ImageError, ModelError, OptionError
        As for gradient_map; and for a model of fewer than two classes.

    References
    ----------
    Sixt, Granz and Landgraf 2020, arXiv:1912.09818.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(10)])
    >>> photos = np.random.default_rng(0).uniform(size=(4, 12, 12, 3))
    >>> result = tfs.random_logit_check(model, photos, verbose=0, on_problem="ignore")
    >>> result.steps[0].name
    'another class'
    """
    subject = _subject(model, images, methods, targets, score, preprocess, batch_size)
    classes, own = subject.trace.classes, subject.trained.targets
    if classes is None or classes < 2:
        raise ModelError(
            "Expected a model of at least two classes, outputs (n, classes), to explain another "
            f"class. Received: {classes or 'outputs of another shape'}."
        )
    numbers = _seeds(seeds)

    def variants() -> Iterator[Variant]:
        for r, seed in enumerate(numbers):
            others = np.random.default_rng(seed).integers(1, classes, len(own))
            yield Variant(0, r, None, ((own + others) % classes).astype(np.int32))

    settings = {"check": "random logit: another class is explained, by the same network"}
    options = _Options(similarities, 0.0, on_problem, verbose)
    measured = _measured(subject, 1, numbers, variants(), options)
    steps = (StepRecord("another class", (), 0, ()),)
    return _result(subject, measured, steps, numbers, 0, "the class", settings, options)


class _Options(NamedTuple):
    similarities: Any
    baseline: float
    on_problem: str
    verbose: int


def _subject(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method],
    targets: Any,
    score: str | Score | None,
    preprocess: Preprocess | None,
    batch_size: int,
) -> Subject:
    resolved = resolve_methods(methods)
    prepared = as_prepared(model, [method.rule for method in resolved], score, preprocess)
    batch = prepared.check(images)
    if batch.images.ndim != _IMAGE_AXES:
        raise OptionError(
            "Expected images (n, h, w, c) to check, as the similarities are of images. "
            f"Received: {batch.images.shape}."
        )
    trained = attributions(
        prepared, images, resolved, targets=targets, batch_size=batch_size, on_problem="ignore"
    )
    trace = prepared.trace({method.name: method.rule for method in resolved}, batch)
    return Subject(prepared, resolved, batch, trace, trained, batch_size)


def _check_parameters(
    subject: Subject,
    plan: Plan,
    draw: Draw,
    seeds: int | Sequence[int],
    retarget: bool,
    options: _Options,
) -> SanityResult:
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
    numbers = _seeds(seeds)
    targets = subject.trained.targets
    if retarget:
        targets = np.full_like(targets, TOP_CLASS)
    record: dict[int, Drawn] = {}
    before = _fingerprint(model)

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
        if _fingerprint(model) != before:
            raise ModelError(
                "The model's weights changed while it was checked. Expected a model that nothing "
                "else trains or assigns to meanwhile."
            )

    measured = _measured(subject, len(steps), numbers, variants(), options)
    records = tuple(_record(step, units, record) for step in steps)
    settings = {
        "check": f"parameter randomization, {_plan_text(plan, steps)}",
        "draw": draw.name,
        "moving statistics": _statistics(units, record),
        "target": "each network's own top class" if retarget else "fixed on the trained network",
    }
    at = _headline(plan, len(steps))
    return _result(subject, measured, records, numbers, at, PARAMETERS, settings, options)


def _measured(
    subject: Subject,
    steps: int,
    seeds: Sequence[int],
    variants: Iterator[Variant],
    options: _Options,
) -> Measured:
    wanted = resolve_similarities(options.similarities)
    if all(similarity.name != "spearman" for similarity in wanted):
        wanted = (SIMILARITIES["spearman"], *wanted)  # controls need it
    return measure(subject, steps, len(seeds), variants, wanted, options.baseline, options.verbose)


def _result(
    subject: Subject,
    measured: Measured,
    steps: tuple[StepRecord, ...],
    seeds: tuple[int, ...],
    headline: int | None,
    of: str,
    settings: Mapping[str, str],
    options: _Options,
) -> SanityResult:
    trained, methods = subject.trained, tuple(method.name for method in subject.methods)
    verdicts = {
        method: tuple(_verdict(measured, m, k, step, of) for k, step in enumerate(steps))
        for m, method in enumerate(methods)
    }
    at = len(steps) - 1 if headline is None else headline
    quoted = measured.values[:, at, measured.similarities.index("spearman")]
    inputs = subject.batch.images_in
    explained_by = {
        method: explain(maps, inputs, nanmean(quoted[m]))
        for m, (method, maps) in enumerate(zip(methods, measured.trained, strict=True))
    }
    alike = tuple(name for name in methods if verdicts[name][at].other >= CHANCE_LIMIT)
    problems = trained.problems
    if alike:
        largest = max(verdicts[name][at].other for name in alike)
        everywhere = tuple(range(len(inputs)))
        found = Problem("alike_maps", everywhere, alike, f"on average {largest:.2f}")
        problems = Problems((*problems, found))
    tell(problems, options.on_problem, stacklevel=4)
    n = len(inputs)
    described = {
        **settings,
        "model": str(getattr(subject.prepared.model, "name", "a function")),
        "photos": str(n),
        "seeds": ", ".join(map(str, seeds)),
        "score": trained.score,
    }
    if subject.smoothing is not None:
        samples, noise = subject.smoothing
        described["maps"] = f"averaged over {samples} images with noise of {noise:g} of max - min"
    return SanityResult(
        measured.values,
        measured.floors,
        methods,
        steps,
        measured.similarities,
        trained.names or tuple(map(str, range(n))),
        seeds,
        trained.targets,
        trained.scores,
        verdicts,
        headline,
        explained_by,
        trained.coverage,
        described,
        problems,
        Shown(trained.images[0], measured.steps, measured.maps),
    )


def _verdict(measured: Measured, m: int, k: int, step: StepRecord, of: str) -> Verdict:
    cosine, signed = map(measured.similarities.index, (COSINE, SIGNED))
    values, floors = measured.values[m, k], measured.floors[m, k]
    verdict = verdict_of(values[cosine].T, floors[cosine].T, values[signed].T, of)
    if step.tensors and len(step.unchanged) == step.tensors:
        reason = "no weight changed: the draw has one value only for each, which it had already"
        return replace(verdict, verdict=INCONCLUSIVE, reason=reason)
    return verdict


def _record(step: Step, units: Sequence[Unit], drawn: Mapping[int, Drawn]) -> StepRecord:
    names = tuple(units[position].path for position in step.units)
    found = [drawn[position] for position in step.units]
    tensors = sum(array is not None for each in found for array in each.arrays)
    return StepRecord(step.name, names, tensors, tuple(n for each in found for n in each.unchanged))


def _headline(plan: Plan, steps: int) -> int | None:
    """Return the step to quote: of a cascade that after two layers, of a list the last."""
    if plan == "cascade":
        return min(1, steps - 1)
    return None if plan in ("bottom_up", "independent") else steps - 1


def _plan_text(plan: Plan, steps: Sequence[Step]) -> str:
    if isinstance(plan, str):
        return f"{plan} of {len(steps[-1].units) if plan == 'all' else len(steps)} layers"
    return ", ".join(step.name for step in steps)


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


def _seeds(seeds: Any) -> tuple[int, ...]:
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


def _fingerprint(model: keras.Model) -> bytes:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.digest()
