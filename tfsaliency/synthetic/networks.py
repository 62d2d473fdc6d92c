"""Small networks trained on shapes, and networks trained on permuted labels.

Their weights ship with the package; benchmarks/train_shapes_model.py trains them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from ..tables import Table, first_line
from .shapes import CLASSES
from .transformer import build_vit

NetworkName = Literal["cnn", "vit"]

WEIGHTS = Path(__file__).resolve().parent / "weights"
TRAINED, PERMUTED = "shapes", tuple(f"shapes_permuted_{i}" for i in range(4))
TRAINED_VIT = "shapes_vit"

_SIZE = 64
# name: (squeeze 1x1, expand 1x1, expand 3x3); a pool stands before fire2 and fire4.
_FIRES = {
    "fire2": (16, 32, 32),
    "fire3": (16, 32, 32),
    "fire4": (24, 48, 48),
    "fire5": (24, 48, 48),
    "fire6": (32, 64, 64),
    "fire7": (32, 64, 64),
}
_POOL_BEFORE = {"fire2": "pool1", "fire4": "pool3"}


def shapes_model(name: NetworkName = "cnn") -> keras.Model:
    """Return a network trained to classify the pictures of make_shapes.

    Parameters
    ----------
    name
        "cnn", a small SqueezeNet: 20 convolutions and 19 ReLUs, of which 13 are layers and 6 are
        fused into convolutions; it is right about 99 % of unseen pictures of all variants. "vit", a
        vision transformer: 64 patches of 8 x 8 pixels behind a class token, 6 blocks of attention
        with 4 heads, GELUs and no ReLU; it is right about 98 % of all variants but "two_objects",
        where it does not use the mark and is right about half.

    Returns
    -------
    keras.Model, images (n, 64, 64, 3) of 0..255, not preprocessed -> probabilities (n, 8), in the
    order of synthetic.CLASSES.

    Raises
    ------
    OptionError
        If there is no network of that name.
    OSError
        If the package was installed without its weights.

    References
    ----------
    Iandola et al. 2016, arXiv:1602.07360 (CNN); Dosovitskiy et al. 2020, arXiv:2010.11929 (ViT).

    Examples
    --------
    >>> from tfsaliency import synthetic
    >>> data = synthetic.make_shapes(64, seed=3)
    >>> outputs = synthetic.shapes_model().predict(data.images, verbose=0)
    >>> int((outputs.argmax(axis=-1) == data.labels).sum())
    64
    """
    stored, build = NETWORKS.named(name)
    return _loaded(stored, build)


def permuted_label_models() -> tuple[keras.Model, ...]:
    """Return four networks like shapes_model("cnn") that memorized permuted labels.

    In training, the labels were permuted among the pictures, so these networks know nothing about
    the classes. They serve data_randomization_check.

    Returns
    -------
    keras.Models, images (n, 64, 64, 3) of 0..255 -> (n, 8).

    Raises
    ------
    OSError
        If the package was installed without its weights.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, section 4.2.

    Examples
    --------
    >>> from tfsaliency import synthetic
    >>> len(synthetic.permuted_label_models())
    4
    """
    return tuple(_loaded(name, build_shapes_model) for name in PERMUTED)


def build_shapes_model(
    seed: int = 0, before_relu: Callable[[Any, str], Any] | None = None
) -> keras.Model:
    """Build the untrained CNN.

    Parameters
    ----------
    seed
        The seed of its weights.
    before_relu
        Function (outputs, name of the convolution) -> inputs of the ReLU layer that follows. For
        training, which needs batch normalization there.
    """
    layers = keras.layers
    seeds = count(1000 * seed)  # leaves the caller's random state unchanged

    def conv(x: Any, name: str, filters: int, size: int, **options: Any) -> Any:
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Conv2D(
            filters, size, padding="same", kernel_initializer=initializer, name=name, **options
        )(x)

    def relu(x: Any, name: str, conv_name: str) -> Any:
        if before_relu is not None:
            x = before_relu(x, conv_name)
        return layers.ReLU(name=name)(x)

    inputs = keras.Input((_SIZE, _SIZE, 3), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(inputs)
    x = relu(conv(x, "conv1", 32, 3, strides=2), "relu_conv1", "conv1")
    for fire, (squeeze, expand1, expand3) in _FIRES.items():
        if fire in _POOL_BEFORE:
            x = layers.MaxPooling2D(3, 2, padding="same", name=_POOL_BEFORE[fire])(x)
        x = conv(x, f"{fire}-squeeze1x1", squeeze, 1, activation="relu")
        parts = []
        for part, filters, size in (("expand1x1", expand1, 1), ("expand3x3", expand3, 3)):
            name = f"{fire}-{part}"
            parts.append(relu(conv(x, name, filters, size), f"{fire}-relu_{part}", name))
        x = layers.Concatenate(name=f"{fire}-concat")(parts)
    x = conv(x, "conv8", len(CLASSES), 1)
    x = layers.GlobalAveragePooling2D(name="pool8")(x)
    return keras.Model(inputs, layers.Softmax(name="prob")(x), name="shapes")


# The name of the weights, and the function that builds the network.
NETWORKS: Table[tuple[str, Callable[[], keras.Model]]] = Table(
    "network",
    {"cnn": (TRAINED, build_shapes_model), "vit": (TRAINED_VIT, build_vit)},
    lambda row: first_line(row[1]),
)


def _loaded(name: str, build: Callable[[], keras.Model]) -> keras.Model:
    model = build()
    with np.load(WEIGHTS / f"{name}.npz") as stored:
        model.set_weights([stored[weight.path].astype(np.float32) for weight in model.weights])
    return model
