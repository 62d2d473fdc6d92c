"""Layers of class activation maps: which qualify, which is the default, and how they are named."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow

import tfsaliency as tfs
from tfsaliency.engine.layer_names import named_layers
from tfsaliency.sanity.units import list_units

SIZE = 16
RNG = np.random.default_rng


def _images(*shape, n=2):
    return RNG(0).normal(size=(n, *(shape or (SIZE, SIZE, 3)))).astype(np.float32)


def _grid(model, layer=None, images=None, kind="grad_cam", **options):
    """The cells that the maps of a model use, and the causes of problems beside them."""
    images = _images() if images is None else images
    score = {} if isinstance(model, tfs.Prepared) else {"score": "logit"}
    maps = tfs.saliency_map(
        model, images, kind, layer=layer, on_problem="ignore", **{**score, **options}
    )
    (grid,) = maps.coverage[kind].grids
    return grid, [p for p in maps.problems if p.cause == "uncertain_layer"]


def _refusal(model, layer=None, images=None, error=tfs.GeometryError, **options):
    with pytest.raises(error) as caught:
        _grid(model, layer, images, **options)
    return str(caught.value)


def _attend(x, block):
    """A block of a transformer, built from public layers."""
    h = layers.LayerNormalization(name=f"{block}_norm1")(x)
    h = layers.MultiHeadAttention(2, 4, name=f"{block}_attention")(h, h)
    x = layers.Add(name=f"{block}_add1")([x, h])
    h = layers.LayerNormalization(name=f"{block}_norm2")(x)
    h = layers.Dense(8, activation="gelu", name=f"{block}_mlp")(h)
    return layers.Add(name=f"{block}_add2")([x, h])


def _vit(prefix=1, blocks=3, pooling="token"):
    """A vision transformer on 4 x 4 patches."""
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4, name="patches")(i))
    x = layers.ZeroPadding1D((prefix, 0))(x) if prefix else x
    x = layers.EinsumDense("ntk,kc->ntc", (16 + prefix, 8), bias_axes="tc", name="embedding")(x)
    for block in range(1, blocks + 1):
        x = _attend(x, f"block{block}")
    x = layers.LayerNormalization(name="norm")(x)
    x = x[:, 0] if pooling == "token" else layers.GlobalAveragePooling1D()(x)
    return zoo.random_weights(keras.Model(i, layers.Dense(3, name="head")(x)), seed=2)


def test_of_a_class_token_the_default_is_before_the_last_attention():
    for prefix in (1, 3):
        grid, uncertain = _grid(_vit(prefix))
        assert (grid.layer, grid.cells, grid.prefix) == ("block3_norm1", (4, 4), prefix)
        assert (grid.first, grid.step, grid.tokens) == ((1.5, 1.5), (4, 4), True)
        assert not uncertain
    text = str(_grid(_vit())[0])
    assert text == "block3_norm1, 4 x 4 tokens behind 1 class token, 4 pixels a cell"


def test_of_a_mean_of_tokens_the_default_is_the_last_layer():
    assert _grid(_vit(0, pooling="mean"))[0].layer == "norm"
    assert _grid(_vit(1, pooling="mean"))[0].prefix == 1


@pytest.mark.parametrize("kind", ["grad_cam", "layer_cam", "hires_cam"])
def test_maps_of_tokens_equal_their_definition(kind):
    model, images = _vit(), _images()
    found = tfs.attributions(model, images, kind, targets=[0, 1], on_problem="ignore")
    tokens = keras.Model(model.input, model.get_layer("block3_norm1").output)
    values = tokens(images)
    residual = keras.Model(model.input, model.get_layer("block2_add2").output)(images)
    with tf.GradientTape() as tape:
        tape.watch(values)
        attended = model.get_layer("block3_attention")(values, values)
        x = model.get_layer("block3_add1")([residual, attended])
        h = model.get_layer("block3_mlp")(model.get_layer("block3_norm2")(x))
        x = model.get_layer("norm")(model.get_layer("block3_add2")([x, h]))
        score = tf.gather(model.get_layer("head")(x[:, 0]), [0, 1], batch_dims=1)
    slopes = tape.gradient(score, values)
    cells = [each[:, 1:].numpy().reshape(2, 4, 4, 8) for each in (values, slopes)]
    reference = slow.placed(slow.cam(kind, *cells), (SIZE, SIZE), [(1.5, 4), (1.5, 4)])
    slow.near(found[kind][..., 0], reference, 1e-4)


def test_parts_of_attention_are_refused():
    model = _vit()
    for part in ("query", "key", "value"):
        text = _refusal(model, f"block1_attention/{part}")
        assert "it is inside the attention layer block1_attention" in text
        assert "Layers that qualify, best first: block3_norm1, " in text
    assert "behind a product of two signals, as in attention" in _refusal(model, "block1_attention")
    for dead in ("norm", "block3_mlp", "block3_add2"):
        assert "depends on none of its cells, only on other tokens" in _refusal(model, dead)


def test_attention_without_a_layer_of_its_own():
    """Queries and keys are layers of the model itself, and so is their product."""
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(i))
    for block in (1, 2):
        h = layers.LayerNormalization(name=f"norm{block}")(x)
        q, k, v = (layers.Dense(8, name=f"{part}{block}")(h) for part in "qkv")
        weights = keras.ops.softmax(layers.Dot((2, 2))([q, k]))
        x = layers.Add(name=f"add{block}")([x, keras.ops.matmul(weights, v)])
    model = keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    assert _grid(model)[0].layer == "add2"
    assert "it is a part of the attention behind norm1" in _refusal(model, "q1")
    assert _grid(model, "norm2")[0].layer == "norm2"


def test_windows_in_the_batch_axis_are_refused():
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 2, strides=2, name="conv")(i)
    h = keras.ops.transpose(keras.ops.reshape(x, (-1, 2, 4, 2, 4, 8)), (0, 1, 3, 2, 4, 5))
    h = layers.LayerNormalization(name="windows")(keras.ops.reshape(h, (-1, 16, 8)))
    h = keras.ops.reshape(h, (-1, 2, 2, 4, 4, 8))
    h = keras.ops.reshape(keras.ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, 8, 8, 8))
    x = layers.Dense(4, name="back")(h)
    model = keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    text = _refusal(model, "windows")
    assert "its first axis is not the batch of images: something else is folded into it" in text
    assert "best first: back, " in text
    grid, _ = _grid(model)
    assert (grid.layer, grid.first, grid.step) == ("back", (0.5, 0.5), (2, 2))
    given = tfs.CAM(layer="windows", grid=(4, 4))
    with pytest.raises(tfs.GeometryError, match="is 4 for one image and 8 for two"):
        tfs.saliency_map(model, _images(), given)


def test_a_model_whose_outputs_are_a_picture():
    x = i = keras.Input((SIZE, SIZE, 3))
    skip = layers.Conv2D(4, 3, padding="same", activation="relu", name="fine")(x)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="coarse1")(skip)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="coarse2")(x)
    x = layers.Conv2DTranspose(4, 2, 2, name="up")(x)
    x = layers.Conv2D(4, 3, padding="same", name="last")(layers.Concatenate()([x, skip]))
    x = layers.Conv2D(3, 1, activation="softmax", name="outputs")(x)
    model = keras.Model(i, x)
    corner = {"score": lambda outputs, targets: outputs[:, 2, 2, 0]}
    grid, uncertain = _grid(model, **corner)
    assert (grid.layer, grid.cells, uncertain) == ("coarse2", (8, 8), [])
    assert _grid(model, "last", **corner)[0].layer == "last"


def test_of_layers_side_by_side_the_last_common_one_is_taken():
    i = keras.Input((SIZE, SIZE, 3))
    trunk = layers.Conv2D(4, 3, 2, padding="same", name="trunk")(i)
    coarse = layers.Conv2D(4, 3, 2, padding="same", name="coarse")(trunk)
    levels = [layers.Conv2D(2, 1, name=n)(x) for n, x in (("p3", trunk), ("p4", coarse))]
    boxes = layers.Concatenate(axis=1)([layers.Reshape((-1, 2))(x) for x in levels])
    model = keras.Model(i, boxes)
    grid, (problem,) = _grid(model, score=lambda outputs, targets: outputs[:, -1, 0])
    assert grid.layer == "trunk"
    assert (
        "side by side" in problem.detail
        and "trunk is the last layer that everything" in problem.detail
    )
    maps = tfs.saliency_map(  # every anchor has a map
        model, _images(), tfs.CAM(relu=False), score=lambda o, _: o[:, -1, 0], on_problem="ignore"
    )
    assert maps["grad_cam"].any()


def test_if_only_an_early_layer_qualifies_the_result_says_so():
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8), name="tokens")(layers.Conv2D(8, 4, strides=4, name="patches")(i))
    x = layers.Permute((2, 1))(layers.Dense(16, name="mixing")(layers.Permute((2, 1))(x)))
    x = layers.Dense(8, name="late")(x)
    model = keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    grid, (problem,) = _grid(model)
    assert grid.layer.startswith("permute")  # the same tokens, with channels first
    assert (grid.cells, grid.step) == ((4, 4), (4, 4))
    assert "is early, and no later layer qualifies" in problem.detail
    with pytest.raises(tfs.MeaninglessMapError, match="uncertain_layer"):
        tfs.saliency_map(model, _images(), "grad_cam", on_problem="raise", score="logit")


def test_cells_behind_global_mixing_are_refused():
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((4, 4, 4))(layers.Dense(64, name="dense")(layers.Flatten()(i)))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 3, name="late")(x))))
    assert "its cells see everything alike, behind a layer that mixes" in _refusal(model, "late")
    text = _refusal(model)
    assert "late: its cells see everything alike" in text and "CAM(layer=..., grid=" in text
    given = tfs.CAM(layer="late", grid=(2, 2))
    maps = tfs.saliency_map(model, _images(), given, on_problem="ignore", score="logit")
    (grid,) = maps.coverage["grad_cam"].grids
    assert (grid.cells, grid.first, grid.step) == ((2, 2), (3.5, 3.5), (8, 8))


def test_a_given_grid_of_tokens():
    model = _vit()

    def maps(layer, **options):
        cam = tfs.CAM("layer_cam", layer, **options)
        return tfs.saliency_map(model, _images(), cam, on_problem="ignore", score="logit")

    own, given = maps("block2_norm1"), maps("block2_norm1", grid=(4, 4), prefix=1)
    assert np.array_equal(own["layer_cam"], given["layer_cam"])
    mixed = maps("block1_attention", grid=[4, 4], prefix=1)
    assert mixed.coverage["layer_cam"].grids[0].first == (1.5, 1.5)
    assert mixed["layer_cam"].any()
    with pytest.raises(tfs.OptionError, match=r"Received: grid=\(2, 8\), prefix=1"):
        maps("block2_norm1", grid=(2, 8), prefix=1)
    with pytest.raises(tfs.GeometryError, match=r"which is not \(n, 0 \+ 4 \* 4, channels\)"):
        maps("block2_norm1", grid=(4, 4))
    with pytest.raises(tfs.OptionError, match="2 numbers of cells"):
        maps("block2_norm1", grid=(16,))


def test_halves_of_an_image_that_change_places():
    """Without position embeddings, a transformer sees a bag of patches."""
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(i))
    for block in range(3):
        x = _attend(x, f"block{block}")
    model = keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    zoo.random_weights(model, seed=5)
    images = _images(n=6)
    swapped = np.concatenate([images[:, :, SIZE // 2 :], images[:, :, : SIZE // 2]], axis=2)
    cam = tfs.CAM("hires_cam", relu=False, resize=False)
    one, other = (
        tfs.saliency_map(model, each, cam, targets=0)["hires_cam"] for each in (images, swapped)
    )
    back = np.concatenate([other[:, :, 2:], other[:, :, :2]], axis=2)
    slow.near(back, one, 1e-4)


def _tower(name):
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv1", activation="relu")(i))
    return keras.Model(i, x, name=name)


def test_of_two_towers_the_one_behind_the_chosen_input_is_meant():
    rgb, depth = (keras.Input((SIZE, SIZE, 3), name=name) for name in ("rgb", "depth"))
    joined = layers.Concatenate()([_tower("ta")(rgb), _tower("tb")(depth)])
    prepared = tfs.prepare(
        keras.Model([rgb, depth], layers.Dense(2)(joined)), input="rgb", score="logit"
    )
    images = (_images(), _images())
    for name in (None, "conv1", "ta/conv1"):
        assert _grid(prepared, name, images)[0].layer == "ta/conv1"
    assert "it is not on the way from the images" in _refusal(prepared, "tb/conv1", images)


def test_paths_are_the_names_that_sanity_checks_print():
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(2, 3, name="conv")])
    i = keras.Input((4, SIZE, SIZE, 3))
    x = layers.TimeDistributed(keras.Sequential([keras.Input((SIZE, SIZE, 3)), inner]))(i)
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))
    paths = [path for path, _ in named_layers(model)]
    assert [unit.path for unit in list_units(model)] == [p for p in paths if p.endswith("conv")] + [
        model.layers[-1].name
    ]


def test_layers_by_index_and_as_objects():
    model = _vit()
    for layer in (
        model.get_layer("block2_norm1"),
        model.layers.index(model.get_layer("block2_norm1")),
    ):
        assert _grid(model, layer)[0].layer == "block2_norm1"
    assert _grid(model, -1 - len(model.layers) + 2, kind="layer_cam")[0].layer == "patches"
    other = _vit().get_layer("patches")
    assert "layer of the model" in _refusal(model, other, error=tfs.OptionError)
    assert "index of one of" in _refusal(model, 99, error=tfs.OptionError)


def test_the_layer_of_all_maps_of_a_call():
    model, images = _vit(), _images()
    smooth = tfs.SmoothGrad(2, inner=tfs.CAM("layer_cam"))
    own = tfs.Method("own", "gradient", tfs.CAM(layer="block1_norm1"))
    maps = tfs.saliency_map(
        model, images, ["grad_cam", smooth, own, "gradient"], layer="block2_norm1",
        on_problem="ignore", score="logit",
    )  # fmt: skip
    layers_of = {name: [g.layer for g in maps.coverage[name].grids] for name in maps}
    assert layers_of == {
        "grad_cam": ["block2_norm1"], "smooth_grad": ["block2_norm1"], "own": ["block1_norm1"],
        "gradient": [],
    }  # fmt: skip
    assert maps.details["grad_cam"]["layer"].tolist() == ["block2_norm1"] * 2
    assert maps.details["grad_cam"]["row_first"].tolist() == [1.5, 1.5]
    text = _refusal(model, "norm", kind="gradient", error=tfs.OptionError)
    assert "Expected layer= beside a class activation map" in text


def test_layers_in_time_distributed():
    i = keras.Input((SIZE, SIZE, 3))
    conv = layers.Conv2D(4, 3, activation="relu", padding="same", name="conv")(i)
    frames = keras.Model(i, layers.GlobalAveragePooling2D()(conv), name="cnn")
    i = keras.Input((5, SIZE, SIZE, 3))
    h = layers.Flatten()(layers.TimeDistributed(frames, name="times")(i))
    model = zoo.random_weights(keras.Model(i, layers.Dense(2)(h)), seed=3)
    video = _images(5, SIZE, SIZE, 3)
    found = tfs.saliency_map(model, video, "layer_cam", targets=1, on_problem="ignore")
    (grid,) = found.coverage["layer_cam"].grids
    assert (grid.layer, grid.cells, grid.step) == ("times/cnn/conv", (5, SIZE, SIZE), (1, 1, 1))
    assert not found.problems
    values = keras.Model(frames.input, conv)(video.reshape(-1, SIZE, SIZE, 3)).numpy()
    kernel = model.get_weights()[-2][:, 1].reshape(5, 1, 1, 4) / SIZE**2
    values = values.reshape(2, 5, SIZE, SIZE, 4)
    reference = np.maximum((np.maximum(kernel, 0) * values).sum(axis=-1), 0)
    slow.near(found["layer_cam"], reference)
    assert _grid(model, "conv", video)[0].layer == "times/cnn/conv"


def test_negative_evidence_has_its_own_cause():
    i = keras.Input((SIZE, SIZE, 3))
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")(i)
    model = keras.Model(i, layers.Dense(1)(layers.GlobalAveragePooling2D()(conv)))
    model.set_weights([*model.get_weights()[:2], np.full((4, 1), -1.0), np.zeros(1)])
    methods = ["grad_cam", "guided_grad_cam", tfs.Method("signed", "gradient", tfs.CAM(relu=False))]
    maps = tfs.saliency_map(model, _images(), methods, on_problem="ignore")
    (problem,) = maps.problems
    assert (problem.cause, problem.methods) == (
        "negative_evidence",
        ("grad_cam", "guided_grad_cam"),
    )
    assert "CAM(relu=False)" in str(problem)
    assert maps["signed"].min() < 0 == maps["signed"].max()


def test_grids_are_saved(tmp_path):
    maps = tfs.saliency_map(_vit(), _images(), "grad_cam", on_problem="ignore", score="logit")
    maps.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert loaded.coverage == maps.coverage
    assert loaded.details["grad_cam"]["layer"].tolist() == ["block3_norm1"] * 2


def test_maps_in_cells_are_saved_and_drawn(tmp_path):
    cells = tfs.CAM("layer_cam", resize=False)
    maps = tfs.saliency_map(_vit(), _images(), cells, on_problem="ignore", score="logit")
    assert maps["layer_cam"].shape == (2, 4, 4)
    maps.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert np.array_equal(loaded["layer_cam"], maps["layer_cam"])
