"""Sanity checks of maps by randomized weights and by other classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ..arrays import Array
from ..diagnostics import OnProblem, report
from ..display.progress import Verbose
from ..engine.functions import Model
from ..engine.scores import Score
from ..errors import ModelError, check_choice, check_flag
from ..methods.plain import describe_value
from ..methods.table import MethodsArgument
from ..prepared import Prepared, Preprocess
from ..saliency_maps import SaliencyMaps
from ..similarity import SimilaritiesArgument
from ..tables import RandomizerName, ScoreName
from .comparison import Variant
from .plans import Plan
from .randomizers import Randomizer, resolve_randomizer
from .result import SanityResult, StepRecord
from .run import (
    Settings,
    check_inputs,
    check_parameters,
    compare_variants,
    make_result,
    resolve_seeds,
)

_TWO = 2  # classes


def sanity_check(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    plan: Plan = "cascade",
    randomizer: RandomizerName | Randomizer = "initializer",
    similarities: SimilaritiesArgument | None = None,
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    retarget: bool = False,
    baseline: float = 0.0,
    region: Any = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> SanityResult:
    """Check whether maps depend on the weights of the network that they claim to explain.

    Layers get new random weights, step by step; the resulting maps are compared with those of the
    trained network, for the same photos and classes.

    Parameters
    ----------
    images
        Images (n, h, w, c), sequences, volumes or features as for saliency_map: at least 8, of
        different things.
    model, methods, targets, score, preprocess, region, batch_size, on_problem
        As for saliency_map.
    plan
        The layers that get new weights: "cascade" (at step k, the last k layers with weights),
        "bottom_up" (the first k), "independent" (one layer at a time, from the last to the first),
        "all" (one step), or a list with one layer name, or a tuple of names, for each step. The
        name "outer/inner" is a layer inside another; "outer" stands for all layers inside.
    randomizer
        Draws the new weights: a key of RANDOMIZERS or a Randomizer. A layer that cannot be rebuilt
        from its config, so that its initializers are not known, is drawn by "matched" instead;
        `settings` of the result names it. Initializers reset the moving
        statistics of batch normalizations, the other randomizers keep them; `settings` of the
        result records which.
    similarities
        Keys of SIMILARITIES, or Similarity objects, to report beside the verdict; by default,
        "spearman", and "ssim" for images. "spearman" is always computed. For eMPRT (Hedstroem et
        al. 2023), use "emprt" with plan="all"; for sMPRT, use methods=SmoothGrad(samples=50,
        noise=0.1) with plan="all".
    seeds
        The number of random networks per step, or a list of seeds.
    retarget
        Whether to explain each network's own top class, as the MATLAB original and the code of
        Adebayo et al. do, instead of the trained network's. Maps may then also change because the
        class changes.
    baseline
        The pixel value (after preprocessing) without information. Similarities are also computed
        over the pixels that differ from it.
    verbose
        Progress, as for saliency_map; it counts networks.

    Returns
    -------
    SanityResult, which prints as a table.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; also if a plan, layer, randomizer or similarity is unknown, or the
        model is not a keras.Model with weights.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292; Sundararajan and Taly 2018, arXiv:1806.04205 (pixels that
    differ from the baseline); Hedstroem et al. 2023, "Sanity checks revisited", arXiv:2401.06465
    (eMPRT and sMPRT).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> result = tfs.sanity_check(synthetic.shapes_model(), photos, "guided_backprop",
    ...                           plan=["conv8"], verbose=0)
    >>> print(result.verdicts["guided_backprop"][0].verdict)
    does not depend
    """
    inputs = check_inputs(
        model, images, methods, targets, score, preprocess, batch_size, on_problem, region, verbose
    )
    check_flag("retarget", retarget)
    drawn_by = resolve_randomizer(randomizer)
    parameters = {"plan": plan, "randomizer": drawn_by.name, "retarget": bool(retarget)}
    parameters = {name: describe_value(value) for name, value in parameters.items()}
    settings = Settings(similarities, baseline, verbose, parameters=parameters)
    result = check_parameters(inputs, plan, drawn_by, seeds, retarget, settings)
    report(result.problems, on_problem, stacklevel=2)
    return result


def random_logit_check(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    against: Literal["random", "least_likely"] = "random",
    similarities: SimilaritiesArgument | None = None,
    seeds: int | Sequence[int] = 4,
    targets: Any = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    region: Any = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> SanityResult:
    """Check whether maps depend on the class that they claim to explain.

    The network is unchanged. The map of each photo's class is compared with the map of another
    class, drawn uniformly for each photo and seed, or the least likely one (class sensitivity).

    Parameters
    ----------
    images
        Images (n, h, w, c) as for saliency_map.
    model, methods, targets, score, preprocess, region, batch_size, on_problem
        As for saliency_map.
    against
        The other class: "random", or "least_likely" by the network's outputs for the photo, with
        which a map should have nothing in common. Then all seeds are the same.
    similarities, seeds, verbose
        As for sanity_check.

    Returns
    -------
    SanityResult with one step, "another class", and verdicts such as "depends on the class".

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; also if the model has fewer than two classes.

    References
    ----------
    Sixt, Granz and Landgraf 2020, arXiv:1912.09818; Li et al. 2021, arXiv:2105.06506 (maps of the
    most and of the least likely class).

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> model = synthetic.shapes_model()
    >>> result = tfs.random_logit_check(model, photos, "guided_backprop", verbose=0)
    >>> print(result.verdicts["guided_backprop"][0].verdict)
    does not depend
    """
    inputs = check_inputs(
        model, images, methods, targets, score, preprocess, batch_size, on_problem, region, verbose
    )
    classes, own = inputs.trace.classes, inputs.trained.targets
    if classes is None or classes < 2:
        raise ModelError(
            "Expected a model of at least two classes, outputs (n, classes), to explain another "
            f"class. Received: {classes or 'outputs of another shape'}."
        )
    check_choice("against", against, ("random", "least_likely"))
    numbers = resolve_seeds(seeds)
    least = _least_likely(inputs.trained) if against == "least_likely" else None

    def variants() -> Iterator[Variant]:
        for r, seed in enumerate(numbers):
            others = np.random.default_rng(seed).integers(1, classes, len(own))
            drawn = ((own + others) % classes).astype(np.int32)
            yield Variant(0, r, None, drawn if least is None else least)

    words = {"check": "random logit: another class is explained, by the same network"}
    if least is not None:
        words["check"] = "class sensitivity: the least likely class is explained"
        words["seeds that differ"] = "none: there is one least likely class"
    elif classes == _TWO:
        words["seeds that differ"] = "none: with two classes, there is one other"
    settings = Settings(
        similarities,
        0.0,
        verbose,
        dependence="the class",
        call="random_logit_check",
        parameters={"against": against},
    )
    comparison = compare_variants(inputs, 1, numbers, variants(), settings)
    steps = (StepRecord("another class", (), 0, ()),)
    result = make_result(inputs, comparison, steps, numbers, 0, settings, words)
    report(result.problems, on_problem, stacklevel=2)
    return result


def _least_likely(maps: SaliencyMaps) -> Array:
    """Return the class with the lowest output for each image, (n,), other than the explained."""
    found = []
    for i, own in enumerate(maps.targets):
        lowest = np.argsort(maps.class_values(i), kind="stable")[:_TWO]
        found.append(lowest[int(lowest[0] == own)])
    return np.array(found, np.int32)
