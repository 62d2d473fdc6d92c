"""Class activation maps, and the layers that they use."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.methods.cam import CAM_WEIGHTS

SIZE = 12
RNG = np.random.default_rng
# The center of the first cell and the step of layers of _network, along both axes: a valid
# convolution of size 3 moves by 1, a pool of size 2 by half a pixel, one of size 2 behind it by 1.
PLACES = {"backbone": (2.5, 2), "rectified": (2.5, 2), "last": (3.5, 2)}


def _network(dtype="float64", input_dtype="float64"):
    """Two convolutions in a nested model, one behind it, and a head that is not linear."""
    i = keras.Input((SIZE, SIZE, 2), dtype=input_dtype)
    x = layers.Conv2D(4, 3, activation="relu", name="inner1", dtype=dtype)(i)
    x = layers.MaxPooling2D(2, name="pool", dtype=dtype)(x)
    backbone = keras.Model(i, layers.Conv2D(5, 2, name="inner2", dtype=dtype)(x), name="backbone")
    i = keras.Input((SIZE, SIZE, 2), dtype=i.dtype)
    x = layers.ReLU(name="rectified", dtype=dtype)(backbone(i))
    x = layers.Conv2D(3, 2, name="last", activation="relu", dtype=dtype)(x)
    x = layers.Flatten(dtype=dtype)(x)
    x = layers.Dense(6, activation="relu", name="hidden", dtype=dtype)(x)
    return zoo.random_weights(
        keras.Model(i, layers.Dense(3, activation="softmax", dtype=dtype, name="top")(x)), seed=10
    )


def _head(model, name):
    """The layers of _network behind one of the outer layers, as a model."""
    names = [layer.name for layer in model.layers]
    behind = model.layers[names.index(name) + 1 :]
    return keras.Sequential(
        [keras.Input(behind[0].input.shape[1:], dtype=behind[0].input.dtype), *behind]
    )


def _placed(maps, place):
    return slow.placed(maps, (SIZE, SIZE), [place, place])[..., np.newaxis]


@pytest.fixture(scope="module")
def model():
    return _network()


@pytest.fixture(scope="module")
def images():
    return RNG(0).normal(0.5, 1, (3, SIZE, SIZE, 2))


def _features(model, name, images, targets, rule="gradient"):
    """The outputs of an outer layer, and the gradients of the layers behind it by these."""
    above = _head(model, name).layers[0]
    values = keras.Model(model.input, above.input).predict(images, verbose=0)
    slopes = tfs.attributions(
        _head(model, name), values, rule, targets=targets, on_problem="ignore"
    )[rule]
    return values, slopes


@pytest.mark.parametrize("layer", ["backbone", "rectified", "last"])
@pytest.mark.parametrize("kind", CAM_WEIGHTS)
def test_a_cam_equals_its_definition(kind, layer, model, images):
    methods = [
        tfs.Method(f"{relu} {resize}", "gradient", tfs.CAM(kind, layer, relu=relu, resize=resize))
        for relu in (True, False)
        for resize in (True, False)
    ]
    options = {"targets": [0, 1, 2], "on_problem": "ignore"}
    found = tfs.attributions(model, images, methods, **options)
    values, slopes = _features(model, layer, images, found.targets)
    for relu in (True, False):
        cells = slow.cam(kind, values, slopes, relu)
        slow.near(found[f"{relu} False"], cells[..., np.newaxis])
        slow.near(found[f"{relu} True"], _placed(cells, PLACES[layer]))


@pytest.mark.parametrize("rule", ["guided_backprop", "zeiler_fergus"])
def test_a_cam_follows_the_rule_of_its_method_or_its_own(rule, model, images):
    own = tfs.CAM("layer_cam", "last", tfs.RULES[rule])
    methods = [
        slow.method(tfs.CAM("layer_cam", "last"), rule),
        tfs.Method("own", "gradient", own),
    ]
    found = tfs.attributions(model, images, methods, targets=1)
    values, slopes = _features(model, "last", images, found.targets, rule)
    reference = _placed(slow.cam("layer_cam", values, slopes), PLACES["last"])
    plain = tfs.attributions(model, images, slow.method(tfs.CAM("layer_cam", "last")), targets=1)
    assert np.abs(plain["composed"] - reference).max() > 0.01 * reference.max()
    slow.near(found["composed"], reference)
    slow.near(found["own"], reference)


def test_a_rule_in_the_traced_graph(images):
    """The ReLU behind the layer is a function, which no clone reaches."""
    i = keras.Input((SIZE, SIZE, 2))
    x = layers.Conv2D(4, 3, name="conv")(i)
    x = layers.Conv2D(3, 3, name="above")(layers.Lambda(tf.nn.relu)(x))
    x = layers.Flatten()(layers.Lambda(tf.nn.relu, name="relu")(x))
    model = zoo.random_weights(keras.Model(i, layers.Dense(3, activation="softmax")(x)), seed=1)
    method = slow.method(tfs.CAM("layer_cam", "conv"), "guided_backprop")
    found = tfs.attributions(model, images, method, targets=1)
    values, slopes = _features(model, "conv", images, found.targets, "guided_backprop")
    reference = _placed(slow.cam("layer_cam", values, slopes), (1, 1))
    slow.near(found["composed"], reference)


def test_of_a_linear_head_grad_cam_is_cam(images):
    """CAM (Zhou et al. 2016): outputs weighted by the class's row of the last layer."""
    i = keras.Input((SIZE, SIZE, 2))
    conv = layers.Conv2D(6, 5, activation="relu")(i)
    pooled = layers.GlobalAveragePooling2D()(conv)
    model = keras.Model(i, layers.Dense(4, activation="softmax")(pooled))
    zoo.random_weights(model, seed=3)
    found = tfs.saliency_map(model, images, "grad_cam")
    values = keras.Model(i, conv).predict(images, verbose=0)
    rows = model.get_weights()[-2].T[found.targets]
    cam = np.maximum(np.einsum("nhwk,nk->nhw", values, rows), 0) / (8 * 8)
    slow.near(found["grad_cam"], _placed(cam, (2, 1))[..., 0])


