"""saliency_map and its result: inputs, preprocessing, reductions, batches, files."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from PIL import Image

import tfsaliency as tfs

ALL = zoo.RULES


@pytest.fixture(scope="module")
def model():
    return zoo.SPELLINGS["ReLU layer"].build("float32")


@pytest.fixture(scope="module")
def x():
    return zoo.images(5).astype("float32")


def test_reductions_of_the_channels(model, x):
    signed = tfs.attributions(model, x, "guided_backprop")["guided_backprop"]
    for reduction, reference in {
        "sum_abs": np.abs(signed).sum(-1),
        "max_abs": np.abs(signed).max(-1),
        "sum": signed.sum(-1),
    }.items():
        ours = tfs.saliency_map(model, x, "guided_backprop", reduction=reduction)
        np.testing.assert_allclose(ours["guided_backprop"], reference, rtol=1e-5, atol=1e-7)
    with pytest.raises(tfs.OptionError, match="Did you mean 'sum_abs'"):
        tfs.saliency_map(model, x, reduction="sumabs")


def test_batches_do_not_matter(model, x):
    whole = tfs.saliency_map(model, x, ALL)
    for size in (1, 2, 5):
        parts = tfs.saliency_map(model, x, ALL, batch_size=size)
        assert parts.targets.tolist() == whole.targets.tolist()
        for name in ALL:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(parts.outputs, model.predict(x, verbose=0), rtol=1e-5)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(tfs.OptionError, match="batch_size"):
            tfs.saliency_map(model, x, batch_size=bad)


def test_every_form_of_the_same_images(model):
    pixels = np.random.default_rng(0).integers(0, 256, (2, zoo.SIZE, zoo.SIZE, 3), dtype="uint8")
    expected = tfs.saliency_map(model, pixels.astype("float32"))["gradient"]
    forms = {
        "uint8": pixels,
        "int64": pixels.astype("int64"),
        "float64": pixels.astype("float64"),
        "tensor": tf.constant(pixels),
        "list of arrays": list(pixels),
        "list of tensors": [tf.constant(p) for p in pixels],
        "list of PIL": [Image.fromarray(p) for p in pixels],
    }
    for name, form in forms.items():
        assert np.array_equal(tfs.saliency_map(model, form)["gradient"], expected), name
    for single in (pixels[0], Image.fromarray(pixels[0])):
        np.testing.assert_allclose(
            tfs.saliency_map(model, single)["gradient"], expected[:1], rtol=1e-4
        )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((7, 7)), r"Wrong rank.*one image \(7, 7, 3\).*Received: shape \(7, 7\)"),
        (np.zeros((1, 1, 7, 7, 3)), "Wrong rank"),
        (np.zeros((8, 7, 3)), r"Wrong size.*\(8, 7, 3\).*load_images"),
        (np.zeros((7, 7, 4)), "Convert them to 3 channels"),
        (np.zeros((3, 7, 7)), "Channels come last"),
        (np.zeros((0, 7, 7, 3)), "Empty batch"),
        ([], "Wrong rank|Empty batch"),
        (np.full((7, 7, 3), np.nan), "147 values that are NaN or infinite"),
        (np.full((7, 7, 3), np.inf), "NaN or infinite"),
        (np.zeros((7, 7, 3), bool), "dtype bool"),
        (np.zeros((7, 7, 3), complex), "dtype complex128"),
        ("photo.jpg", "load_images"),
        ([np.zeros((7, 7, 3)), np.zeros((8, 7, 3))], "one shape"),
        (keras.KerasTensor((1, 7, 7, 3)), "NumPy array, tf.Tensor or PIL"),
        (Image.new("I;16", (7, 7)), "8 bits"),
        (None, "Received: None"),
    ],
)
def test_images_that_the_model_cannot_take(model, images, message):
    with pytest.raises(tfs.ImageError, match=message):
        tfs.saliency_map(model, images)


def test_preprocess_works_on_a_copy_and_gradients_are_those_of_its_output(model, x):
    given = x.copy()

    def in_place(batch):
        batch *= 3.0
        batch -= 1.0
        return batch

    ours = tfs.attributions(model, given, preprocess=in_place)
    assert np.array_equal(given, x)
    assert np.array_equal(ours.images, x)
    direct = tfs.attributions(model, 3 * x - 1)
    assert np.array_equal(ours["gradient"], direct["gradient"])


def test_preprocess_may_resize_and_must_keep_the_batch(model):
    large = np.random.default_rng(0).uniform(size=(2, 14, 14, 3)).astype("float32")
    halved = tfs.attributions(model, large, preprocess=lambda b: b[:, ::2, ::2])
    assert np.array_equal(
        halved["gradient"], tfs.attributions(model, large[:, ::2, ::2])["gradient"]
    )
    with pytest.raises(tfs.ImageError, match="Wrong size of preprocessed images"):
        tfs.saliency_map(model, large, preprocess=lambda b: b)
    with pytest.raises(tfs.OptionError, match="batch of 2 images"):
        tfs.saliency_map(model, large, preprocess=lambda b: b[:1, ::2, ::2])
    with pytest.raises(tfs.ImageError, match="NaN"):
        tfs.saliency_map(model, large, preprocess=lambda b: b[:, ::2, ::2] * np.nan)
    with pytest.raises(tfs.OptionError, match="Expected preprocess as a function"):
        tfs.saliency_map(model, large, preprocess="caffe")


def test_keras_preprocess_input_leaves_the_callers_array_alone(model, x):
    given = np.abs(x)
    before = given.copy()
    tfs.saliency_map(model, given, preprocess=keras.applications.resnet50.preprocess_input)
    assert np.array_equal(given, before)


def test_the_result_is_a_mapping_and_survives_a_file(model, x, tmp_path):
    maps = tfs.saliency_map(model, x, ALL, targets=2)
    assert list(maps) == ALL and len(maps) == 3 and "gradient" in maps
    others = [maps, tfs.saliency_map(model, x, ALL, targets=2)]
    assert [maps == other for other in others] == [True, False]
    with pytest.raises(KeyError, match="There are: gradient, guided_backprop, zeiler_fergus"):
        maps["smooth_grad"]
    path = tmp_path / "deep" / "maps"
    path.parent.mkdir()
    maps.save(path)
    assert path.is_file()  # the path as it was given, without a suffix added
    loaded = tfs.SaliencyMaps.load(path)
    for name in ALL:
        assert np.array_equal(loaded[name], maps[name]) and loaded[name].dtype == maps[name].dtype
    for name in ("images", "targets", "scores", "outputs"):
        assert np.array_equal(getattr(loaded, name), getattr(maps, name))
    assert (loaded.score, loaded.coverage, loaded.names) == (maps.score, maps.coverage, ())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(tfs.ResultError, match="a file that SaliencyMaps.save wrote"):
        tfs.SaliencyMaps.load(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(tfs.ResultError, match="a file that SaliencyMaps.save wrote"):
        tfs.SaliencyMaps.load(tmp_path / "other.npz")


def test_rescaled_maps(model, x):
    maps = tfs.saliency_map(model, x, "gradient")
    raw, ours = maps["gradient"][1], maps.rescaled("gradient")[1]
    np.testing.assert_allclose(ours, (raw - raw.min()) / (raw.max() - raw.min()), rtol=1e-6)
    flat = keras.Sequential([keras.Input((4, 4, 3)), layers.GlobalAveragePooling2D()])
    constant = tfs.saliency_map(flat, np.ones((4, 4, 3)), targets=0, on_problem="ignore")
    assert constant["gradient"].min() == constant["gradient"].max() > 0
    assert np.isnan(constant.rescaled("gradient")).all()


def test_a_prepared_model_stands_wherever_a_model_does(model, x):
    prepared = tfs.prepare(model, score="margin", preprocess=lambda b: b / 2)
    direct = tfs.saliency_map(model, x, score="margin", preprocess=lambda b: b / 2)
    assert np.array_equal(tfs.saliency_map(prepared, x)["gradient"], direct["gradient"])
    assert prepared.input_shape == model.input_shape
    with pytest.raises(tfs.OptionError, match="prepared with score='margin'"):
        tfs.saliency_map(prepared, x, score="logit")


@pytest.fixture
def traced(monkeypatch):
    """A list that grows with each new trace."""
    from tfsaliency.engine import build

    made, real = [], build.trace_gradients
    monkeypatch.setattr(build, "trace_gradients", lambda *args: made.append(1) or real(*args))
    return made


def test_what_was_traced_is_kept(model, x, traced):
    from tfsaliency import prepared
    from tfsaliency.engine import kept_traces

    fresh = zoo.SPELLINGS["ReLU layer"].build("float32")
    for images in (x, x[:2], x[0]):
        tfs.saliency_map(fresh, images, ALL, targets=len(traced))
    assert len(traced) == 1
    rules = [tfs.rect_grad_at(k) for k in range(kept_traces._KEPT + 2)]
    for rule in rules:
        tfs.saliency_map(fresh, x, tfs.Method("rect", rule), targets=0)
    assert all(len(kept.traces) <= kept_traces._KEPT for kept in prepared._kept.values())


def test_traces_of_all_methods_are_kept(x, traced):
    """A loop over methods and images traces each method once."""
    prepared = tfs.prepare(zoo.SPELLINGS["ReLU layer"].build("float32"))
    batch = prepared.check(x)
    attention = ("attention_rollout", "generic_attention", "legrad")  # not of this network
    methods = [method for name, method in tfs.METHODS.items() if name not in attention]
    for method in methods:
        prepared.trace((method,), batch)
    once = len(traced)
    for method in methods:
        prepared.trace((method,), batch)
    assert len(traced) == once >= len(methods)
    assert len(prepared._kept.traces) == len(methods)


def test_methods_that_are_written_anew_share_a_trace(x, traced):
    model = zoo.SPELLINGS["ReLU layer"].build("float32")

    def traces_of(composition, rule="gradient"):
        before = len(traced)
        method = tfs.Method("mine", rule, composition)
        found = tfs.saliency_map(model, x, method, on_problem="ignore")["mine"]
        return len(traced) - before, found

    def nested(n):
        return tfs.SmoothGrad(2, inner=tfs.IntegratedGradients(steps=n, max_steps=n))

    assert [traces_of(nested(n))[0] for n in (2, 2, 3, 2)] == [1, 0, 1, 0]
    assert traces_of(nested(2), "guided_backprop")[0] >= 1
    baseline = np.zeros(x.shape[1:])
    _, black = traces_of(tfs.IntegratedGradients(baseline, steps=4, max_steps=4))
    baseline += 1.0  # read again, because it may change
    again, white = traces_of(tfs.IntegratedGradients(baseline, steps=4, max_steps=4))
    assert again == 1 and np.abs(white - black).max() > 0.1 * np.abs(black).max()
    assert [traces_of(lambda attribute, points, index: attribute(points, index))[0]] * 2 == [1, 1]


@functools.cache
def _any_size():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs)))


def test_what_a_callable_reads_is_read_at_every_call(model, x):
    k, factor = 0, 1.0

    def score(outputs, targets):
        return outputs[:, k]

    method = tfs.Method("scaled", lambda upstream, site: factor * site.backward(upstream))
    logits = keras.Model(model.input, model.output * 1.0)  # hides the softmax from the score
    for k, factor in ((0, 1.0), (1, 3.0)):
        ours = tfs.attributions(logits, x, ["gradient", method], score=score)
        direct = tfs.attributions(model, x, score="probability", targets=k)["gradient"]
        np.testing.assert_allclose(ours["gradient"], direct, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(ours["scaled"], factor**2 * direct, rtol=1e-3, atol=1e-5)
    prepared = tfs.prepare(logits, score=score)
    assert np.array_equal(tfs.attributions(prepared, x)["gradient"], ours["gradient"])


def test_maps_inside_an_open_tape_and_not_inside_a_function(model, x):
    plain = tfs.saliency_map(model, x, ALL)
    with tf.GradientTape() as tape:
        tape.watch(tf.constant(x))
        for _ in range(2):
            taped = tfs.saliency_map(model, x, ALL)
    fresh = zoo.SPELLINGS["nested"].build("float32")
    with tf.GradientTape():
        assert tfs.saliency_map(fresh, x, "guided_backprop")["guided_backprop"].any()
    for name in ALL:
        assert np.array_equal(plain[name], taped[name])
    with pytest.raises(tfs.OptionError, match="inside a tf.function"):
        tf.function(lambda: tfs.saliency_map(model, x), autograph=False)()


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_results_of_narrow_models_are_float32(policy, x, tmp_path):
    low = zoo.SPELLINGS["ReLU layer"].build(policy)
    maps = tfs.saliency_map(low, x, ALL, targets=1)
    assert {maps[name].dtype for name in ALL} == {maps.scores.dtype} == {np.dtype("float32")}
    maps.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert np.array_equal(loaded["gradient"], maps["gradient"])
    assert np.array_equal(loaded.outputs, maps.outputs)


def test_the_images_of_a_result_are_a_copy(model, x):
    given = x.copy()
    maps = tfs.saliency_map(model, given)
    given[:] = 0
    assert np.array_equal(maps.images, x)


def test_models_that_cannot_be_explained(x):
    with pytest.raises(tfs.ModelError, match="not built"):
        tfs.saliency_map(keras.Sequential([layers.Dense(2, activation="softmax")]), x)
    number = keras.Model(i := keras.Input(()), layers.Rescaling(2.0)(i))
    with pytest.raises(tfs.ModelError, match=r"Expected an input of features \(f,\)"):
        tfs.saliency_map(number, np.zeros(3))
    with pytest.raises(tfs.ModelError, match="of type module"):
        tfs.saliency_map(keras, x)
    with pytest.raises(tfs.ModelError, match="of type type"):
        tfs.saliency_map(keras.Model, x)
    with pytest.raises(tfs.ModelError, match="floating-point outputs.*string"):
        tfs.saliency_map(lambda x: "scores", x)
    i = keras.Input((7, 7, 3))
    with pytest.raises(
        tfs.ModelError, match=r"one output.* with 2.*prepare.model, \.\.\., output="
    ):
        tfs.saliency_map(keras.Model(i, [i + 1.0, i * 2.0]), x)

    class Two(keras.Model):
        def call(self, inputs):
            return {"a": inputs, "b": inputs}

    two = Two()
    two(x)
    with pytest.raises(tfs.ModelError, match="one output.* with 2"):
        tfs.saliency_map(two, x)
    with pytest.raises(tfs.ModelError, match="one input.* with 2"):
        j = keras.Input((7, 7, 3))
        tfs.saliency_map(keras.Model([i, j], i + j), x)
    with pytest.raises(tfs.OptionError, match="Expected score=.*3 outputs"):
        tfs.saliency_map(keras.Model(i, i * 2.0), x)
    whole = tfs.saliency_map(keras.Model(i, i * 2.0), x, score=lambda o, t: o[:, 3, 3, 0])
    expected = np.zeros((7, 7))
    expected[3, 3] = 2.0
    assert np.array_equal(whole["gradient"][0], expected)
    assert whole.targets.tolist() == [-1] * 5


@pytest.mark.parametrize(
    "methods",
    [[], ["gradient", "gradient"], "guided", 3, None, [None], b"gradient", lambda a, p, i: a(p, i)],
)
def test_bad_methods(model, x, methods):
    with pytest.raises(tfs.OptionError, match="method|a composition with a name"):
        tfs.saliency_map(model, x, methods)


def test_inputs_given_as_a_list_or_a_dict_of_one(x):
    i = keras.Input((7, 7, 3), name="photo")
    o = layers.Dense(2)(layers.Flatten()(layers.ReLU()(i)))
    plain = tfs.saliency_map(keras.Model(i, o), x, "guided_backprop", targets=0)
    for inputs, outputs in [([i], [o]), ({"photo": i}, {"out": o})]:
        other = tfs.saliency_map(keras.Model(inputs, outputs), x, "guided_backprop", targets=0)
        assert np.array_equal(other["guided_backprop"], plain["guided_backprop"])
