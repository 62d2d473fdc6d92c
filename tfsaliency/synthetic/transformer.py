"""The vision transformer that is trained on shapes."""

from __future__ import annotations

from itertools import count
from typing import Any

import keras

from .shapes import CLASSES

_SIZE, _PATCH, _WIDTH = 64, 8, 64
_BLOCKS, _HEADS, _HIDDEN = 6, 4, 128


def build_vit(seed: int = 0) -> keras.Model:
    """Build the untrained vision transformer.

    Patches of 8 x 8 pixels become 64 tokens behind a class token, which alone leads to the classes.
    The class token and the positions are learned: the class token is an embedded patch of zeros,
    and each token has its own bias in the embedding.

    Parameters
    ----------
    seed
        The seed of its weights.

    References
    ----------
    Dosovitskiy et al. 2020, arXiv:2010.11929.
    """
    layers = keras.layers
    seeds = count(1000 * seed)  # leaves the caller's random state unchanged

    def glorot() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def norm(x: Any, name: str) -> Any:
        return layers.LayerNormalization(epsilon=1e-6, name=name)(x)

    side = _SIZE // _PATCH
    inputs = keras.Input((_SIZE, _SIZE, 3), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(inputs)
    x = layers.Reshape((side, _PATCH, side, _PATCH * 3), name="rows")(x)
    x = layers.Permute((1, 3, 2, 4), name="grid")(x)
    x = layers.Reshape((side**2, _PATCH**2 * 3), name="patches")(x)
    x = layers.ZeroPadding1D((1, 0), name="class_token")(x)
    x = layers.EinsumDense(
        "ntk,kc->ntc",
        (1 + side**2, _WIDTH),
        bias_axes="tc",
        kernel_initializer=glorot(),
        bias_initializer=keras.initializers.RandomNormal(stddev=0.02, seed=next(seeds)),
        name="embedding",
    )(x)
    for block in range(1, _BLOCKS + 1):
        h = norm(x, f"block{block}_norm1")
        h = layers.MultiHeadAttention(
            _HEADS,
            _WIDTH // _HEADS,
            kernel_initializer=glorot(),
            name=f"block{block}_attention",
        )(h, h)
        x = layers.Add(name=f"block{block}_add1")([x, h])
        h = norm(x, f"block{block}_norm2")
        h = layers.Dense(
            _HIDDEN, activation="gelu", kernel_initializer=glorot(), name=f"block{block}_mlp1"
        )(h)
        h = layers.Dense(_WIDTH, kernel_initializer=glorot(), name=f"block{block}_mlp2")(h)
        x = layers.Add(name=f"block{block}_add2")([x, h])
    x = layers.Cropping1D((0, side**2), name="token")(norm(x, "norm"))
    x = layers.Dense(len(CLASSES), kernel_initializer=glorot(), name="head")(
        layers.Flatten(name="flatten")(x)
    )
    return keras.Model(inputs, layers.Softmax(name="prob")(x), name="shapes_vit")