def test_guided_grad_cam_is_the_product(model, images):
    names = ["guided_backprop", "grad_cam", "guided_grad_cam"]
    found = tfs.attributions(model, images, names)
    product = found["guided_backprop"] * found["grad_cam"]
    slow.near(found["guided_grad_cam"], product)
    plain = tfs.attributions(model, images, "grad_cam")  # no guided gradients inside
    slow.near(found["grad_cam"], plain["grad_cam"])
    reduced = tfs.saliency_map(model, images, names)
    slow.near(reduced["guided_grad_cam"], np.abs(product).sum(axis=-1))
    slow.near(reduced["grad_cam"], plain["grad_cam"][..., 0])


def test_the_last_layer_with_spatial_outputs_is_the_default(model, images):
    methods = [tfs.METHODS["grad_cam"], slow.method(tfs.CAM(layer="last"))]
    found = tfs.attributions(model, images, methods)
    assert np.array_equal(found["grad_cam"], found["composed"])
    backbone = model.get_layer("backbone")
    x = layers.GlobalAveragePooling2D(keepdims=True)(backbone.output)  # one position is not a grid
    pooled = layers.Dense(3)(layers.Flatten()(x))
    nested = keras.Sequential([keras.Input((SIZE, SIZE, 2)), backbone])
    whole = keras.Sequential(
        [
            nested,
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    flat = keras.Model(backbone.input, pooled)
    head = [np.full((5, 3), -1.0), np.zeros(3)]  # what backbone returns is mostly negative here
    flat.layers[-1].set_weights(head)
    whole.layers[-1].set_weights(head)
    for each in (whole, flat):
        names = ["inner2", None, "inner1"]
        methods = [
            tfs.Method(f"at {name}", "gradient", tfs.CAM("grad_cam", name)) for name in names
        ]
        found = tfs.attributions(each, images, methods, targets=1)
        slow.near(found["at None"], found["at inner2"], 1e-6)  # older Keras casts behind it
        assert np.abs(found["at inner1"] - found["at inner2"]).max() > 0.01


class _Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__(name="subclassed")
        self.inner = inner

    def call(self, x):
        return 2.0 * self.inner(x)


def test_models_with_a_call_of_their_own(model, images):
    wrapped = _Subclassed(model)
    wrapped(images)
    for layer in (None, "inner1"):
        method = slow.method(tfs.CAM("layer_cam", layer))
        ours, theirs = (
            tfs.attributions(m, images, method, score=lambda outputs, _: outputs[:, 1])
            for m in (wrapped, model)
        )
        slow.near(ours["composed"], 2 * theirs["composed"])


def test_of_a_layer_that_is_called_twice_the_last_call_counts(images):
    i = keras.Input((SIZE, SIZE, 2))
    conv = layers.Conv2D(2, 3, padding="same", activation="relu", name="twice")
    first = conv(i)
    second = conv(first)
    model = keras.Model(i, layers.Dense(2, activation="softmax")(layers.Flatten()(second)))
    zoo.random_weights(model, seed=4)
    found = tfs.attributions(model, images, slow.method(tfs.CAM(layer="twice")), targets=0)
    values = keras.Model(i, second).predict(images, verbose=0)
    kernel = model.get_weights()[-2][:, 0].reshape(1, SIZE, SIZE, 2)
    slopes = np.repeat(kernel, 3, axis=0)
    slow.near(found["composed"], _placed(slow.cam("grad_cam", values, slopes), (0, 1)))


@pytest.mark.parametrize("axes", [1, 3])
def test_sequences_and_volumes(axes):
    conv = {1: layers.Conv1D, 3: layers.Conv3D}[axes]
    shape = {1: (20,), 3: (6, 7, 8)}[axes]
    i = keras.Input((*shape, 2))
    x = conv(4, 3, strides=2, activation="relu", name="conv")(i)
    model = keras.Model(i, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    zoo.random_weights(model, seed=6)
    given = RNG(0).normal(size=(2, *shape, 2)).astype(np.float32)
    found = tfs.attributions(model, given, "layer_cam", targets=[0, 2])
    values = keras.Model(i, x).predict(given, verbose=0)
    kernel = model.get_weights()[-2].T[[0, 2]].reshape(values.shape)
    # A window of size 3 and stride 2 on an even size leaves the last pixel out.
    places = [(1.25, 2) if size % 2 == 0 else (1, 2) for size in shape]
    seen = [(0, size - 2 if size % 2 == 0 else size - 1) for size in shape]
    reference = slow.placed(slow.cam("layer_cam", values, kernel), shape, places, seen)
    slow.near(found["layer_cam"][..., 0], reference)


def test_evenly_spread_cells_are_a_bilinear_resizing():
    maps = RNG(0).normal(size=(2, 5, 7)).astype(np.float32)
    resized = tf.image.resize(maps[..., np.newaxis], (12, 9)).numpy()[..., 0]
    places = [((new / old - 1) / 2, new / old) for new, old in ((12, 5), (9, 7))]
    slow.near(slow.placed(maps, (12, 9), places), resized, 1e-6)


def test_cams_nest(model, images):
    methods = [
        slow.method(tfs.SmoothGrad(4, 0.1, inner=tfs.CAM(layer="last"))),
        tfs.Method("weighed", "gradient", tfs.InputXGradient(inner=tfs.CAM())),
    ]
    found = tfs.attributions(model, images, [*methods, "grad_cam"], targets=[0, 1, 2])
    each = [
        tfs.attributions(model, x, "grad_cam", targets=[0, 1, 2], on_problem="ignore")["grad_cam"]
        for x in slow.noisy(images, 4, 0.1)
    ]
    slow.near(found["composed"], np.mean(each, axis=0), 1e-4)
    slow.near(found["weighed"], images * found["grad_cam"])


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_float16", 2e-2), ("float64", 1e-5)])
def test_layers_of_other_precisions(images, dtype, tolerance):
    exact, other = (_network(each, "float32") for each in ("float32", dtype))
    other.set_weights(exact.get_weights())
    methods = [slow.method(tfs.CAM("grad_cam", "last")), "guided_grad_cam", "smooth_grad"]
    found, reference = (
        tfs.attributions(m, images, methods, targets=[0, 1, 2]) for m in (other, exact)
    )
    for name in ("composed", "guided_grad_cam", "smooth_grad"):
        assert found[name].dtype == np.float32
        slow.near(found[name], reference[name], tolerance)


def test_a_sanity_check_takes_a_cam():
    model, images = synthetic.shapes_model(), synthetic.make_shapes(3, seed=1).images
    twins = synthetic.permuted_label_models()
    trained = tfs.attributions(model, images, "grad_cam")
    result = tfs.data_randomization_check(
        model, images, "grad_cam", permuted=twins, verbose=0, on_problem="ignore"
    )
    others = [
        tfs.attributions(t, images, "grad_cam", targets=trained.targets, on_problem="ignore")
        for t in twins
    ]
    expected = tfs.judge(trained["grad_cam"], np.stack([o["grad_cam"] for o in others]))
    assert result.verdicts["grad_cam"][0].invariance == pytest.approx(expected.invariance, abs=1e-4)


def test_the_model_is_left_as_it_was(model, images):
    before = [dict(vars(layer)) for layer in model._flatten_layers()]
    tfs.attributions(model, images, ["grad_cam", "guided_grad_cam"])
    with pytest.raises(tfs.OptionError):
        tfs.attributions(model, images, slow.method(tfs.CAM(layer="lost")))
    after = [dict(vars(layer)) for layer in model._flatten_layers()]
    assert [list(b) for b in before] == [list(a) for a in after]
    assert not any("call" in each for each in after)


def test_nothing_keeps_a_model_alive(images):
    model = _network()
    tfs.attributions(model, images, ["guided_grad_cam", "smooth_grad"])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_call_of_ones_own_on_a_layer_stays(images):
    model = _network()
    layer = model.get_layer("hidden")
    plain = layer.call
    vars(layer)["call"] = own = lambda x, **_: 3.0 * plain(x)
    found = tfs.attributions(model, images, "grad_cam", targets=[0, 1, 2])
    assert vars(layer)["call"] is own
    del vars(layer)["call"]
    expected = tfs.attributions(model, images, "grad_cam", targets=[0, 1, 2])
    slow.near(found["grad_cam"], 3 * expected["grad_cam"])


def test_what_another_thread_calls_meanwhile_is_not_taken(images):
    model = _network()
    layer = model.get_layer("hidden")
    plain, others = layer.call, []

    def call(x, **_):  # while the model is traced, another thread calls another layer of it
        thread = threading.Thread(
            target=lambda: others.append(model.get_layer("last")(np.ones((1, 4, 4, 5), "float32")))
        )
        thread.start()
        thread.join()
        return plain(x)

    vars(layer)["call"] = call
    found = tfs.attributions(model, images, "grad_cam", targets=[0, 1, 2])
    del vars(layer)["call"]
    assert others
    slow.near(
        found["grad_cam"],
        tfs.attributions(model, images, "grad_cam", targets=[0, 1, 2])["grad_cam"],
    )


def test_layers_that_cannot_be_taken_are_refused(model, images):
    def refused(error, match, layer, of=model, given=images):
        with pytest.raises(error, match=match):
            tfs.attributions(of, given, slow.method(tfs.CAM(layer=layer)))

    refused(tfs.OptionError, "Unknown layer: 'lsat'. Did you mean 'last'", "lsat")
    refused(tfs.GeometryError, r"'hidden': it has a single cell.*first: last, rect", "hidden")
    flat = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 2)),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="top"),
        ]
    )
    refused(tfs.GeometryError, r"Received: top: .*single cell.*; flatten", None, flat)
    refused(tfs.ModelError, "Expected a keras.Model, whose layers", None, lambda x: model(x))
    i = keras.Input((SIZE, SIZE, 2))
    side = layers.Conv2D(2, 3, name="side")(i)
    main = layers.Conv2D(2, 3, name="main")(i)
    heads = [layers.Dense(2)(layers.Flatten()(x)) for x in (main, side)]
    two = tfs.prepare(keras.Model(i, heads), output=0)
    refused(tfs.GeometryError, r"'side': it is not on the way.*best first: main\.", "side", two)
    names = [keras.Sequential([keras.Input((SIZE, SIZE, 2)), layers.Conv2D(2, 3, name="conv")])]
    names.append(keras.Sequential([keras.Input((10, 10, 2)), layers.Conv2D(2, 3, name="conv")]))
    both = keras.Sequential([keras.Input((SIZE, SIZE, 2)), *names, layers.Flatten()])
    refused(
        tfs.OptionError,
        "path of one layer. Received: 'conv', the name of .*/conv and",
        "conv",
        both,
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfs.CAM("gradcam"), "Unknown weights: 'gradcam'. Did you mean 'grad_cam'"),
        (lambda: tfs.CAM(layer=3.5), "layer as a name, a path .*. Received: 3.5"),
        (lambda: tfs.CAM(grid=(3, 3)), "grid as the number of cells .* beside the layer"),
        (
            lambda: tfs.CAM(layer="a", grid=(3, 0)),
            "number of cells in grid as an int of at least 1",
        ),
        (lambda: tfs.CAM(layer="a", prefix=1), "prefix beside grid"),
        (lambda: tfs.CAM(relu=1), "relu as True or False. Received: 1"),
        (lambda: tfs.CAM(rule="gradeint"), "Unknown rule: 'gradeint'. Did you mean 'gradient'"),
        (lambda: tfs.Method("a", "gradient", None, "mean"), None),
    ],
)
def test_impossible_cams_are_refused(make, match, model, images):
    with pytest.raises(tfs.OptionError, match=match):
        tfs.attributions(model, images, make())


def test_a_model_of_one_batch_size_under_a_rule():
    inputs = keras.Input(batch_shape=(4, 6, 6, 1))
    hidden = layers.Conv2D(3, 3, activation="relu", name="hidden")(inputs)
    hidden = layers.Conv2D(3, 3, activation="relu")(hidden)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(hidden)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.3, 1, w.shape) for w in model.get_weights()])
    free = keras.Sequential([keras.Input((6, 6, 1)), *model.layers[1:]])
    images = rng.uniform(0, 1, (3, 6, 6, 1)).astype(np.float32)
    method = slow.method(tfs.CAM("layer_cam", layer="hidden"), "guided_backprop")
    found, expected = (tfs.attributions(each, images, method, targets=0) for each in (model, free))
    slow.near(found["composed"], expected["composed"])
