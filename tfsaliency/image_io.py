"""Photos from files, at the input size of a model."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .arrays import Array, with_channels
from .display.progress import Progress, Verbose
from .errors import ImageError, OptionError, check_choice, one_line
from .tables import Fit

FITS: tuple[Fit, ...] = get_args(Fit)

Photo = str | PathLike[str] | Image.Image

# Files of a folder that count as photos.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jp2", ".png", ".webp", ".avif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
)
MAX_PIXELS = 89_478_485  # above which Pillow warns by default: 256 MB in RGB
_HALF = 127.5  # of 255, at the edges of a resized mask
_SPARE = 2.0  # a JPEG is decoded at least at twice the size needed
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)
# What makes an image of each orientation upright (Exif 3.0, table 6); 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_images(
    paths: Photo | Iterable[Photo],
    model: Any = None,
    *,
    fit: Fit = "crop",
    size: tuple[int, int] | None = None,
    verbose: Verbose = "auto",
) -> Array:
    """Read photos at the input size of a model, upright, with values 0..255.

    Transparent pixels are put on white. Of images of more than 89,478,485 pixels, which take
    gigabytes, a JPEG is decoded at a fraction of its size, and others are refused.

    Parameters
    ----------
    paths
        One path or PIL image, or several.
    model
        A model, prepared or not, that gives the size and the number of channels.
    fit
        "crop" cuts the largest centered part of the model's aspect ratio, then resizes; "squash"
        resizes both sides independently, which distorts the photo. Both are bicubic.
    size
        (h, w) in pixels, instead of the model's; required for a model of variable size.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    Array (n, h, w, c), float32, 0..255, RGB for three channels.

    Raises
    ------
    ImageError
        If a file is missing, damaged, not an image, has more than 8 bits a channel, or too many
        pixels.
    OptionError
        If fit is unknown, or neither the model nor size gives a size.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from PIL import Image
    >>> tfs.load_images(Image.new("RGB", (640, 480)), size=(32, 32)).shape
    (1, 32, 32, 3)
    """
    check_choice("fit", fit, FITS)
    target = target_shape(model, size)
    photos = _listed(paths)
    read = []
    with Progress(verbose, len(photos), "photo", "reading") as progress:
        for i, photo in enumerate(photos):
            read.append(_read(photo, i, target, fit))
            progress.advance(1)
    return np.stack(read)


def list_photos(folder: str | PathLike[str]) -> list[str]:
    """Return the paths of all photos below a folder, sorted; hidden ones are left out."""
    found = []
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(inside, name)
            for name in names
            if name.lower().endswith(PHOTO_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def decode_photo(
    photo: bytes | Image.Image, name: str, size: tuple[int, int, int], fit: Fit
) -> Array:
    """Decode the bytes of a photo, or an open one, as load_images does; `size` is (h, w, c)."""
    with _named_errors(name):
        if isinstance(photo, Image.Image):
            return _fitted(photo, size, fit)
        with Image.open(io.BytesIO(photo)) as image:
            _decode_smaller(image, size, fit)
            return _fitted(image, size, fit)


def read_photo(path: str | PathLike[str]) -> bytes:
    """Return the bytes of a photo's file, or raise ImageError."""
    with _named_errors(str(path)):
        return _path(path).read_bytes()


