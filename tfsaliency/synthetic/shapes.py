"""Generated pictures of shapes, with masks of the relevant pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np

from ..arrays import Array
from ..display.progress import Progress, Verbose
from ..errors import check_int
from ..tables import Table
from .clutter import Rng, add_distractors, apart, backgrounds, contrasting, wobbly
from .outlines import OUTLINES, REACH, cover

CLASSES: tuple[str, ...] = tuple(OUTLINES)
VariantName = Literal["plain", "colored_distractor", "two_objects", "null_patch"]

_SMALLEST_SIZE = 32
_LARGEST_SIZE, _MOST = 1024, 10_000_000  # pixels, images
_CHUNK = 64  # pictures drawn at a time, with one seed
_CONTRAST = 170.0  # of the object, summed over colors
_HALF = 0.5  # coverage from which a pixel belongs to the mask
_GRAIN = 2.5  # standard deviation of pixel noise
_ALL = 0.045, 0.09  # range of the fraction of the picture that an object covers
_SMALL = 0.045, 0.075  # the same, beside another object or a patch
_MARK, _PATCH = 7 / 64, 16 / 64  # sides of the corner mark and of the null patch
_MARK_COLOR = (255.0, 0.0, 255.0)
# The color of each class in the variant "colored_distractor".
_COLORS = np.array(
    [
        (230, 30, 30), (30, 200, 40), (40, 70, 235), (235, 220, 30),
        (30, 215, 220), (215, 40, 215), (245, 130, 20), (245, 245, 245),
    ],
    float,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Images with a known answer.

    Parameters
    ----------
    images
        Images (n, h, w, c). Those of make_shapes are float32, integers of 0..255.
    labels
        The class of each image, (n,). Those of make_shapes are indices into synthetic.CLASSES.
    masks
        The pixels that determine the class, (n, h, w), bool.

    Examples
    --------
    >>> from tfsaliency import synthetic
    >>> data = synthetic.make_shapes(2, seed=0)
    >>> [synthetic.CLASSES[label] for label in data.labels]
    ['triangle', 'ring']
    """

    images: Array
    labels: Array
    masks: Array


class Scene(NamedTuple):
    """Pictures without their objects, and the parameters of the objects.

    Parameters
    ----------
    images
        The pictures before rounding, (n, h, w, 3).
    labels, areas, angles
        Parameters of the objects, (n, objects); areas in pixels.
    centers
        Row and column of the objects, in pixels, (n, objects, 2).
    colors
        Colors of the objects, (n, objects, 3).
    """

    images: Array
    labels: Array
    areas: Array
    angles: Array
    centers: Array
    colors: Array


def make_shapes(
    n: int,
    seed: int,
    size: int = 64,
    variant: VariantName = "plain",
    *,
    verbose: Verbose = "auto",
) -> GroundTruth:
    """Generate pictures of one object, whose shape is the class, on a cluttered background.

    The class is independent of the object's position and rotation, of its color except in the
    variant "colored_distractor", and of everything around it: 1/f textures, color gradients, and
    striped patches, blobs and lines with stronger edges than the object's. The mask is the whole
    object, although the contour alone determines the class.

    Parameters
    ----------
    n
        The number of pictures.
    seed
        The seed. The same seed gives the same pictures, and the first ones do not depend on n.
    size
        Height and width in pixels, at least 32.
    variant
        "plain": one object covers 4 to 10 % of the picture.
        "colored_distractor": each class has its own color, and a blob has the color of another
        class.
        "two_objects": two objects of different classes, left and right; a mark in an upper corner
        selects the one that counts. The mask contains that object and the mark.
        "null_patch": every picture contains the same patch of strong edges.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    GroundTruth: images (n, size, size, 3), labels (n,), masks (n, size, size).

    Raises
    ------
    OptionError
        If the variant is unknown, or a number is out of range.

    References
    ----------
    Yang and Kim 2019, "Benchmarking attribution methods with relative feature importance",
    arXiv:1907.09701 (null patch); Yona and Greenfeld 2021, "Revisiting sanity checks for saliency
    maps", arXiv:2110.14297 (two objects).

    Examples
    --------
    >>> from tfsaliency import synthetic
    >>> synthetic.make_shapes(3, seed=0).images.shape
    (3, 64, 64, 3)
    """
    VARIANTS.named(variant)
    check_int("n", n, 1, _MOST)
    check_int("seed", seed, 0)
    check_int("size", size, _SMALLEST_SIZE, _LARGEST_SIZE)
    parts = []
    with Progress(verbose, n, "picture", "drawing") as progress:
        for part in _chunks(n, seed, size, variant):
            parts.append(part)
            progress.advance(min(_CHUNK, n - _CHUNK * (len(parts) - 1)))
    names = [field.name for field in fields(GroundTruth)]
    columns = (np.concatenate([getattr(part, name) for part in parts])[:n] for name in names)
    return GroundTruth(*columns)


