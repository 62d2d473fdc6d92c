"""Maps while a model trains: a Keras callback that writes to TensorBoard or to PNG files."""

from __future__ import annotations

import importlib.util
import io
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from ..arrays import Array
from ..diagnostics import OnProblem, check_on_problem
from ..engine.scores import Score
from ..errors import OptionError, check_flag, check_int
from ..maps import saliency_map
from ..methods.table import MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, prepare
from ..saliency_maps import SaliencyMaps
from ..storage import replacing
from ..tables import ReductionName, ScoreName
from .maps_figure import check_overlay, describe_maps, plot_maps, reduce_channels
from .tiles import are_pictures, as_picture, color_map, overlay_map

_TAG, _IMAGES = "saliency", "images"
_PNG = "epoch_{}.png"
_DPI = 100


class SaliencyCallback(keras.callbacks.Callback):
    """Write the maps of some images at the end of epochs, to TensorBoard, PNG files, or both.

    Training is not affected: weights, optimizer and random states are those of a fit without the
    callback. It takes the time of saliency_map for these images, after compiling once; `seconds`
    has the time of each epoch, as does TensorBoard.

    Parameters
    ----------
    images
        Images (n, h, w, c) to watch, as for saliency_map.
    methods, targets, class_names, reduction, layer, region, batch_size, on_problem
        As for saliency_map. With targets of None, the class may change from epoch to epoch.
    score, preprocess, input, output
        As for prepare.
    log_dir
        The folder of TensorBoard's event files, such as that of keras.callbacks.TensorBoard. There
        is an image for each method and photo, at the step of the epoch, counted from 0 as Keras
        does there. Needs the extra "tensorboard".
    png_dir
        The folder for figures "epoch_0001.png", counted from 1 as Keras prints epochs.
    every
        The number of epochs from one writing to the next.
    overlay
        Whether maps lie over their images.

    Raises
    ------
    OptionError
        If there is neither log_dir nor png_dir, or an option is unknown.
    ImportError
        If log_dir is given and tensorboard is not installed.
    ImageError, ModelError
        When training begins: as for saliency_map. For a model that is built by its first batch,
        behind that.

    References
    ----------
    Simonyan et al. 2013, arXiv:1312.6034 (the default method).

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> images, labels = np.random.default_rng(0).uniform(size=(16, 8, 8, 3)), np.arange(16) % 2
    >>> watch = tfs.SaliencyCallback(images[:2], png_dir="watch")
    >>> history = model.fit(images, labels, epochs=2, callbacks=[watch], verbose=0)
    >>> import os
    >>> sorted(os.listdir("watch")), len(watch.seconds)
    (['epoch_0001.png', 'epoch_0002.png'], 2)
    """

    def __init__(
        self,
        images: Any,
        methods: MethodsArgument = "gradient",
        *,
        log_dir: str | PathLike[str] | None = None,
        png_dir: str | PathLike[str] | None = None,
        every: int = 1,
        overlay: bool = True,
        targets: Any = None,
        class_names: Sequence[str] | None = None,
        score: ScoreName | Score | None = None,
        preprocess: Preprocess | None = None,
        input: str | int | None = None,
        output: str | int | None = None,
        reduction: ReductionName | None = None,
        layer: Any = None,
        region: Any = None,
        batch_size: int = 32,
        on_problem: OnProblem = "warn",
    ) -> None:
        super().__init__()
        check_int("every", every, 1)
        check_flag("overlay", overlay)
        if log_dir is None and png_dir is None:
            raise OptionError(
                "Expected log_dir, a folder for TensorBoard, or png_dir, a folder for pictures. "
                "Received: neither."
            )
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "Expected tensorboard, to write images for log_dir. Received: an environment "
                "without it; TensorFlow no longer brings it. Install it: pip install "
                "'tfsaliency[tensorboard]', or pip install tensorboard. Or use png_dir instead."
            )
        self.seconds: list[float] = []
        self._images, self._methods = images, resolve_methods(methods)
        self._options = {
            "targets": targets,
            "class_names": class_names,
            "reduction": reduction,
            "layer": layer,
            "region": region,
            "batch_size": batch_size,
        }
        self._prepare = partial(
            prepare, score=score, preprocess=preprocess, input=input, output=output
        )
        self._prepared: Prepared | None = None
        check_on_problem(on_problem)
        self._on_problem = on_problem
        self._log_dir, self._png_dir = log_dir, png_dir
        self._every, self._overlay = every, overlay
        self._writer: Any = None
        self._logged = self._tried = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Try everything once, so that an error comes now, and not behind the first epoch."""
        self._prepared = None  # the model may be another one
        if self._png_dir is not None:
            self._claim(Path(self._png_dir))
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))
            self._logged = False
        self._tried = False
        self._try()

    # With on_train_batch_end, Keras would wait for each batch.
    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Try everything on a model that was built by its first batch."""
        self._try()

    def _try(self) -> None:
        """Explain and draw once, and forget the result."""
        if self._tried or not self.model.built:
            return
        self._tried = True
        maps = self._explain("ignore")
        if self._png_dir is not None:
            _draw(maps, self._overlay, "")
        if self._log_dir is not None:
            _pictures(maps, self._overlay)

    def _claim(self, folder: Path) -> None:
        """Make the folder, and warn if it has pictures of another training."""
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"Expected png_dir as a folder. Received: the file {folder}.")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob(_PNG.format("*"))):
            warnings.warn(
                f"{folder} has pictures of an earlier training. Those of the same epochs will be "
                "replaced; give each training a png_dir of its own.",
                stacklevel=2,
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the maps of the model as it is now."""
        if (epoch + 1) % self._every:
            return
        start = time.monotonic()
        maps = self._explain(self._on_problem)
        if self._png_dir is not None:
            name = _PNG.format(f"{epoch + 1:04d}")
            with replacing(Path(self._png_dir) / name, "wb") as file:
                file.write(_draw(maps, self._overlay, f"Epoch {epoch + 1}. ").getvalue())
        if self._log_dir is not None:
            self._log(maps, epoch, start)
        self.seconds.append(time.monotonic() - start)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _explain(self, on_problem: OnProblem) -> SaliencyMaps:
        if self._prepared is None:
            self._prepared = self._prepare(self.model)
        return saliency_map(
            self._prepared,
            self._images,
            self._methods,
            **self._options,
            on_problem=on_problem,
            verbose=0,
        )

    def _log(self, maps: SaliencyMaps, epoch: int, start: float) -> None:
        """Write images to TensorBoard: the maps of each method, and at first the images."""
        pictures = _pictures(maps, self._overlay)
        with self._writer.as_default(step=epoch):
            for name, stack in pictures.items():
                if name != _IMAGES or not self._logged:
                    tf.summary.image(f"{_TAG}/{name}", stack, max_outputs=len(stack))
            tf.summary.scalar(f"{_TAG}/seconds", time.monotonic() - start)
        self._writer.flush()
        self._logged = True


def _pictures(maps: SaliencyMaps, overlay: bool) -> dict[str, Array]:
    """Return pictures (n, h, w, 3), uint8, of the images and of each method's maps."""
    images = maps.images
    if not are_pictures(images):  # sequences and the like: one figure
        file = _draw(maps, overlay, "")
        return {"figure": np.asarray(Image.open(file).convert("RGB"))[np.newaxis]}
    shown = np.stack([as_picture(image) for image in images])
    pictures = {_IMAGES: np.round(255 * shown).astype(np.uint8)}
    for name, arrays in maps.items():
        values = [reduce_channels(*pair) for pair in zip(arrays, images, strict=True)]
        if overlay:
            check_overlay(shown[0], values)
        pictures[name] = np.stack(
            [overlay_map(p, v) for p, v in zip(shown, values, strict=True)]
            if overlay
            else [color_map(v) for v in values]
        )
    return pictures


def _draw(maps: SaliencyMaps, overlay: bool, when: str) -> io.BytesIO:
    file = io.BytesIO()
    figure = plot_maps(maps, overlay=overlay, title=f"{when}{describe_maps(maps)}")
    figure.savefig(file, format="png", dpi=_DPI)
    return file
