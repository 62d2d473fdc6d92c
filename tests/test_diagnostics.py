"""Meaningless maps are reported, with cause and remedy."""

import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers

import tfsaliency as tfs
from tfsaliency.models.ranges import find_trained_range

MODIFIED = ["guided_backprop", "zeiler_fergus"]


def _causes(model, images, methods="gradient", **options):
    """Return (cause, images, methods) of every problem, and check that each has one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not isinstance(model, tfs.Prepared):
            options = {"score": "logit", **options}
        maps = tfs.saliency_map(model, images, methods, **options)
    assert all(w.category is tfs.SaliencyWarning and w.filename == __file__ for w in caught)
    assert [str(w.message) for w in caught] == [str(problem) for problem in maps.problems]
    return [(p.cause, p.images, p.methods) for p in maps.problems]


def _dense(weights, activation=None, bias=0.0):
    """Flatten - ReLU - dense, with weights (h * w * c, k)."""
    model = keras.Sequential(
        [
            keras.Input((2, 2, 3)),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(weights.shape[1], activation=activation),
        ]
    )
    model.set_weights([weights, np.full(weights.shape[1], bias)])
    return model


WEIGHTS = np.random.default_rng(0).normal(0, 1, (12, 2))
IMAGES = np.random.default_rng(1).uniform(0.5, 1, (3, 2, 2, 3))


def test_a_map_of_use_has_no_problem():
    assert _causes(_dense(WEIGHTS), IMAGES, ["gradient", *MODIFIED]) == []
    assert _causes(_dense(WEIGHTS, "softmax"), IMAGES, score="probability") == []


def test_a_map_of_zeros():
    images = IMAGES.copy()
    images[1] = -1.0
    found = _causes(_dense(WEIGHTS), images, ["gradient", *MODIFIED])
    assert found == [("zero_map", (1,), ("gradient", "guided_backprop"))]
    assert _causes(_dense(WEIGHTS * 0), IMAGES) == [("zero_map", (0, 1, 2), ("gradient",))]


def test_a_constant_map():
    same = np.tile(WEIGHTS[:3], (4, 1))  # for each of the four pixels
    assert _causes(_dense(same), IMAGES) == [("constant_map", (0, 1, 2), ("gradient",))]
    signed = tfs.attributions(_dense(same), IMAGES, on_problem="ignore", score="logit")
    assert [p.cause for p in signed.problems] == ["constant_map"]


def test_a_map_that_is_not_finite():
    weights = WEIGHTS.copy()
    weights[4, 0] = np.nan
    found = _causes(_dense(weights), IMAGES, targets=0)
    assert found == [
        ("non_finite_output", (0, 1, 2), ()),
        ("non_finite_map", (0, 1, 2), ("gradient",)),
    ]
    weights[4, 0] = np.inf
    assert _causes(_dense(weights), IMAGES, targets=0) == found


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_saturated_probability(activation):
    # Logits: 0.3 times the first, 30 times the second: a probability of 1 - 1e-13.
    weights = np.zeros((12, 2))
    weights[0], weights[5] = [1.0, -1.0], [0.5, 0.25]
    images = np.ones((2, 2, 2, 3))
    images[1, 0, 0, 0] = 40.0
    model = _dense(weights, activation)
    assert _causes(model, images, score="probability", targets=0) == [
        ("saturated_probability", (1,), ())
    ]
    # What the warning says helps, does.
    assert _causes(model, images, score="log_probability", targets=1) == []
    assert _causes(model, images, score="logit", targets=0) == []


def test_raise_and_ignore():
    model = _dense(WEIGHTS * 0)
    with pytest.raises(
        tfs.MeaninglessMapError, match="zero_map.*images 0, 1 and 2.*Check the model"
    ):
        tfs.saliency_map(model, IMAGES, on_problem="raise", score="logit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tfs.saliency_map(model, IMAGES, on_problem="ignore", score="logit").problems
    with pytest.raises(tfs.OptionError, match="Did you mean 'raise'"):
        tfs.saliency_map(model, IMAGES, on_problem="raises")


def test_problems_are_saved_and_joined(tmp_path):
    from tfsaliency.saliency_maps.files import join_files

    maps = tfs.saliency_map(_dense(WEIGHTS * 0), IMAGES, score="logit", on_problem="ignore")
    maps = replace(maps, names=("a", "b", "c"))
    maps.save(tmp_path / "maps.npz")
    assert tfs.SaliencyMaps.load(tmp_path / "maps.npz").problems == maps.problems
    join_files([tmp_path / "maps.npz"] * 2, tmp_path / "joined.npz")
    joined = tfs.SaliencyMaps.load(tmp_path / "joined.npz")
    assert joined.names == ("a", "b", "c") * 2
    np.testing.assert_array_equal(joined.images, np.concatenate([IMAGES, IMAGES]))
    assert [problem.images for problem in joined.problems] == [(0, 1, 2), (3, 4, 5)]


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_an_integer_input_is_an_error(dtype):
    i = keras.Input((4, 4, 3), dtype=dtype)
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.Rescaling(0.1)(i))))
    with pytest.raises(tfs.ModelError, match=f"{dtype}: there is no derivative"):
        tfs.saliency_map(model, np.ones((4, 4, 3)))


@pytest.mark.parametrize(
    "cut", [tf.stop_gradient, tf.round, lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32),
            lambda x: tf.cast(tf.argmax(x, axis=-1), tf.float32)[..., tf.newaxis]],
    ids=["stop_gradient", "round", "cast", "argmax"],
)  # fmt: skip
@pytest.mark.parametrize("rule", ["gradient", "guided_backprop"])
def test_a_score_that_does_not_depend_on_the_images_is_an_error(cut, rule):
    x = i = keras.Input((4, 4, 3))
    x = layers.ReLU()(zoo.Calls(cut)(x))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(
        tfs.ModelError, match=r"does not depend on the images|no ReLU|without ReLUs"
    ):
        tfs.saliency_map(model, np.ones((4, 4, 3)), rule)


# The range of a photo after the preprocessing of each model of keras.applications.
MODULES = {
    "VGG16": "vgg16", "ResNet50": "resnet50", "ResNet50V2": "resnet_v2", "Xception": "xception",
    "InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2",
    "MobileNet": "mobilenet", "MobileNetV2": "mobilenet_v2", "MobileNetV3Small": "mobilenet_v3",
    "DenseNet121": "densenet", "NASNetMobile": "nasnet", "EfficientNetB0": "efficientnet",
    "EfficientNetV2B0": "efficientnet_v2", "ConvNeXtTiny": "convnext",
}  # fmt: skip


@pytest.mark.slow
def test_the_names_are_those_that_keras_gives(monkeypatch):
    # EfficientNets and similar ones by name only: building all 40 takes minutes.
    for name in ("MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "VGG16",
                 "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny"):  # fmt: skip
        model = getattr(keras.applications, name)(
            weights=None, include_top=False, input_shape=(32, 32, 3)
        )
        assert find_trained_range(model) is not None, model.name
    for name in ("resnet18_cifar", "my_vgg16", "mobilenet", "vgg16_small"):
        assert find_trained_range(keras.Sequential([keras.Input((4, 4, 3))], name=name)) is None


def _stem(name):
    """A model with the name, and the scaling layer if any, of an application's constructor."""
    names = {
        "NASNetMobile": "NASNet",
        "MobileNet": "mobilenet_1.00_224",
        "MobileNetV2": "mobilenetv2_1.00_224",
        "InceptionV3": "inception_v3",
        "InceptionResNetV2": "inception_resnet_v2",
        "EfficientNetV2B0": "efficientnetv2-b0",
        "ConvNeXtTiny": "convnext_tiny",
    }
    name = names.get(name, name.lower())
    steps = [keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)]
    if name.startswith(("mobilenetv3", "efficientnet", "convnext")):
        steps.insert(1, layers.Rescaling(1 / 255))
    return keras.Sequential(steps, name=name)


