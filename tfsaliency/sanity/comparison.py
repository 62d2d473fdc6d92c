"""Comparison of maps between the trained network and variants of it.

A variant has other weights or explains other classes. The trained network's maps are computed and
prepared once; then the same trace runs for each variant, and all numbers go into one array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..arrays import Array
from ..display.progress import Progress, Verbose
from ..engine.build import run_in_parts
from ..engine.gradients import Trace
from ..engine.model_io import Batch
from ..errors import OptionError
from ..methods.table import Method
from ..prepared import Prepared
from ..saliency_maps import SaliencyMaps
from ..similarity import RESERVED, Similarity
from ..similarity.protocol import Mask, absolute, as_pictures
from .verdict import compare_maps, normalize_maps

COSINE, SIGNED = RESERVED

Meter = Callable[[Array], tuple[Array, Array]]

_TABLE_AXES = 2
_SHOWN = 12  # maps of a method in a figure, including the trained network's


@dataclass(frozen=True, eq=False)
class Variant:
    """A network to compare with the trained one, and its targets.

    Parameters
    ----------
    step, seed
        The indices of the step and the seed.
    weights
        Its weights, in the order of the model's, with None for unchanged ones; or None.
    targets
        The classes to explain, (n,).
    """

    step: int
    seed: int
    weights: Sequence[Array | None] | None
    targets: Array


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of a sanity check: the model, its methods, the images and their maps.

    Parameters
    ----------
    prepared, methods, batch, trace
        The model, its methods, the checked images, and the trace that all variants share.
    trained
        The trained network's maps, with the explained classes.
    batch_size
        The number of images to pass through the model at a time.
    """

    prepared: Prepared
    methods: tuple[Method, ...]
    batch: Batch
    trace: Trace
    trained: SaliencyMaps
    batch_size: int

    def attributions(self, weights: Sequence[Array | None] | None, targets: Array) -> list[Array]:
        """Return the attributions of each method, (n, h, w, c)."""
        with Progress("auto", len(targets)) as progress:
            parts = [
                [gradient.numpy() for gradient in result.gradients]
                for result in run_in_parts(
                    self.trace, self.batch, targets, self.batch_size, progress, weights
                )
            ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The similarities of a check, with axes (method, step, similarity, image, seed).

    Parameters
    ----------
    similarities
        The names along the third axis.
    values
        Similarities of maps of the same photo.
    chance
        Similarities of maps of different photos.
    steps, maps
        For figures: some steps, and maps (methods, 1 + steps, h, w) of the first photo, for the
        trained network and for the first seed at each of these steps; float16, rescaled to [0, 1].
    """

    similarities: tuple[str, ...]
    values: Array
    chance: Array
    steps: tuple[int, ...]
    maps: Array


def compare(
    inputs: Inputs,
    steps: int,
    seeds: int,
    variants: Iterable[Variant],
    similarities: Sequence[Similarity],
    baseline: float,
    verbose: Verbose,
) -> Comparison:
    """Run all variants and compare their maps with those of the trained network.

    Parameters
    ----------
    inputs
        The inputs of the check.
    steps, seeds
        The numbers of steps and seeds.
    variants
        An iterable of variants, which are made as needed.
    similarities
        The similarities to compute besides the two of the verdict.
    baseline
        Similarities are also computed over the pixels that differ from this value.
    verbose
        Progress, as for saliency_map.
    """
    differs = np.any(as_pictures(inputs.batch.preprocessed) != baseline, axis=-1)
    # If all pixels differ, both numbers are the same.
    masks: tuple[Mask, ...] = (None,) if differs.all() else (None, differs)
    plain = tuple(similarity.name for similarity in similarities)
    names = (COSINE, SIGNED, *plain, *(f"{name} (x != {baseline:g})" for name in plain))
    trained = [as_pictures(maps) for maps in inputs.trained.maps.values()]
    meters = [_meter(maps, similarities, masks) for maps in trained]
    shape = (len(meters), steps, len(names), len(trained[0]), seeds)
    values, chance = np.full(shape, np.nan), np.full(shape, np.nan)
    kept = _steps_shown(steps)
    pictures = np.full((len(meters), 1 + len(kept), *trained[0].shape[1:3]), np.nan, np.float16)
    pictures[:, 0] = [absolute(maps[:1])[0] for maps in trained]

    def record(variant: Variant, every: Sequence[Array]) -> None:
        for m, (meter, maps) in enumerate(zip(meters, every, strict=True)):
            at = m, variant.step, slice(None), slice(None), variant.seed
            values[at], chance[at] = meter(maps)
            if variant.seed == 0 and variant.step in kept:
                pictures[m, 1 + kept.index(variant.step)] = absolute(maps[:1])[0]

    with Progress(verbose, steps * seeds, "network", "randomized networks") as progress:
        _run_variants(inputs, variants, record, progress)
    return Comparison(names, values, chance, kept, pictures)


def _steps_shown(steps: int) -> tuple[int, ...]:
    """Return the indices of the steps in a figure: evenly spaced, plus the headline step."""
    spaced = np.linspace(0, steps - 1, _SHOWN - 2).round().astype(int).tolist()
    return tuple(sorted({*spaced, min(1, steps - 1)}))


def _run_variants(
    inputs: Inputs,
    variants: Iterable[Variant],
    record: Callable[[Variant, Sequence[Array]], None],
    progress: Progress,
) -> None:
    """Run all variants and record their maps."""
    # Maps are compared while TensorFlow computes the next ones; at most two sets wait.
    with ThreadPoolExecutor(1) as background:
        recording: Future[None] | None = None
        for variant in variants:
            with progress.part(1):
                every = [*map(as_pictures, inputs.attributions(variant.weights, variant.targets))]
                if recording:
                    recording.result()
                recording = background.submit(record, variant, every)
        if recording:
            recording.result()


def _meter(trained: Array, similarities: Sequence[Similarity], masks: Sequence[Mask]) -> Meter:
    """Return the function that compares maps with the trained network's.

    It returns two arrays (similarities, n): with the map of the same photo, and with that of the
    next photo. Both use the mask of the first.
    """
    units = normalize_maps(trained)
    own = _features(trained, similarities, masks)
    # The features of photo i - 1 in place i, to compare with the map of photo i.
    before = tf.nest.map_structure(lambda part: np.roll(part, 1, axis=0), own)

    def meter(maps: Array) -> tuple[Array, Array]:
        cells = compare_maps(units, normalize_maps(maps))
        other = _features(maps, similarities, masks)
        values = _compared(similarities, own, other)
        chance = np.roll(_compared(similarities, before, other), -1, axis=-1)
        if len(masks) == 1:
            values, chance = (np.repeat(table, 2, axis=1) for table in (values, chance))
        chance[:, 1:] = np.nan  # the next photo has another mask
        if len(maps) == 1:
            chance[:] = np.nan
        undefined = np.full(len(maps), np.nan)
        return (
            np.stack([cells.same, cells.signed, *_by_mask(values)]),
            np.stack([cells.other, undefined, *_by_mask(chance)]),
        )

    return meter


def _by_mask(table: Array) -> Array:
    """Reorder (similarities, masks, n) like the names: all similarities of a mask together."""
    return table.transpose(1, 0, 2).reshape(-1, table.shape[-1])


def _features(maps: Array, similarities: Sequence[Similarity], masks: Sequence[Mask]) -> list[Any]:
    preparations = {similarity.preparation for similarity in similarities}
    prepared = {preparation: preparation(maps) for preparation in preparations}
    return [s.features(prepared[s.preparation], masks) for s in similarities]


def _compared(similarities: Sequence[Similarity], a: list[Any], b: list[Any]) -> Array:
    """Compare features by each similarity; return (similarities, masks, n)."""
    tables = []
    for similarity, x, y in zip(similarities, a, b, strict=True):
        table = np.asarray(similarity.compare(x, y))
        if table.ndim != _TABLE_AXES:
            raise OptionError(
                f"Expected compare of the similarity {similarity.name!r} to return (n, masks). "
                f"Received: shape {table.shape}."
            )
        tables.append(table.T)
    return np.stack(tables)
