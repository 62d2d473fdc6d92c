"""Photos from files, at the input size of a model."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .arrays import Array, pil_to_array
from .errors import ImageError, OptionError, unknown_option

Fit = Literal["crop", "squash"]
FITS = ("crop", "squash")

Photo = str | PathLike[str] | Image.Image


def load_images(
    paths: Photo | Iterable[Photo],
    model: Any = None,
    *,
    fit: Fit = "crop",
    size: tuple[int, int] | None = None,
) -> Array:
    """Read photos at the input size of a model, upright, with values 0..255.

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

    Returns
    -------
    Array (n, h, w, c), float32, 0..255, RGB for three channels.

    Raises
    ------
    ImageError
        If a file is missing, truncated, not an image, or has more than 8 bits a channel.
    OptionError
        If fit is unknown, or neither the model nor size gives a size.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from PIL import Image
    >>> tfs.load_images(Image.new("RGB", (640, 480)), size=(32, 32)).shape
    (1, 32, 32, 3)
    """
    if fit not in FITS:
        raise unknown_option("fit", fit, FITS)
    h, w, c = _target_shape(model, size)
    photos = [paths] if isinstance(paths, (str, PathLike, Image.Image)) else list(paths)
    if not photos:
        raise ImageError("Expected one photo or more. Received: none.")
    return np.stack([_read(photo, h, w, c, fit) for photo in photos])


def _target_shape(model: Any, size: tuple[int, int] | None) -> tuple[int, int, int]:
    # A subclassed model does not know its input's shape.
    shape = tuple(getattr(model, "input_shape", None) or (None, None, None, 3))
    if len(shape) != 4:
        raise OptionError(
            f"Expected a model of images (n, h, w, c). Received: input shape {shape}."
        )
    h, w = shape[1:3] if size is None else size if isinstance(size, (tuple, list)) else (None, None)
    if not h or not w:
        raise OptionError(
            "Expected a model of a fixed input size, or size=(h, w). "
            f"Received: input shape {shape}, size={size}."
        )
    return h, w, shape[3] or 3


def _read(photo: Photo, h: int, w: int, c: int, fit: str) -> Array:
    if isinstance(photo, Image.Image):
        return _fitted(photo, h, w, c, fit)
    try:
        path = Path(photo)
    except TypeError as error:
        raise ImageError(
            f"Expected the path of a photo, or a PIL image. Received: {type(photo).__name__}. "
            "Pass arrays to saliency_map directly."
        ) from error
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise ImageError(f"{what}. Expected the path of a photo.")
        with Image.open(path) as image:
            return _fitted(image, h, w, c, fit)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image that Pillow can read. Expected JPEG, PNG or another of its "
            f"formats. Received: {path.stat().st_size} bytes of something else."
        ) from error
    except PermissionError as error:
        raise ImageError(f"{path}: permission denied. Expected a readable file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path}: cannot be read to the end ({error}). Expected a complete image file; "
            "download or copy it again."
        ) from error


def _fitted(image: Image.Image, h: int, w: int, c: int, fit: str) -> Array:
    upright = ImageOps.exif_transpose(image)
    # Channels first, so that a palette is not interpolated.
    array = pil_to_array(upright, c)
    pixels = Image.fromarray(array[..., 0] if c == 1 else array)
    if fit == "crop":
        sized = ImageOps.fit(pixels, (w, h), method=Image.Resampling.BICUBIC)
    else:
        sized = pixels.resize((w, h), Image.Resampling.BICUBIC)
    return np.asarray(sized, dtype=np.float32).reshape(h, w, c)
