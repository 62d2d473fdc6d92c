"""compare_models: whether two versions of a model look at the same things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, to_storable
from ..diagnostics import OnProblem, check_on_problem, report
from ..display.progress import Progress, Verbose
from ..engine.functions import Model
from ..engine.scores import Score
from ..errors import OptionError, check_int
from ..maps import Options, explain, resolve_reductions
from ..methods.protocol import check_inner
from ..methods.table import Method, MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import digest_model
from ..records.making import describe_settings, make_record
from ..saliency_maps import SaliencyMaps
from ..statistics import bootstrap, interval, nanmean
from ..tables import ScoreName
from .comparison_result import ModelComparison, ShownPair
from .verdict import (
    CHANCE_LIMIT,
    INCONCLUSIVE,
    Verdict,
    compare_maps,
    compute_invariance,
    normalize_maps,
)

SAME_ABOVE, DIFFERENT_BELOW = 0.9, 0.4
SAME, PARTLY, DIFFERENT = "the same", "partly the same", "different"
_FEWEST = 2  # photos
_SHOWN = 6  # photos that changed most
_FEATURE_AXES = 2


def compare_models(
    old: Model | Prepared,
    new: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    targets: Any = None,
    names: Sequence[str] = (),
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> ModelComparison:
    """Compare what two versions of a model look at, with an interval, photo by photo.

    The maps of both models are compared for the same photos and classes. The index is that of
    sanity_check, the share of a map's variance that both have: 1 for the same maps, 0 for maps that
    are no more alike than those of different photos. A method that does not depend on the network,
    which sanity_check tells, finds all models the same.

    Parameters
    ----------
    old, new
        The models, prepared or not. They take the same images, and may preprocess them differently
        if they are prepared.
    images
        Images (n, h, w, c) as for saliency_map: at least 8, of different things.
    methods, score, preprocess, batch_size, on_problem
        As for saliency_map; score and preprocess are for models that are not prepared.
    targets
        The classes to explain, as for saliency_map; by default, the old model's top classes.
    names
        The names of the images, such as their paths.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    ModelComparison, which prints as a table. Its verdicts are "the same" if the interval is above
    .9, "different" if it is below .4, else "partly the same".

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; OptionError also if the models' maps differ in shape.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, whose question is turned around; docs/decisions.md.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> model, other = synthetic.shapes_model(), synthetic.permuted_label_models()[0]
    >>> print(tfs.compare_models(model, other, photos, "grad_cam").verdicts["grad_cam"].verdict)
    different
    """
    check_on_problem(on_problem)
    check_int("batch_size", batch_size, 1)
    chosen = resolve_methods(methods)
    for method in chosen:
        check_inner(method.composition, f"the composition of {method.name}")
    models = [as_prepared(model, chosen, score, preprocess) for model in (old, new)]
    batches = [prepared.check(images) for prepared in models]
    n = len(batches[0].images)
    labels = _check_names(names, n)
    pair: list[SaliencyMaps] = []
    with Progress(verbose, 2, "model", "comparison") as progress:
        for prepared, batch in zip(models, batches, strict=True):
            given = targets if not pair else _targets(pair[0])
            with progress.part(1):
                options = Options(given, None, batch_size, "ignore")
                pair.append(explain(prepared, batch, chosen, None, options))
    _check_shapes(pair)
    cells = [compare_maps(*(normalize_maps(maps[m.name]) for maps in pair)) for m in chosen]
    values, chance, signed = (np.stack(each) for each in zip(*cells, strict=True))
    digests = [digest_model(prepared.model) for prepared in models]
    explained = "top class of the old model" if targets is None else "given"
    parameters = {"targets": explained, "batch_size": batch_size}
    result = ModelComparison(
        values,
        chance,
        tuple(method.name for method in chosen),
        labels,
        pair[0].targets,
        np.stack([_top_classes(maps) for maps in pair]),
        np.stack([maps.scores.astype(np.float64) for maps in pair]),
        {m.name: _verdict(values[k], chance[k], signed[k]) for k, m in enumerate(chosen)},
        {
            **describe_settings(models[0], chosen, {"photos": str(n), "score": pair[0].score}),
            "new model": digests[1].name,
            "weights": f"sha256 {digests[0].weights}",
            "new weights": f"sha256 {digests[1].weights}",
        },
        _shown(values, pair, chosen),
        make_record(models[0], "compare_models", chosen, parameters, batches[0].images, digests[0]),
        digests[1],
    )
    for maps in pair:
        report(maps.problems, on_problem, stacklevel=2)
    return result


def _check_names(names: Sequence[str], n: int) -> tuple[str, ...]:
    if len(names) not in (0, n):
        raise OptionError(f"Expected names of {n} images. Received: {len(names)}.")
    return tuple(map(str, names)) or tuple(map(str, range(n)))


def _targets(maps: SaliencyMaps) -> list[int] | None:
    """Return the explained classes; None if outputs are no classes."""
    return None if (maps.targets < 0).any() else maps.targets.tolist()


def _check_shapes(pair: Sequence[SaliencyMaps]) -> None:
    for name in pair[0]:
        shapes = [maps[name].shape for maps in pair]
        if shapes[0] != shapes[1]:
            raise OptionError(
                f"Expected two models whose maps have the same shape. Received: {shapes[0]} and "
                f"{shapes[1]} of {name}. Resize the images in the models, or in their preprocess."
            )


def _top_classes(maps: SaliencyMaps) -> Array:
    """Return the top class of each image, -1 if outputs are no classes."""
    values = [maps.class_values(i) for i in range(len(maps.images))]
    known = maps.meaning != "vector" and len(values[0]) > 1
    return np.array([int(each.argmax()) if known else -1 for each in values])


def _verdict(same: Array, other: Array, signed: Array) -> Verdict:
    """Return the verdict on the similarities of n photos, (n,) each."""
    alike, chance = nanmean(same), nanmean(other)
    index = float(compute_invariance(alike, chance))
    rows = same[np.newaxis], other[np.newaxis]
    low, high = interval(compute_invariance(*bootstrap(*rows)))
    defined, n = int(np.isfinite(same).sum()), len(same)
    verdict, reason = INCONCLUSIVE, ""
    if n < _FEWEST:
        reason = f"1 photo; at least {_FEWEST} are needed, 8 are advised"
    elif 2 * defined < n:
        reason = f"only {defined} of {n} pairs of maps are defined: the others have a constant map"
    elif low > SAME_ABOVE:
        verdict = SAME
    elif high < DIFFERENT_BELOW:
        verdict = DIFFERENT
    else:
        verdict = PARTLY
    if chance >= CHANCE_LIMIT and not reason:
        reason = f"maps of different photos are alike ({chance:.2f}), so photos matter little"
    signs = nanmean(signed)
    return Verdict(verdict, index, low, high, alike, chance, signs, defined, n, reason)


def _shown(values: Array, pair: Sequence[SaliencyMaps], methods: Sequence[Method]) -> ShownPair:
    """Return the photos whose maps changed most, with the maps of both models."""
    means = np.array([nanmean(column) for column in values.T])
    order = np.argsort(np.nan_to_num(means, nan=-1.0), kind="stable")[:_SHOWN]
    reduce = resolve_reductions(methods, None)
    features = pair[0].images.ndim == _FEATURE_AXES  # without channels
    old, new = (
        np.stack(
            [
                one(array[..., np.newaxis] if features else array)
                for array, one in zip((maps[m.name][order] for m in methods), reduce, strict=True)
            ]
        )
        for maps in pair
    )
    images = to_storable(pair[0].images[order])
    return ShownPair(order, images, old.astype(np.float32), new.astype(np.float32))
