"""Sanity checks: whether maps change when what they claim to explain is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .checks import Options, check_parameters, measured_by, result_of, seeds_of, subject_of
from .draws import Draw, draw_named
from .endpoints import Model
from .errors import ModelError, OptionError
from .measuring import Smoothing, Variant
from .methods import Method
from .prepared import Prepared, Preprocess
from .problems import check_on_problem, tell
from .randomization import Plan
from .results import SanityResult, StepRecord
from .scores import Score
from .similarity import Similarity, emprt

_TWO = 2  # classes


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
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> photos = worlds.shapes(8, seed=0).images
    >>> result = tfs.sanity_check(worlds.shapes_model(), photos, "guided_backprop",
    ...                           plan=["conv8"], verbose=0)
    >>> print(result.verdicts["guided_backprop"][0].verdict)
    does not depend
    """
    check_on_problem(on_problem)
    subject = subject_of(model, images, methods, targets, score, preprocess, batch_size)
    options = Options(similarities, baseline, verbose)
    result = check_parameters(subject, plan, draw_named(draw), seeds, retarget, options)
    tell(result.problems, on_problem, stacklevel=2)
    return result


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
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> photos = worlds.shapes(8, seed=0).images
    >>> result = tfs.emprt_check(worlds.shapes_model(), photos, verbose=0)
    >>> result.select(similarity="emprt").shape  # (method, step, image, seed)
    (1, 1, 8, 4)
    """
    check_on_problem(on_problem)
    subject = subject_of(model, images, methods, targets, score, preprocess, batch_size)
    options = Options(emprt, 0.0, verbose, "eMPRT (the rise of the entropy of maps)")
    result = check_parameters(subject, "all", draw_named(draw), seeds, False, options)
    tell(result.problems, on_problem, stacklevel=2)
    return result


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
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> photos = worlds.shapes(8, seed=0).images
    >>> result = tfs.smprt_check(worlds.shapes_model(), photos, samples=5, verbose=0)
    >>> result.settings["maps"]
    'averaged over 5 images with noise of 0.1 of max - min'
    """
    numbers = isinstance(samples, (int, np.integer)) and isinstance(noise, (int, float))
    if not numbers or isinstance(samples, bool) or samples < 1 or noise <= 0:
        raise OptionError(
            "Expected samples as an int of at least 1, and noise above 0. "
            f"Received: samples={samples!r}, noise={noise!r}."
        )
    check_on_problem(on_problem)
    subject = subject_of(model, images, methods, targets, score, preprocess, batch_size)
    subject = subject._replace(smoothing=Smoothing(samples, noise))
    options = Options(similarities, 0.0, verbose, "sMPRT")
    result = check_parameters(subject, "all", draw_named(draw), seeds, False, options)
    tell(result.problems, on_problem, stacklevel=2)
    return result


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
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> photos = worlds.shapes(8, seed=0).images
    >>> model = worlds.shapes_model()
    >>> result = tfs.random_logit_check(model, photos, "guided_backprop", verbose=0)
    >>> print(result.verdicts["guided_backprop"][0].verdict)
    does not depend
    """
    check_on_problem(on_problem)
    subject = subject_of(model, images, methods, targets, score, preprocess, batch_size)
    classes, own = subject.trace.classes, subject.trained.targets
    if classes is None or classes < 2:
        raise ModelError(
            "Expected a model of at least two classes, outputs (n, classes), to explain another "
            f"class. Received: {classes or 'outputs of another shape'}."
        )
    numbers = seeds_of(seeds)

    def variants() -> Iterator[Variant]:
        for r, seed in enumerate(numbers):
            others = np.random.default_rng(seed).integers(1, classes, len(own))
            yield Variant(0, r, None, ((own + others) % classes).astype(np.int32))

    settings = {"check": "random logit: another class is explained, by the same network"}
    if classes == _TWO:
        settings["seeds that differ"] = "none: of two classes there is one other"
    options = Options(similarities, 0.0, verbose)
    measured = measured_by(subject, 1, numbers, variants(), options)
    steps = (StepRecord("another class", (), 0, ()),)
    result = result_of(subject, measured, steps, numbers, 0, "the class", settings)
    tell(result.problems, on_problem, stacklevel=2)
    return result