@pytest.mark.parametrize("name", MODULES)
def test_the_range_that_a_model_was_trained_on(name):
    preprocess = getattr(keras.applications, MODULES[name]).preprocess_input
    model = _stem(name)
    extremes = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 255.0)]).astype("float32")
    done = np.asarray(preprocess(extremes.copy()))
    np.testing.assert_allclose(find_trained_range(model)[:2], [done.min(), done.max()], rtol=1e-3)
    photo = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    assert _causes(model, photo, preprocess=lambda x: preprocess(x.copy())) == []
    raw = done.min() == 0
    wrong = {
        "missing": photo,
        "twice": np.asarray(preprocess(np.asarray(preprocess(photo.copy())))),
        "scaled": np.asarray(preprocess(photo / 255)),
    }
    for what, images in wrong.items():
        expected = [] if raw and what != "scaled" else [("unusual_range", (0, 1), ())]
        assert _causes(model, images) == expected, what


def test_a_model_that_hands_its_input_on_is_known_too():
    backbone = _stem("ResNet50")
    x = i = keras.Input((4, 4, 3))
    direct = keras.Model(i, layers.Dense(3)(backbone(x)))
    scaled = keras.Model(i, layers.Dense(3)(backbone(layers.Rescaling(2.0)(x))))
    assert find_trained_range(direct) == find_trained_range(backbone) is not None
    assert find_trained_range(keras.Sequential([backbone, layers.Dense(1)])) is not None
    assert find_trained_range(scaled) is None
    j = keras.Input((4, 4, 3))
    two = keras.Model([j, i], layers.Add()([layers.Flatten()(j)[:, :2], backbone(i)]))
    assert find_trained_range(two, 0) is None and find_trained_range(two, 1) is not None
    assert find_trained_range(keras.Model(i, layers.Dense(1)(x), name="mine")) is None


