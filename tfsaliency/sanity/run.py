"""Run of a sanity check: its inputs, its variants, and the result with verdicts."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from ..arrays import Array, to_storable
from ..diagnostics import Problem, Problems, check_on_problem, raise_problems
from ..display.progress import Verbose, check_verbose
from ..engine.functions import Model, digest_arrays, digest_weights
from ..engine.scores import Score
from ..engine.targets import TOP_CLASS
from ..errors import ModelError, OptionError, check_number
from ..evaluation.controls import compare_with_controls
from ..maps import Options, explain
from ..methods.plain import describe_value
from ..methods.table import MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import ModelDigest, Record, digest_model
from ..records.making import describe_settings, make_record
from ..similarity import SIMILARITIES, Similarity, resolve_similarities
from ..similarity.protocol import as_pictures
from ..statistics import nanmean
from ..tables import ScoreName
from .comparison import COSINE, SIGNED, Comparison, Inputs, Variant, compare
from .plans import Plan, Step, assemble_weights, order_by_use, plan_steps
from .randomizers import RANDOMIZERS, Drawn, Randomizer, draw_weights
from .rebuild import RebuildError
from .result import SanityResult, Shown, StepRecord
from .units import Unit, list_units
from .verdict import CHANCE_LIMIT, INCONCLUSIVE, PARAMETERS, Verdict, decide

_IMAGE_AXES = 4
_NAMED = 3  # layers
_MOST_SEEDS = 100_000
_DEFAULT = ("spearman", "ssim")


@dataclass(frozen=True, eq=False)
class Settings:
    """The settings of a comparison; see sanity_check.

    Parameters
    ----------
    similarities, baseline, verbose
        As for sanity_check.
    check
        The name of the check.
    dependence
        The quantity on which maps should depend, in words: "the parameters".
    call, parameters
        The function, and its options for the record.
    """

    similarities: Any
    baseline: float
    verbose: Verbose
    check: str = "parameter randomization"
    dependence: str = PARAMETERS
    call: str = "sanity_check"
    parameters: Mapping[str, Any] = field(default_factory=dict)


def check_inputs(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument,
    targets: Any,
    score: ScoreName | Score | None,
    preprocess: Preprocess | None,
    batch_size: int,
    on_problem: str,
    region: Any = None,
    verbose: Verbose = "auto",
) -> Inputs:
    """Check the arguments of sanity_check, and compute the maps of the trained network."""
    resolved = resolve_methods(methods)
    prepared = as_prepared(model, resolved, score, preprocess)
    batch = prepared.check(images, region)
    raise_problems(batch.problems, check_on_problem(on_problem))
    # Problems are reported with those of the check.
    options = Options(targets, None, batch_size, "ignore", check_verbose(verbose))
    trained = explain(prepared, batch, resolved, None, options)
    return Inputs(prepared, resolved, batch, prepared.trace(resolved, batch), trained, batch_size)


def check_parameters(
    inputs: Inputs,
    plan: Plan,
    randomizer: Randomizer,
    seeds: int | Sequence[int],
    retarget: bool,
    settings: Settings,
) -> SanityResult:
    """Run parameter randomization; see sanity_check."""
    model = inputs.prepared.model
    order: tuple[int, ...] = ()
    if isinstance(model, keras.Model):
        units = list_units(model)
        order = order_by_use(model, units, inputs.trace.used)
    if not isinstance(model, keras.Model) or not order:
        raise ModelError(
            "Expected a keras.Model whose score depends on weights of its layers, to randomize "
            f"them. Received: {type(model).__name__}."
        )
    steps = plan_steps(plan, units, order)
    numbers = resolve_seeds(seeds)
    targets = inputs.trained.targets
    if retarget:
        targets = np.full_like(targets, TOP_CLASS)
    draws = _Draws(model, units, randomizer)
    variants = draws.variants(steps, numbers, targets)
    comparison = compare_variants(inputs, len(steps), numbers, variants, settings)
    words = {
        "check": f"{settings.check}, {_plan_text(plan, steps)}",
        "randomizer": randomizer.name,
        "moving statistics": _statistics(units, draws.last),
        "target": "each network's own top class" if retarget else "fixed on the trained network",
    }
    if draws.fallbacks:
        listed = list(draws.fallbacks)
        names = ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
        words["drawn by 'matched'"] = (
            f"{len(listed)} layer{'s' if len(listed) > 1 else ''} not rebuilt by config: {names}"
        )
    others = inputs.trace.others
    if others:
        words["not randomized"] = f"{others} variables that are not weights of layers"
    records = tuple(_record(step, units, draws.last) for step in steps)
    at = _headline(plan, len(steps))
    repeated = {k for k, step in enumerate(steps) if draws.are_repeated(step, len(numbers))}
    return make_result(inputs, comparison, records, numbers, at, settings, words, repeated)


class _Draws:
    """The new weights of a model, drawn as needed, with a record of them."""

    def __init__(self, model: keras.Model, units: Sequence[Unit], randomizer: Randomizer) -> None:
        self._model, self._units, self._randomizer = model, units, randomizer
        self.last: dict[int, Drawn] = {}  # by position, of the last seed
        self.fallbacks: dict[str, None] = {}  # the paths of layers, as an ordered set
        self._digests: dict[int, set[bytes]] = {}

    def variants(
        self, steps: Sequence[Step], seeds: Sequence[int], targets: Array
    ) -> Iterator[Variant]:
        """Yield the model with the weights of each step, one seed after the other."""
        model, units = self._model, self._units
        before = digest_weights(model)
        for r, seed in enumerate(seeds):
            drawn: dict[int, Drawn] = {}
            for k, step in enumerate(steps):
                for position in step.units:
                    if position not in drawn:
                        unit = units[position]
                        drawn[position] = self._draw(unit, seed, position)
                yield Variant(k, r, assemble_weights(units, step, drawn, model.weights), targets)
            self.last.update(drawn)
            for position, each in drawn.items():
                self._digests.setdefault(position, set()).add(digest_arrays(each.arrays))
        if digest_weights(model) != before:
            raise ModelError(
                "The model's weights changed during the check. Do not train the model or set "
                "its weights during a check."
            )

    def _draw(self, unit: Unit, seed: int, position: int) -> Drawn:
        """Draw the weights of a layer; by "matched" if it cannot be rebuilt from its config."""
        try:
            return draw_weights(unit, self._randomizer, seed, position)
        except RebuildError:
            self.fallbacks[unit.path] = None
            return draw_weights(unit, RANDOMIZERS["matched"], seed, position)

    def are_repeated(self, step: Step, seeds: int) -> bool:
        """Return whether several seeds all gave the same network at a step."""
        return seeds > 1 and all(len(self._digests[position]) == 1 for position in step.units)


def compare_variants(
    inputs: Inputs,
    steps: int,
    seeds: Sequence[int],
    variants: Iterator[Variant],
    settings: Settings,
) -> Comparison:
    """Compare variants by the requested similarities, and always by Spearman's correlation."""
    wanted = _similarities(settings.similarities, inputs.batch.preprocessed)
    baseline = settings.baseline
    check_number("baseline", baseline, -np.inf)
    if all(similarity.name != "spearman" for similarity in wanted):
        wanted = (SIMILARITIES["spearman"], *wanted)  # for the controls
    return compare(inputs, steps, len(seeds), variants, wanted, baseline, settings.verbose)