def _chunks(n: int, seed: int, size: int, variant: str) -> Iterator[GroundTruth]:
    # Each chunk is drawn completely, so that its pictures do not depend on n.
    for chunk in range(-(-n // _CHUNK)):
        rng = np.random.default_rng([seed, chunk, list(VARIANTS).index(variant)])
        yield VARIANTS[variant](rng, size)


def scene(rng: Rng, size: int, share: tuple[float, float], pair: bool = False) -> Scene:
    """Draw backgrounds and distractors, and the parameters of the objects.

    Only the outline depends on an object's class: its area, position, color and surroundings do
    not.

    Parameters
    ----------
    share
        The range of the fraction of the picture that an object covers.
    pair
        Whether there are two objects of different classes, left and right.
    """
    count = 1 + pair
    images, behind = backgrounds(rng, _CHUNK, size)
    labels = rng.integers(0, len(CLASSES), (_CHUNK, count))
    if pair:
        labels[:, 1] = (labels[:, 0] + rng.integers(1, len(CLASSES), _CHUNK)) % len(CLASSES)
    areas = rng.uniform(*share, (_CHUNK, count)) * size**2
    radii = REACH * np.sqrt(areas)
    room = np.array([size, size / count])  # rows and columns for each object
    start = np.array([[0.0, i * size / count] for i in range(count)])
    free = np.maximum(room - 2 * radii[..., None], 0.0)
    # More objects near the border, or the center would be a good guess.
    off_center = 0.5 * np.sin(np.pi * rng.uniform(-0.5, 0.5, (_CHUNK, count, 2)))
    centers = start + room / 2 + free * off_center
    colors = np.stack([contrasting(rng, behind, _CONTRAST) for _ in range(count)], axis=1)
    angles = rng.uniform(0, 2 * np.pi, (_CHUNK, count))
    add_distractors(rng, images, behind, centers, radii)
    return Scene(images, labels, areas, angles, centers, colors)


def finished(rng: Rng, drawn: Scene) -> tuple[Array, Array]:
    """Draw the objects into a scene; return images and the coverage (n, objects, h, w)."""
    images, masks = drawn.images.copy(), []
    for i in range(drawn.labels.shape[1]):
        labels, centers = drawn.labels[:, i], drawn.centers[:, i]
        alpha = cover(labels, centers, drawn.areas[:, i], drawn.angles[:, i], images.shape[1])
        images += alpha[..., None] * (drawn.colors[:, i, None, None] - images)
        masks.append(alpha >= _HALF)
    return pixels(rng, images), np.stack(masks, axis=1)


def pixels(rng: Rng, images: Array) -> Array:
    """Add pixel noise, and round to integers of 0..255, float32."""
    grainy = images + _GRAIN * rng.normal(size=images.shape)
    return np.round(np.clip(grainy, 0, 255)).astype(np.float32)


def _plain(rng: Rng, size: int) -> GroundTruth:
    """Draw one object."""
    drawn = scene(rng, size, _ALL)
    images, masks = finished(rng, drawn)
    return GroundTruth(images, drawn.labels[:, 0], masks[:, 0])


def _colored_distractor(rng: Rng, size: int) -> GroundTruth:
    """Draw an object in the color of its class, and a blob in the color of another class."""
    drawn = scene(rng, size, _SMALL)
    labels = drawn.labels[:, 0]
    others = (labels + rng.integers(1, len(CLASSES), _CHUNK)) % len(CLASSES)
    radii = np.sqrt(drawn.areas[:, 0] / np.pi)
    distance = REACH * np.sqrt(drawn.areas) + 1.3 * radii[:, None]
    places = apart(rng, drawn.centers, distance, radii, size)
    alpha = wobbly(rng, places, radii, 1.0, size)[..., None]
    drawn.images[:] += alpha * (_COLORS[others][:, None, None] - drawn.images)
    images, masks = finished(rng, drawn._replace(colors=_COLORS[drawn.labels]))
    return GroundTruth(images, labels, masks[:, 0])


def _two_objects(rng: Rng, size: int) -> GroundTruth:
    """Draw two objects, and a mark in an upper corner that selects one."""
    drawn = scene(rng, size, _SMALL, pair=True)
    images, masks = finished(rng, drawn)
    which = rng.integers(0, 2, _CHUNK)
    every = np.arange(_CHUNK)
    side = round(_MARK * size)
    marks = np.zeros((_CHUNK, size, size), bool)
    marks[which == 0, :side, :side] = True
    marks[which == 1, :side, -side:] = True
    images[marks] = _MARK_COLOR
    return GroundTruth(images, drawn.labels[every, which], masks[every, which] | marks)


def _null_patch(rng: Rng, size: int) -> GroundTruth:
    """Draw an object, and the same patch of strong edges into every picture."""
    drawn = scene(rng, size, _SMALL)
    side = round(_PATCH * size)
    patch = _rings(side)
    reach = REACH * np.sqrt(drawn.areas) + side * np.sqrt(0.5)
    places = apart(rng, drawn.centers, reach, np.full(_CHUNK, side / 2), size)
    corners = np.round(places - side / 2).astype(int)
    for image, (row, column) in zip(drawn.images, corners, strict=True):
        image[row : row + side, column : column + side] = patch
    images, masks = finished(rng, drawn)
    return GroundTruth(images, drawn.labels[:, 0], masks[:, 0])


def _rings(side: int) -> Array:
    """Return the null patch, (side, side, 3): black and yellow square rings."""
    steps = np.minimum(np.arange(side), np.arange(side)[::-1])
    ring = np.minimum(steps[:, None], steps) * 16 // side // 2 % 2
    return np.where(ring[..., None] == 0, (0.0, 0.0, 0.0), (255.0, 230.0, 0.0))


VARIANTS: Table[Callable[[Rng, int], GroundTruth]] = Table(
    "variant",
    {
        "plain": _plain,
        "colored_distractor": _colored_distractor,
        "two_objects": _two_objects,
        "null_patch": _null_patch,
    },
)