def target_shape(model: Any, size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return the shape (h, w, c) of the images of a model, with another size if it is given."""
    # A subclassed model does not know its input's shape.
    shape = tuple(getattr(model, "input_shape", None) or (None, None, None, 3))
    if len(shape) != 4:
        raise OptionError(
            f"Expected a model of images (n, h, w, c). Received: input shape {shape}."
        )
    if size is not None and not _is_size(size):
        raise OptionError(f"Expected size=(h, w) in pixels, two ints. Received: {size!r:.100}.")
    h, w = shape[1:3] if size is None else size
    if not h or not w:
        raise OptionError(
            "Expected a model of a fixed input size, or size=(h, w). "
            f"Received: input shape {shape}, size={size}."
        )
    if h * w > MAX_PIXELS:
        raise OptionError(f"Expected a size of at most {MAX_PIXELS:,} pixels. Received: {h} x {w}.")
    return int(h), int(w), shape[3] or 3


def _is_size(size: Any) -> bool:
    def whole(side: Any) -> bool:
        known = isinstance(side, (int, np.integer)) and not isinstance(side, bool)
        return known and bool(side > 0)

    return isinstance(size, (tuple, list)) and len(size) == 2 and all(map(whole, size))


def _listed(paths: Any) -> list[Any]:
    """Return one photo or several as a list, or raise ImageError."""
    if isinstance(paths, (str, PathLike, Image.Image)):
        return [paths]
    try:
        photos = list(paths)
    except TypeError as error:
        raise ImageError(
            "Expected the path of a photo, a PIL image, or a list of these. "
            f"Received: {type(paths).__name__}."
        ) from error
    if not photos:
        raise ImageError("Expected one photo or more. Received: none.")
    return photos


def load_mask(
    path: str | PathLike[str], photo: str | PathLike[str], size: tuple[int, int], fit: Fit
) -> Array:
    """Read the mask of a photo, cut and resized as load_images does with the photo.

    Parameters
    ----------
    path
        The mask, an image of the photo's size as it is shown. Pixels other than 0 count, unless
        they are transparent; of a palette, numbers other than 0.
    photo
        The photo.
    size, fit
        The size (h, w) and the way of load_images.

    Returns
    -------
    Array (h, w) of bool: whether a pixel is at least half inside.

    Raises
    ------
    ImageError
        If one of the two cannot be read, or they differ in size.
    """
    with _named_errors(str(photo)), Image.open(_path(photo)) as image:
        sideways = _TURNS.get(_orientation(image)) in _SIDEWAYS
        shown = image.size[::-1] if sideways else image.size
    with _named_errors(str(path)), Image.open(_path(path)) as mask:
        if mask.size != shown:
            raise ImageError(
                f"Expected a mask of the photo's size, {shown[0]} x {shown[1]} pixels. Received: "
                f"{mask.width} x {mask.height}."
            )
        if mask.has_transparency_data:
            *colors, opaque = np.moveaxis(np.asarray(mask.convert("RGBA")), -1, 0)
            inside = np.any(colors, axis=0) & (opaque > 0)
        else:
            pixels = np.asarray(mask)
            inside = pixels.any(axis=-1) if pixels.ndim > 2 else pixels != 0
    whole = Image.fromarray(np.uint8(255) * inside.astype(np.uint8))
    return np.asarray(_fitted(whole, (*size, 1), fit)[..., 0] >= _HALF)


def _read(photo: Photo, number: int, size: tuple[int, int, int], fit: Fit) -> Array:
    """Read one photo."""
    if isinstance(photo, Image.Image):
        return decode_photo(photo, f"image {number}", size, fit)
    name = str(photo) if isinstance(photo, (str, PathLike)) else f"image {number}"
    with _named_errors(name), Image.open(_path(photo)) as image:
        _decode_smaller(image, size, fit)
        return _fitted(image, size, fit)


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError that names the photo."""
    try:
        with warnings.catch_warnings():  # Pillow's, of many pixels: _fitted has a limit of its own
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image that Pillow can read. Expected JPEG, PNG or another of its "
            "formats. Received: something else, or a damaged file."
        ) from error
    except PermissionError as error:
        raise ImageError(f"{name}: permission denied. Expected a readable file.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: has too many pixels ({one_line(error)}). Expected at most {MAX_PIXELS:,}. "
            "Save a smaller copy."
        ) from error
    except Exception as error:  # decoders raise anything, RecursionError and MemoryError too
        raise ImageError(
            f"{name}: cannot be read to the end ({one_line(error) or type(error).__name__}). "
            "Expected a complete image file; download or copy it again."
        ) from error


def _path(photo: Any) -> Path:
    """Return the path of a photo, or raise ImageError if there is no such file."""
    try:
        path = Path(photo)
    except TypeError as error:
        raise ImageError(
            f"Expected the path of a photo, or a PIL image. Received: {type(photo).__name__}. "
            "Open files with PIL.Image.open; pass arrays to saliency_map directly."
        ) from error
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ImageError(f"{what}. Expected the path of a photo.")
    return path


def _fitted(image: Image.Image, size: tuple[int, int, int], fit: str) -> Array:
    h, w, c = size
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"has {image.width} x {image.height} pixels. Expected at most {MAX_PIXELS:,} in all. "
            "Save a smaller copy."
        )
    # Channels first, so that a palette is not interpolated.
    upright = with_channels(image, c)
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        upright = upright.transpose(turn)
    if fit == "crop":
        sized = ImageOps.fit(upright, (w, h), method=Image.Resampling.BICUBIC)
    else:
        sized = upright.resize((w, h), Image.Resampling.BICUBIC)
    return np.asarray(sized, dtype=np.float32).reshape(h, w, c)


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation of an image; None if it has none that can be read.

    The other tags are left alone: ImageOps.exif_transpose writes all of them anew, and raises an
    error for a tag of an odd type.
    """
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged tag does not make the picture unreadable
        return None


def _decode_smaller(image: Image.Image, size: tuple[int, int, int], fit: str) -> None:
    """Let the decoder of a huge JPEG leave out pixels that resizing would average away.

    The rest is decoded completely, because the numbers of a network change otherwise: by .03 for
    the probability of a photo's class.
    """
    if image.format not in ("JPEG", "MPO") or image.width * image.height <= MAX_PIXELS:
        return
    sideways = _TURNS.get(_orientation(image)) in _SIDEWAYS
    w, h = size[:2] if sideways else size[1::-1]
    across, down = w / image.width, h / image.height
    scale = max(across, down)  # "squash" needs both sides, "crop" fills both
    needed = (image.width * scale, image.height * scale) if fit == "crop" else (w, h)
    across, down = (int(_SPARE * side) + 1 for side in needed)
    image.draft(None, (across, down))
