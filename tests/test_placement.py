"""Places of cells, compared with what cells really see and with blobs in known places."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from reference import slow

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.engine.placements import find_placements
from tfsaliency.placement.parts import Placement, Unplaced

SIZE = 64
RNG = np.random.default_rng


def _conv(size=3, strides=1, padding="same", **options):
    return layers.Conv2D(1, size, strides=strides, padding=padding, **options)


class _Halved(layers.Layer):
    """A layer of one's own, which crops."""

    def call(self, x):
        return tf.image.central_crop(x, 0.5)


def _nested():
    cropped = layers.Cropping2D(((10, 0), (0, 20)))
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), cropped, _conv(3, 2)])


def _xla(x):
    """A convolution inside a function that cannot be inlined."""
    return tf.function(
        lambda y: tf.nn.conv2d(y, tf.ones((3, 3, 1, 1)), 2, "SAME"), jit_compile=True
    )(x)


@tf.function
def _traced_before(x):
    """A function with a trace for batches of any size."""
    return tf.reshape(tf.nn.conv2d(x, tf.ones((3, 3, 1, 1)), 2, "SAME"), (-1, 32, 32, 1))


_traced_before.get_concrete_function(tf.TensorSpec((None, SIZE, SIZE, 1)))


def _causal(dilation):
    """A convolution of which each row sees itself and the rows above."""
    padding = layers.ZeroPadding2D(((2 * dilation, 0), (0, 0)))
    return [padding, _conv((3, 1), padding="valid", dilation_rate=(dilation, 1))]


def _patches():
    return [layers.Reshape((8, 8, 8, 8)), layers.Permute((1, 3, 2, 4)), layers.Reshape((8, 8, 64))]


def _lambda(function):
    return [layers.Lambda(function)]


