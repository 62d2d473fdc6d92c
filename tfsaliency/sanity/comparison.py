"""Runs a network with other weights or for other classes, and compares the maps.

The maps of the trained network are made and prepared once; then the same trace is run for each
variant, and every number goes into one array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from .arrays import Array, batches
from .engines import Batch, run
from .errors import OptionError
from .gradients import Trace
from .maps import SaliencyMaps
from .methods import Method
from .prepared import Prepared
from .similarity import RESERVED, Similarity
from .similarity.kinds import Mask, absolute
from .verdicts import compare, unit_maps

COSINE, SIGNED = RESERVED

Meter = Callable[[Array], tuple[Array, Array]]

_TABLE_AXES = 2
_SHOWN = 12  # maps of a method in a figure, that of the trained network included


class Variant(NamedTuple):
    """What is run beside the trained network.

    Parameters
    ----------
    step, seed
        The indices of the step and of the seed.
    weights
        In the order of the model's, None for one that stays; or None for all of them.
    targets
        The classes to explain, (n,).
    """

    step: int
    seed: int
    weights: Sequence[Array | None] | None
    targets: Array


class Smoothing(NamedTuple):
    """Averages maps over noisy images.

    Parameters
    ----------
    samples
        How many.
    noise
        The standard deviation, as a fraction of an image's max - min.
    """

    samples: int
    noise: float


class Subject(NamedTuple):
    """What is checked.

    Parameters
    ----------
    prepared, methods, batch, trace
        The model, its methods, what it gets, and the trace that all of them share.
    trained
        The maps of the trained network, which say what is explained.
    batch_size
        How many images go through the model at a time.
    smoothing
        Whether maps are averaged over noisy images.
    """

    prepared: Prepared
    methods: tuple[Method, ...]
    batch: Batch
    trace: Trace
    trained: SaliencyMaps
    batch_size: int
    smoothing: Smoothing | None = None

    def maps(self, weights: Sequence[Array | None] | None, targets: Array) -> list[Array]:
        """Return the attributions of each method, (n, h, w, c)."""
        if self.smoothing is None:
            return self._maps(self.batch, weights, targets)
        total: list[Array] = []
        for noisy in _noisy(self.batch, self.smoothing):
            maps = self._maps(noisy, weights, targets)
            total = [a + b for a, b in zip(total, maps, strict=True)] if total else maps
        return [maps / self.smoothing.samples for maps in total]

    def _maps(
        self, batch: Batch, weights: Sequence[Array | None] | None, targets: Array
    ) -> list[Array]:
        parts = []
        for part in batches(len(batch.images), batch.inputs.batch or self.batch_size):
            result = run(self.trace, batch, part, targets[part], weights, self.batch_size)
            parts.append([gradient.numpy() for gradient in result.gradients])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


class Measured(NamedTuple):
    """The numbers of a check, with the axes method, step, similarity, image, seed.

    Parameters
    ----------
    similarities
        The names along the third axis.
    values
        Of maps of the same photo.
    floors
        Of maps of different photos.
    trained
        The trained network's attributions of each method, (n, h, w, c).
    steps, maps
        For the figures: some steps, and (methods, 1 + steps, h, w) maps of the first photo, of the
        trained network and of the first seed's at each of them, float16, rescaled to [0, 1].
    """

    similarities: tuple[str, ...]
    values: Array
    floors: Array
    trained: list[Array]
    steps: tuple[int, ...]
    maps: Array


def measure(
    subject: Subject,
    steps: int,
    seeds: int,
    variants: Iterable[Variant],
    similarities: Sequence[Similarity],
    baseline: float,
    verbose: int,
) -> Measured:
    """Run all variants and compare their maps with those of the trained network.

    Parameters
    ----------
    subject
        What is checked.
    steps, seeds
        How many of each there are.
    variants
        Made one after the other, as they are needed.
    similarities
        Which are computed beside what the verdict rests on.
    baseline
        Similarities are also computed over the pixels that differ from it.
    verbose
        Whether there is a progress bar.
    """
    differs = np.any(subject.batch.images_in != baseline, axis=-1)
    # Where all pixels differ, the numbers over those are the numbers over all.
    masks: tuple[Mask, ...] = (None,) if differs.all() else (None, differs)
    off = f" (x != {baseline:g})"
    names = (COSINE, SIGNED, *(s.name for s in similarities))
    names += tuple(s.name + off for s in similarities)
    trained = list(subject.trained.maps.values())
    if subject.smoothing is not None:
        trained = subject.maps(None, subject.trained.targets)
    meters = [_meter(maps, similarities, masks) for maps in trained]
    shape = (len(meters), steps, len(names), len(trained[0]), seeds)
    values, floors = np.full(shape, np.nan), np.full(shape, np.nan)
    spaced = np.linspace(0, steps - 1, _SHOWN - 2).round().astype(int).tolist()
    kept = tuple(sorted({*spaced, min(1, steps - 1)}))
    pictures = np.full((len(meters), 1 + len(kept), *trained[0].shape[1:3]), np.nan, np.float16)
    pictures[:, 0] = [absolute(maps[:1])[0] for maps in trained]
    bar = keras.utils.Progbar(steps * seeds, unit_name="network") if verbose else None

    def record(variant: Variant, every: Sequence[Array]) -> None:
        for m, (meter, maps) in enumerate(zip(meters, every, strict=True)):
            at = m, variant.step, slice(None), slice(None), variant.seed
            values[at], floors[at] = meter(maps)
            if variant.seed == 0 and variant.step in kept:
                pictures[m, 1 + kept.index(variant.step)] = absolute(maps[:1])[0]

    # Maps are compared while TensorFlow makes the next ones; no more than two sets wait.
    with ThreadPoolExecutor(1) as background:
        recording: Future[None] | None = None
        for done, variant in enumerate(variants, start=1):
            every = subject.maps(variant.weights, variant.targets)
            if recording:
                recording.result()
            recording = background.submit(record, variant, every)
            if bar:
                bar.update(done)
        if recording:
            recording.result()
    return Measured(names, values, floors, trained, kept, pictures)


def _meter(trained: Array, similarities: Sequence[Similarity], masks: Sequence[Mask]) -> Meter:
    """Return the function that compares maps with the trained network's.

    It returns two arrays (similarities, n): of the same photo, and of the next one. One mask stands
    for both.
    """
    units = unit_maps(trained)
    own = _features(trained, similarities, masks)
    # In the place of each photo the one before it: with these, the next photo's are compared.
    before = tf.nest.map_structure(lambda part: np.roll(part, 1, axis=0), own)

    def meter(maps: Array) -> tuple[Array, Array]:
        cells = compare(units, unit_maps(maps))
        other = _features(maps, similarities, masks)
        values = _compared(similarities, own, other)
        floors = np.roll(_compared(similarities, before, other), -1, axis=-1)
        if len(masks) == 1:
            values, floors = (np.repeat(table, 2, axis=1) for table in (values, floors))
        floors[:, 1:] = np.nan  # the next photo has other pixels to look at
        if len(maps) == 1:
            floors[:] = np.nan
        undefined = np.full(len(maps), np.nan)
        return (
            np.stack([cells.same, cells.signed, *_by_mask(values)]),
            np.stack([cells.other, undefined, *_by_mask(floors)]),
        )

    return meter


def _by_mask(table: Array) -> Array:
    """Put (similarities, masks, n) in the order of the names: all of a mask together."""
    return table.transpose(1, 0, 2).reshape(-1, table.shape[-1])


def _features(maps: Array, similarities: Sequence[Similarity], masks: Sequence[Mask]) -> list[Any]:
    preparations = {similarity.preparation for similarity in similarities}
    prepared = {preparation: preparation(maps) for preparation in preparations}
    return [s.features(prepared[s.preparation], masks) for s in similarities]


def _compared(similarities: Sequence[Similarity], a: list[Any], b: list[Any]) -> Array:
    """Return (similarities, masks, n)."""
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


def _noisy(batch: Batch, smoothing: Smoothing) -> Iterator[Batch]:
    """Yield batches with noise in the images as the model gets them; always the same noise."""
    images = batch.images_in.astype(np.float64)
    axes = tuple(range(1, images.ndim))
    sigma = smoothing.noise * np.ptp(images, axis=axes, keepdims=True)
    for sample in range(smoothing.samples):
        noise = np.random.default_rng(sample).normal(size=images.shape)
        noisy = (images + sigma * noise).astype(batch.images_in.dtype)
        arrays = list(batch.arrays)
        arrays[batch.inputs.explained] = noisy
        yield batch._replace(arrays=tuple(arrays))
