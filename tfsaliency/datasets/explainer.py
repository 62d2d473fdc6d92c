"""The explainer of a run: from elements of a source to rows of a part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..arrays import Array, digest_array
from ..engine.model_io import Batch
from ..engine.targets import resolve_targets
from ..errors import ImageError, OptionError, TfSaliencyError, one_line
from ..image_io import decode_photo, read_photo, target_shape
from ..maps import Options, explain, resolve_reductions
from ..methods.table import Method
from ..prepared import Prepared
from ..saliency_maps import SaliencyMaps
from ..tables import Fit, as_text
from .parts import COLUMNS, Rows, encode_rows
from .sources import Element, Fetch

FROM_SOURCE = "labels"  # targets


@dataclass(frozen=True, eq=False)
class Job:
    """The treatment of each image; see explain_dataset.

    Parameters
    ----------
    prepared, methods
        The prepared model and the methods.
    codes
        The code of each method's maps.
    label_names
        The names that stand for classes, in the order of the model's outputs.
    others
        As for explain_dataset.
    """

    prepared: Prepared
    methods: tuple[Method, ...]
    codes: dict[str, Any]
    targets: Any = None
    class_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    reduction: Any = None
    fit: Fit = "crop"
    size: tuple[int, int] | None = None
    batch_size: int = 32


class Decoded(NamedTuple):
    """An element with its pixels (h, w, c), or with the error that it has instead."""

    element: Element
    sha256: str = ""
    pixels: Array | None = None
    pixels_sha256: str = ""
    target: Any = None
    error: str = ""


class Checked(NamedTuple):
    """A batch of elements, and the checked inputs of the valid ones; None if there are none."""

    batch: list[Decoded]
    inputs: Batch | None


@dataclass(frozen=True, eq=False)
class Done:
    """A batch of elements, without their pixels, with what the model says of the valid ones.

    Parameters
    ----------
    decoded
        All elements.
    valid
        The places of the valid ones.
    answers
        Target, class name, score, confidence and problems of each valid one.
    maps
        Their maps by method, (k, ...); empty if none is valid.
    """

    decoded: list[Decoded]
    valid: list[int]
    answers: list[list[Any]]
    maps: Mapping[str, Array]


class Explainer:
    """Decodes elements, and explains them in batches."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reduce = resolve_reductions(job.methods, job.reduction)
        self._classes: int | None = None

    def decode(self, fetch: Fetch, number: int) -> Decoded:
        """Fetch an element and decode its image; an error of either becomes part of the result."""
        element = Element(str(number), b"")
        digest = ""
        try:
            element = fetch()
            image = element.image
            if hasattr(image, "read_bytes"):
                image = read_photo(image)
            digest = _digest(image)
            pixels = self._pixels(image, element)
            shown = digest if pixels is image else _digest_pixels(pixels)
            return Decoded(element, digest, pixels, shown, self._target(element.label))
        except ImageError as error:
            return Decoded(element, digest, error=one_line(error))
        except TfSaliencyError:  # of an option, so that all images would fail
            raise
        except Exception as error:  # of the caller's source
            text = f"{type(error).__name__}: {one_line(error)}"
            return Decoded(element, digest, error=text)

    def _pixels(self, image: Any, element: Element) -> Array:
        job = self._job
        if isinstance(image, (bytes, Image.Image)):
            shape = target_shape(job.prepared, job.size)
            return decode_photo(image, element.path or element.id, shape, job.fit)
        array = np.asarray(image)
        if array.ndim == 0:
            raise ImageError(f"Expected an image. Received: {image!r:.100}.")
        return array

    def _target(self, label: str | int | None) -> Any:
        """Return the target of an image, or raise ImageError for a label that is no class."""
        job = self._job
        if job.targets != FROM_SOURCE:
            return job.targets
        if label is None:
            raise ImageError("Expected a label for targets='labels'. Received: none.")
        try:
            return int(resolve_targets(label, 1, job.label_names or None)[0])
        except OptionError as error:
            raise ImageError(str(error)) from error

    def batches(self, decoded: Iterable[Decoded]) -> Iterator[list[Decoded]]:
        """Group elements, in their order, into batches of images of one shape."""
        batch: list[Decoded] = []
        images, shape = 0, None
        for each in decoded:
            own = None if each.pixels is None else each.pixels.shape
            if images == self._job.batch_size or (images and own not in (None, shape)):
                yield batch
                batch, images = [], 0
            batch.append(each)
            if own is not None:
                images, shape = images + 1, own
        if batch:
            yield batch

    def check(self, batch: list[Decoded]) -> Checked:
        """Check and preprocess a batch; images that the model cannot take get an error."""
        inputs = self._check(batch)
        if inputs is None:
            batch = [self._checked(each) for each in batch]
            inputs = self._check(batch)
        return Checked(batch, inputs)

    def explain(self, checked: Checked) -> Done:
        """Compute the maps of a batch; images whose label is no class get an error."""
        batch, inputs = checked
        if inputs is not None and self._classes is None:
            self._classes = self._job.prepared.trace(self._job.methods, inputs).classes
            self._check_label_names()
        if any(map(self._is_unknown, batch)):
            batch = [self._with_known_target(each) for each in batch]
            inputs = self._check(batch)
        valid = [i for i, each in enumerate(batch) if each.pixels is not None]
        bare = [each._replace(pixels=None) for each in batch]
        if inputs is None:
            return Done(bare, [], [], {})
        maps = self._maps(inputs, [batch[i] for i in valid])
        return Done(bare, valid, [_answers(maps, k) for k in range(len(valid))], maps.maps)

    def _check(self, batch: list[Decoded]) -> Batch | None:
        """Check the valid images of a batch; None if there are none, or the model refuses one."""
        pixels = [each.pixels for each in batch if each.pixels is not None]
        try:
            return self._job.prepared.check(np.stack(pixels)) if pixels else None
        except ImageError:
            return None

    def _checked(self, decoded: Decoded) -> Decoded:
        """Return a decoded image as it is, or with the error that it makes alone."""
        if decoded.pixels is None:
            return decoded
        try:
            self._job.prepared.check(decoded.pixels[np.newaxis])
        except ImageError as error:
            return decoded._replace(pixels=None, error=one_line(error))
        return decoded

    def _check_label_names(self) -> None:
        """Raise OptionError if the names of labels do not stand for the classes of the model."""
        named = len(self._job.label_names)
        if self._job.targets == FROM_SOURCE and named and named != self._classes:
            raise OptionError(
                f"Expected {self._classes} names of labels, as many as the model has classes. "
                f"Received: {named}. Pass class_names= in the order of the model's outputs."
            )

    def _is_unknown(self, decoded: Decoded) -> bool:
        """Return whether the label of a valid image is no class of the model."""
        of_source = self._job.targets == FROM_SOURCE and decoded.pixels is not None
        return of_source and decoded.target >= (self._classes or np.inf)

    def _with_known_target(self, decoded: Decoded) -> Decoded:
        if not self._is_unknown(decoded):
            return decoded
        text = f"Expected a label below {self._classes}, the number of classes. Received: "
        return decoded._replace(pixels=None, error=f"{text}{decoded.target}.")

    def _maps(self, checked: Batch, valid: Sequence[Decoded]) -> SaliencyMaps:
        job = self._job
        targets = None if job.targets is None else [each.target for each in valid]
        options = Options(
            targets, job.class_names or None, job.batch_size, "ignore", 0, job.reduction
        )
        return explain(job.prepared, checked, job.methods, self._reduce, options)

    def encode(self, done: Done) -> Rows:
        """Return the rows of a batch, with encoded maps."""
        rows = Rows({name: [] for name in COLUMNS}, {name: [] for name in self._job.codes})
        encoded = {
            name: encode_rows(done.maps[name], code)
            for name, code in self._job.codes.items()
            if name in done.maps
        }
        places = {i: k for k, i in enumerate(done.valid)}
        for i, decoded in enumerate(done.decoded):
            element, k = decoded.element, places.get(i)
            label = None if element.label is None else as_text(str(element.label))
            error = as_text(decoded.error) if decoded.error else None
            digests = decoded.sha256 or None, decoded.pixels_sha256 or None
            known = [element.id, element.path or None, *digests, label]
            answers = [None] * 5 if k is None else done.answers[k]
            for name, value in zip(COLUMNS, [*known, *answers, error], strict=True):
                rows.columns[name].append(value)
            for name, column in rows.maps.items():
                column.append(None if k is None else encoded[name][k])
        return rows


def _answers(maps: SaliencyMaps, k: int) -> list[Any]:
    """Return target, class name, score, confidence and problems of an image."""
    target = int(maps.targets[k])
    named = maps.class_name(target) if maps.class_names and target >= 0 else None
    problems = [
        ": ".join([problem.cause, ", ".join(problem.methods)]) if problem.methods else problem.cause
        for problem in maps.problems
        if k in problem.images
    ]
    return [target, named, float(maps.scores[k]), maps.confidence(k), problems]


def _digest_pixels(pixels: Array) -> str:
    """Return the sha256 of a decoded photo, whose values are whole numbers of 0..255."""
    return digest_array(pixels.astype(np.uint8))


def _digest(image: Any) -> str:
    """Return the sha256 of the bytes of an image's file, or of its pixels."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return digest_array(np.asarray(image))