def _similarities(similarities: Any, images: Array) -> tuple[Similarity, ...]:
    """Return the similarities to report, by default those that make sense for the images."""
    pictures = images.ndim == _IMAGE_AXES
    if similarities is None:
        similarities = [name for name in _DEFAULT if pictures or not SIMILARITIES[name].images_only]
    wanted = resolve_similarities(similarities)
    unfit = [similarity.name for similarity in wanted if similarity.images_only and not pictures]
    if unfit:
        others = ", ".join(name for name, each in SIMILARITIES.items() if not each.images_only)
        raise OptionError(
            f"Expected similarities for arrays of shape {images.shape[1:]}: {others}. Received: "
            f"{', '.join(unfit)}, which compare rows and columns of images."
        )
    return wanted


def make_result(
    inputs: Inputs,
    comparison: Comparison,
    steps: tuple[StepRecord, ...],
    seeds: tuple[int, ...],
    headline: int | None,
    settings: Settings,
    words: Mapping[str, str],
    repeated: Collection[int] = (),
) -> SanityResult:
    """Return the result of a comparison: verdicts, controls, and the settings in words.

    Parameters
    ----------
    inputs, comparison
        The inputs of the check, and its numbers.
    steps, seeds
        The randomized layers, and the seeds.
    headline
        The index of the step to quote.
    settings, words
        The settings, and additional ones in words.
    repeated
        The indices of steps at which all seeds gave the same network.
    """
    trained, methods = inputs.trained, tuple(method.name for method in inputs.methods)
    verdicts = {
        method: tuple(
            _verdict(comparison, m, k, step, settings.dependence, k in repeated)
            for k, step in enumerate(steps)
        )
        for m, method in enumerate(methods)
    }
    at = len(steps) - 1 if headline is None else headline
    model = digest_model(inputs.prepared.model)
    quoted = comparison.values[:, at, comparison.similarities.index("spearman")]
    images = inputs.batch.preprocessed
    explained_by = compare_with_controls(
        trained, images, {method: nanmean(quoted[m]) for m, method in enumerate(methods)}
    )
    n = len(images)
    counts = {"photos": str(n), "seeds": ", ".join(map(str, seeds))}
    return SanityResult(
        comparison.values,
        comparison.chance,
        methods,
        steps,
        comparison.similarities,
        trained.names or tuple(map(str, range(n))),
        seeds,
        trained.targets,
        trained.scores.astype(np.float64),
        verdicts,
        headline,
        explained_by,
        trained.coverage,
        {
            **words,
            **describe_settings(
                inputs.prepared, inputs.methods, {**counts, "score": trained.score}, model
            ),
        },
        _problems(inputs, {name: verdicts[name][at] for name in methods}),
        Shown(to_storable(as_pictures(trained.images[:1])[0]), comparison.steps, comparison.maps),
        _make_record(inputs, seeds, settings, model),
    )