def test_images_of_one_color_are_not_taken_for_unprocessed_ones():
    images = np.stack([np.full((4, 4, 3), v, "float32") for v in (0.0, 60.0, 255.0)])
    model = _stem("ResNet50")
    assert _causes(model, images, preprocess=keras.applications.resnet50.preprocess_input) == []


def test_channels_that_come_first_are_said():
    i = keras.Input((3, 8, 8))
    h = layers.Flatten()(layers.ReLU()(layers.Permute((2, 3, 1))(i)))
    model = keras.Model(i, layers.Dense(2)(h))
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 8, 8))
    assert _causes(model, images) == [("channels_first", (0, 1), ())]
    # What the warning says helps, does.
    last = np.moveaxis(images, 1, -1)
    moved = tfs.prepare(lambda x: model(tf.transpose(x, (0, 3, 1, 2))), score="logit")
    assert _causes(moved, last) == []
    signed = tfs.attributions(model, images, score="logit", on_problem="ignore")["gradient"]
    ours = tfs.attributions(moved, last)["gradient"]
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), signed, rtol=1e-5)


def test_problems_print_a_line_each():
    assert str(tfs.saliency_map(_dense(WEIGHTS), IMAGES, score="logit").problems) == "no problems"
    maps = tfs.saliency_map(_dense(WEIGHTS * 0), IMAGES, on_problem="ignore", score="logit")
    assert str(maps.problems).startswith("zero_map (gradient, images 0, 1 and 2): a map is zero")


def test_squeezenet_without_its_preprocessing(squeezenet, data):
    (photo,) = sorted((data / "imagenet").glob("*robin*"))
    image = tfs.load_images(photo, squeezenet)
    preprocess = tfs.models.squeezenet.preprocess_input
    assert _causes(squeezenet, image, preprocess=preprocess) == []
    assert _causes(squeezenet, image) == [("unusual_range", (0,), ())]
    assert _causes(squeezenet, image / 255, preprocess=preprocess)[0][0] == "unusual_range"


def test_a_map_that_is_flat_in_its_first_rows_alone_is_not_constant():
    x = np.random.default_rng(0).normal(size=(2, 20, 20, 2)).astype("float32")
    inputs = keras.Input((20, 20, 2))
    rows = keras.layers.Cropping2D(((15, 0), (0, 0)))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(rows)))
    assert not tfs.attributions(model, x, targets=0, on_problem="raise").problems
    flat = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    problems = tfs.attributions(flat, x, targets=0, on_problem="ignore").problems
    assert [p.cause for p in problems] == ["constant_map"]