# Layers between the images and a convolution.
CASES = {
    "nothing": lambda: [],
    "CenterCrop": lambda: [layers.CenterCrop(32, 32)],
    "Cropping2D": lambda: [layers.Cropping2D(((10, 2), (3, 17)))],
    "ZeroPadding2D below and right": lambda: [layers.ZeroPadding2D(((0, 64), (0, 64)))],
    "ZeroPadding2D": lambda: [layers.ZeroPadding2D(((5, 0), (11, 3)))],
    "Resizing bilinear": lambda: [layers.Resizing(32, 48)],
    "Resizing nearest": lambda: [layers.Resizing(40, 32, interpolation="nearest")],
    "Resizing bicubic": lambda: [layers.Resizing(32, 96, interpolation="bicubic")],
    "Resizing lanczos3": lambda: [layers.Resizing(32, 40, interpolation="lanczos3")],
    "Resizing lanczos5": lambda: [layers.Resizing(48, 48, interpolation="lanczos5")],
    "Permute": lambda: [layers.Permute((2, 1, 3))],
    "strides": lambda: [_conv(3, 2), _conv(3, 2)],
    "valid strides": lambda: [_conv(3, 2, "valid"), _conv(5, 2, "valid")],
    "padded by hand": lambda: [layers.ZeroPadding2D(1), _conv(3, 2, "valid")],
    "dilations": lambda: [_conv(dilation_rate=2), _conv(padding="valid", dilation_rate=3)],
    "dilated depthwise": lambda: [
        layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        layers.DepthwiseConv2D(3, dilation_rate=3),
    ],
    "far dilations": lambda: [_conv(3, padding="valid", dilation_rate=6)],
    "causal": lambda: _causal(1),
    "convolutions in windows": lambda: [
        layers.Reshape((8, 8, 8, 8)), layers.Permute((1, 3, 2, 4)),
        *_lambda(lambda x: tf.reshape(x, (-1, 8, 8, 1))), _conv(3),
        *_lambda(lambda x: tf.reshape(x, (-1, 8, 8, 8, 8))), layers.Permute((1, 3, 2, 4)),
        layers.Reshape((64, 64, 1)),
    ],
    "a function that was traced before": lambda: _lambda(_traced_before),
    "max_pool_with_argmax": lambda: _lambda(
        lambda x: tf.nn.max_pool_with_argmax(x, 2, 2, "SAME")[0]
    ),
    "separable": lambda: [layers.SeparableConv2D(1, 3, strides=2, padding="same")],
    "pools": lambda: [layers.AveragePooling2D(3, 2), layers.AveragePooling2D(2)],
    "UpSampling2D": lambda: [_conv(3, 2), layers.UpSampling2D(2)],
    "UpSampling2D (3, 1)": lambda: [_conv(3, 4), layers.UpSampling2D((3, 1))],
    "UpSampling2D bilinear": lambda: [
        _conv(3, 4), layers.UpSampling2D(2, interpolation="bilinear")
    ],
    "Conv2DTranspose": lambda: [_conv(3, 4), layers.Conv2DTranspose(1, 3, 2, padding="same")],
    "Conv2DTranspose valid": lambda: [_conv(3, 4), layers.Conv2DTranspose(1, 4, 2)],
    "custom layer": lambda: [_Halved()],
    "nested model": lambda: [_nested()],
    "function of XLA": lambda: _lambda(_xla),
    "patches by Reshape": _patches,
    "extract_patches": lambda: _lambda(lambda x: keras.ops.image.extract_patches(x, (8, 8))),
    "mirrored": lambda: [*_lambda(lambda x: x[:, ::-1]), layers.Cropping2D(((10, 2), (3, 17)))],
    "reversed": lambda: _lambda(lambda x: tf.reverse(x, [2])),
    "slices": lambda: _lambda(lambda x: x[..., 4::3, ::2, :]),
    "tf.slice": lambda: _lambda(lambda x: tf.slice(x, [0, 3, 0, 0], [-1, 40, -1, -1])),
    "tf.gather": lambda: _lambda(lambda x: tf.gather(x, list(range(8, 56)), axis=1)),
    "tf.split": lambda: _lambda(lambda x: tf.split(x, [10, 54], axis=2)[1]),
    "tf.pad reflect": lambda: _lambda(
        lambda x: tf.pad(x, ((0, 0), (7, 0), (0, 9), (0, 0)), "REFLECT")
    ),
    "tf.repeat": lambda: [_conv(3, 4), *_lambda(lambda x: tf.repeat(x, 3, axis=1))],
    "space_to_depth": lambda: _lambda(lambda x: tf.nn.space_to_depth(x, 4)),
    "depth_to_space": lambda: [
        layers.Conv2D(4, 3, strides=4, padding="same"),
        *_lambda(lambda x: tf.nn.depth_to_space(x, 2)),
    ],
    "channels first": lambda: _lambda(
        lambda x: tf.transpose(tf.transpose(x, (0, 3, 1, 2))[:, :, 8:], (0, 2, 3, 1))
    ),
    "tokens and back": lambda: [
        _conv(8, 8, "valid"), layers.Reshape((64, 1)), layers.Dense(4, use_bias=False),
        layers.ZeroPadding1D((2, 0)), layers.Cropping1D((2, 0)), layers.Reshape((8, 8, 4)),
    ],
    "windows and back": lambda: [
        layers.Reshape((4, 16, 4, 16, 1)), layers.Permute((1, 3, 2, 4, 5)),
        layers.Reshape((16, 256, 1)), layers.Dense(1, use_bias=False),
        layers.Reshape((4, 4, 16, 16, 1)), layers.Permute((1, 3, 2, 4, 5)),
        layers.Reshape((64, 64, 1)),
    ],
    "einsum": lambda: _lambda(lambda x: tf.einsum("nhwc,cd->nwhd", x[:, 8:], tf.ones((1, 2)))),
}  # fmt: skip


def _model(name):
    """The layers of a case, then a convolution of ones, then a sum."""
    i = keras.Input((SIZE, SIZE, 1))
    x = i
    for layer in {**CASES, **NOWHERE}[name]():
        x = layer(x)
    x = layers.Conv2D(1, 3, padding="same", use_bias=False, name="target")(x)
    model = keras.Model(i, layers.Dense(1, use_bias=False)(layers.Flatten()(x)))
    for weight in model.weights:
        weight.assign(tf.ones_like(weight) if "kernel" in weight.path else tf.zeros_like(weight))
    return model