def _make_record(
    inputs: Inputs, seeds: tuple[int, ...], settings: Settings, model: ModelDigest
) -> Record:
    own = None if inputs.trained.record is None else inputs.trained.record.parameters
    parameters = {
        **(own or {}),
        "similarities": describe_value(settings.similarities),
        "baseline": settings.baseline,
        "seeds": list(seeds),
        **settings.parameters,
    }
    images, methods = inputs.batch.images, inputs.methods
    return make_record(inputs.prepared, settings.call, methods, parameters, images, model)


def _problems(inputs: Inputs, verdicts: Mapping[str, Verdict]) -> Problems:
    """Find problems of the trained maps, and photos or maps that are too similar."""
    images = inputs.batch.preprocessed
    problems = list(inputs.trained.problems)
    repeated = _repeated_images(images)
    if repeated:
        problems.append(Problem("same_image", repeated))
    alike = tuple(name for name, verdict in verdicts.items() if verdict.other >= CHANCE_LIMIT)
    if alike:
        largest = max(verdicts[name].other for name in alike)
        every = tuple(range(len(images)))
        problems.append(Problem("alike_maps", every, alike, f"on average {largest:.2f}"))
    return Problems(problems)


def _repeated_images(images: Array) -> tuple[int, ...]:
    """Return the indices of images that occur more than once."""
    keys = [image.tobytes() for image in images]
    return tuple(i for i, key in enumerate(keys) if keys.count(key) > 1)


def _verdict(
    comparison: Comparison, m: int, k: int, step: StepRecord, dependence: str, repeated: bool
) -> Verdict:
    cosine, signed = map(comparison.similarities.index, (COSINE, SIGNED))
    values, chance = comparison.values[m, k], comparison.chance[m, k]
    verdict = decide(values[cosine].T, chance[cosine].T, values[signed].T, dependence)
    if step.layers and len(step.unchanged) == step.tensors:
        reason = "no weight changed: the randomizer returned none, or the current values"
        return replace(verdict, verdict=INCONCLUSIVE, reason=reason)
    if repeated:
        reason = "the randomizer gave every seed the same weights, so they count as 1 seed"
        return replace(verdict, verdict=INCONCLUSIVE, reason=reason)
    return verdict


def _record(step: Step, units: Sequence[Unit], drawn: Mapping[int, Drawn]) -> StepRecord:
    names = tuple(units[position].path for position in step.units)
    found = [drawn[position] for position in step.units]
    tensors = sum(array is not None for each in found for array in each.arrays)
    return StepRecord(step.name, names, tensors, tuple(n for each in found for n in each.unchanged))


def _headline(plan: Plan, steps: int) -> int | None:
    """Return the step to quote: the second of a cascade, or the only one."""
    if plan == "cascade":
        return min(1, steps - 1)
    return 0 if steps == 1 else None


def _plan_text(plan: Plan, steps: Sequence[Step]) -> str:
    if isinstance(plan, str):
        return f"{plan} of {len(steps[-1].units) if plan == 'all' else len(steps)} layers"
    return f"{', '.join(step.name for step in steps)}" + (" alone" if len(steps) > 1 else "")


def _statistics(units: Sequence[Unit], drawn: Mapping[int, Drawn]) -> str:
    """Describe the treatment of the moving statistics of batch normalizations."""
    arrays = [
        array
        for position, found in drawn.items()
        for array in found.arrays[len(units[position].parameters) :]
    ]
    if not arrays:
        return "none"
    return "kept" if all(array is None for array in arrays) else "reset"


def resolve_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds, given as a list or as their number."""
    try:
        listed = seeds if isinstance(seeds, (list, tuple, range)) else range(operator.index(seeds))
        numbers = tuple(map(operator.index, listed[: _MOST_SEEDS + 1]))
    except TypeError:
        numbers = ()
    if len(numbers) > _MOST_SEEDS:
        raise OptionError(f"Expected at most {_MOST_SEEDS:,} seeds. Received: more.")
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers) or seeds is True:
        raise OptionError(
            "Expected seeds as a number of them, at least 1, or a list of different whole numbers "
            f"from 0. Received: {seeds!r}."
        )
    return numbers