def _blob(row, column):
    image = np.zeros((1, SIZE, SIZE, 1), np.float32)
    image[0, row - 2 : row + 3, column - 2 : column + 3] = 1
    return image


def _centroid(array):
    where = np.indices(array.shape)
    return (where * array).sum(axis=(1, 2)) / array.sum()


@pytest.mark.parametrize("name", CASES)
def test_a_blob_is_found_where_it_is(name):
    model = _model(name)
    for place in ((30, 40), (25, 22)):
        maps = tfs.saliency_map(model, _blob(*place), "grad_cam", targets=0, layer="target")
        (grid,) = maps.coverage["grad_cam"].grids
        way = (_centroid(maps["grad_cam"][0]) - place) / np.abs(grid.step)
        assert (np.abs(way) < 0.5).all(), f"{way} cells beside {place}: {grid}"


# Enlarged by a factor, cells see different numbers of others, at most those of their fields.
UNEVEN = [
    n for n in CASES if re.search("Resizing|UpSampling|Transpose|repeat|depth_to_space|argmax", n)
]


@pytest.mark.parametrize("name", CASES)
def test_cells_see_what_their_fields_say(name):
    """The derivative of a cell is zero outside of its receptive field, and not at its ends."""
    model = _model(name)
    behind = keras.Model(model.input, model.get_layer("target").output)
    image = tf.constant(RNG(0).uniform(1, 2, (1, SIZE, SIZE, 1)), tf.float32)

    def traced(x):
        outputs = behind(x)
        found.append(find_placements(x, outputs).place_of(outputs))
        return outputs

    found = []
    tf.function(traced, autograph=False).get_concrete_function(tf.TensorSpec((7, SIZE, SIZE, 1)))
    (place,) = found
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(image)
        outputs = behind(image)
        total = tf.reduce_sum(outputs)
        cells = [tuple(n // d for n in outputs.shape[1:3]) for d in (2, 3)]
        picked = [outputs[0, row, column, 0] for row, column in cells]
    seen = np.abs(tape.gradient(total, image)[0, :, :, 0]) > 0
    for source, field in enumerate(place.fields):
        real = np.flatnonzero(seen.any(axis=1 - source))[[0, -1]]
        assert tuple(real) == (field.low, field.high) or name in UNEVEN, f"{real}, not {field}"
    for cell, value in zip(cells, picked, strict=True):
        seen = np.abs(tape.gradient(value, image)[0, :, :, 0]) > 0
        for axis, index in zip(place.axes[1:3], cell, strict=True):
            (part,) = axis
            field = place.fields[part.source]
            center = field.start + part.step * index
            real = np.flatnonzero(seen.any(axis=1 - part.source))[[0, -1]]
            expected = np.clip((center - field.radius, center + field.radius), 0, SIZE - 1)
            assert expected[0] <= real[0] and real[1] <= expected[1], f"{real} in {expected}"
            assert name in UNEVEN or tuple(real) == tuple(expected), f"{real}, not {expected}"


def _halves(x):
    return x[:, :, :32], x[:, :, 32:]


# Layers whose cells look at different places at once, or have none that is an affine function.
NOWHERE = {
    "sum of halves": lambda: _lambda(lambda x: tf.add(*_halves(x))),
    "channels of halves": lambda: _lambda(lambda x: tf.concat(_halves(x), axis=-1)),
    "difference of halves": lambda: _lambda(lambda x: tf.subtract(*_halves(x))),
    "transposed sum": lambda: _lambda(lambda x: x + tf.transpose(x, (0, 2, 1, 3))),
    "pairs of rows": lambda: _lambda(
        lambda x: tf.reduce_max(x[:, :, None] + x[:, None], axis=2) if x.shape[1] else x
    ),
    "causal dilations": lambda: [layer for d in (1, 2, 4, 8) for layer in _causal(d)],
    "rolled": lambda: _lambda(lambda x: tf.roll(x, 20, axis=1)),
    "half of the rows twice": lambda: _lambda(lambda x: tf.tile(x[:, :32], (1, 2, 1, 1))),
    "rows in another order": lambda: _lambda(lambda x: tf.gather(x, [0, 40, 3, 9, 60], axis=1)),
    "mask": lambda: _lambda(
        lambda x: tf.ensure_shape(
            tf.boolean_mask(x, np.arange(64) % 7 < 3, axis=1), (None, 28, 64, 1)
        )
    ),
    "mixed": lambda: [layers.Flatten(), layers.Dense(64), layers.Reshape((8, 8, 1))],
}


@pytest.mark.parametrize("name", NOWHERE)
def test_cells_without_one_place_are_refused(name):
    with pytest.raises(tfs.GeometryError, match="'target': its "):
        tfs.saliency_map(_model(name), _blob(30, 40), "grad_cam", layer="target")


def test_an_unrolled_recurrent_layer_is_refused():
    i = keras.Input((8, 3))
    x = layers.LSTM(5, return_sequences=True, unroll=True, name="states")(i)
    model = keras.Model(i, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    with pytest.raises(tfs.GeometryError, match="'states': its cells cannot be placed"):
        tfs.saliency_map(model, np.ones((1, 8, 3)), "layer_cam", layer="states")


def test_morphological_operations():
    i = keras.Input((16, 16, 1))
    x = layers.Lambda(lambda x: tf.nn.erosion2d(
        x, tf.zeros((3, 3, 1)), (1, 1, 1, 1), "VALID", "NHWC", (1, 1, 1, 1)
    ), name="eroded")(i)  # fmt: skip
    model = keras.Model(i, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    image = RNG(0).normal(size=(1, 16, 16, 1)).astype(np.float32)
    maps = tfs.saliency_map(model, image, "layer_cam", layer="eroded", on_problem="ignore")
    (grid,) = maps.coverage["layer_cam"].grids
    assert (grid.cells, grid.first) == ((14, 14), (1, 1))


def test_places_by_hand():
    """A convolution of stride 2 on an even size, padded at the end: 2 i + 1, evenly 2 i + 0.5."""
    images = np.ones((1, 8, 8, 1), np.float32)

    def first(*between, size=8):
        i = keras.Input((8, 8, 1))
        x = i
        for layer in between:
            x = layer(x)
        model = keras.Model(i, layers.Dense(1)(layers.Flatten()(x)))
        last = between[-1].name
        maps = tfs.saliency_map(model, images, tfs.CAM(layer=last), on_problem="ignore")
        (grid,) = maps.coverage["grad_cam"].grids
        return grid.first[0], grid.step[0], grid.low[0], grid.high[0]

    assert first(_conv(3, 2)) == (0.75, 2, 0, 7)
    assert first(layers.ZeroPadding2D(((0, 1), (0, 1))), _conv(3, 2, "valid")) == (0.75, 2, 0, 7)
    assert first(layers.ZeroPadding2D(1), _conv(3, 2, "valid")) == (0.25, 2, 0, 7)
    assert first(_conv(2, 2)) == (0.5, 2, 0, 7)  # patches do not overlap: exact
    assert first(_conv(3, 3, "valid")) == (1, 3, 0, 5)
    assert first(_conv(3, 4)) == (1, 4, 0, 6)  # fields with gaps: exact
    assert first(_conv(3), _conv(1, 2)) == (0.25, 2, 0, 7)
    assert first(_conv(3, 1, "valid")) == (1, 1, 0, 7)
    assert first(layers.Cropping2D(2)) == (2, 1, 2, 5)
    assert first(layers.Resizing(4, 4)) == (0.5, 2, 0, 7)
    assert first(layers.Resizing(16, 16)) == (-0.25, 0.5, 0, 7)
    assert first(layers.UpSampling2D(2)) == (-0.25, 0.5, 0, 7)


def test_tokens_keep_their_places_behind_attention():
    """Attention mixes; the residual connection keeps."""
    i = keras.Input((8, 8, 2))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, strides=2)(i))
    x = layers.Concatenate(axis=1)([layers.ZeroPadding1D((1, 0))(x)[:, :1], x])
    attended = layers.MultiHeadAttention(2, 2)(x, x)
    residual = layers.Add()([x, attended])
    model = keras.Model(i, [attended, residual, residual[:, 0], residual[:, 1:]])
    found = []

    def traced(images):
        outputs = model(images)
        found.extend(find_placements(images, y).place_of(y) for y in outputs)
        return outputs

    tf.function(traced, autograph=False).get_concrete_function(tf.TensorSpec((7, 8, 8, 2)))
    mixed, kept, prefix, cells = found
    assert isinstance(mixed, Unplaced) and "product of two signals" in mixed.reason
    assert isinstance(kept, Placement)
    (tokens,) = kept.axes[1]
    assert (tokens.size, tokens.before) == (17, 1)
    assert [(part.size, part.source, part.step) for part in tokens.inner] == [(4, 0, 2), (4, 1, 2)]
    assert not prefix.places
    assert cells.axes[1] == tokens.inner


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_states_of_a_recurrent_layer_are_cells(kind, backwards):
    i = keras.Input((12, 3))
    x = layers.Conv1D(4, 3, strides=2, padding="valid")(i)
    make = getattr(layers, kind)
    x = make(5, return_sequences=True, go_backwards=backwards, name="states")(x)
    model = keras.Model(i, layers.Dense(2, activation="softmax")(make(3)(x)))
    series = RNG(0).normal(size=(2, 12, 3)).astype(np.float32)
    maps = tfs.saliency_map(model, series, "layer_cam", layer="states", on_problem="ignore")
    (grid,) = maps.coverage["layer_cam"].grids
    assert (grid.cells, grid.step) == ((5,), (-2.0 if backwards else 2.0,))
    assert grid.first == (9.25 if backwards else 1.25,)
    states = keras.Model(i, model.get_layer("states").output)
    with tf.GradientTape() as tape:
        x = tf.constant(series)
        tape.watch(x)
        third = tf.reduce_sum(states(x)[:, 2])
    seen = np.flatnonzero(np.abs(tape.gradient(third, x)).any(axis=(0, 2)))
    assert seen.tolist() == list(range(4, 11) if backwards else range(7))


def test_frames_of_a_recurrent_convolution_are_cells():
    i = keras.Input((4, 16, 16, 1))
    x = layers.ConvLSTM2D(2, 3, strides=2, padding="same", return_sequences=True, name="states")(i)
    model = keras.Model(i, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
    video = RNG(0).normal(size=(2, 4, 16, 16, 1)).astype(np.float32)
    maps = tfs.saliency_map(model, video, "layer_cam", layer="states", on_problem="ignore")
    (grid,) = maps.coverage["layer_cam"].grids
    assert (grid.cells, grid.step, grid.first) == ((4, 8, 8), (1, 2, 2), (0, 0.75, 0.75))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("step", [2.0, -3.0])
def test_maps_are_placed_like_the_slow_version(step, relu):
    maps = RNG(1).normal(size=(2, 5, 4))
    maps = np.maximum(maps, 0) if relu else maps
    size, first = (20, 17), (1.5 if step > 0 else 15.25, 3.0)
    seen = ((2, 18), (0, 16))
    grid = tfs.CellGrid("a", (5, 4), size, first, (step, 4.0), *zip(*seen, strict=True))
    found = grid.to_image(tf.constant(maps[..., None])).numpy()[..., 0]
    if step < 0:  # np.interp needs increasing places
        maps, first, step = maps[:, ::-1], (first[0] + 4 * step, first[1]), -step
    reference = slow.placed(maps, size, zip(first, (step, 4.0), strict=True), seen)
    slow.near(found, reference, 1e-12)
    assert not found[:, :2].any() and not found[:, 19:].any()


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_maps_lie_on_the_objects(name):
    """On average, a map is less than a quarter of a cell away from the object that it explains."""
    data = synthetic.make_shapes(200, seed=11)
    maps = tfs.saliency_map(
        synthetic.shapes_model(name), data.images, "hires_cam", targets=data.labels,
        on_problem="ignore",
    )  # fmt: skip
    (grid,) = maps.coverage["hires_cam"].grids
    seen = maps["hires_cam"].any(axis=(1, 2))
    ways = np.array([
        _centroid(one) - _centroid(mask.astype(float))
        for one, mask in zip(maps["hires_cam"][seen], data.masks[seen], strict=True)
    ])  # fmt: skip
    assert (np.abs(ways.mean(axis=0) / grid.step) < 0.25).all()
    assert (np.abs(ways).mean(axis=0) / grid.step < 1.5).all()
