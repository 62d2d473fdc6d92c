"""What a modified rule cannot reach is refused, by name."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import tfsaliency as tfs

MODIFIED = ["guided_backprop", "zeiler_fergus"]


@pytest.mark.parametrize("rule", MODIFIED)
@pytest.mark.parametrize("case", zoo.UNREACHED)
def test_an_unreached_relu_is_refused_by_name(case, rule):
    build, name = zoo.UNREACHED[case]
    with pytest.raises(tfs.UncoveredReluError) as caught:
        tfs.gradient_map(build("float32"), zoo.images(), rule)
    assert name in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize("case", zoo.UNREACHED)
def test_the_gradient_needs_no_reach(case):
    model = zoo.UNREACHED[case][0]("float32")
    maps = tfs.gradient_map(model, zoo.images())
    assert np.isfinite(maps["gradient"]).all() and maps["gradient"].any()
    coverage = maps.coverage["gradient"]
    assert coverage.reached == coverage.relus >= 1


@pytest.mark.parametrize("case", zoo.OPAQUE)
def test_a_model_whose_layers_cannot_be_seen_is_refused(case):
    model = zoo.OPAQUE[case]("float32")
    with pytest.raises(tfs.OpaqueModelError, match=type(model).__name__):
        tfs.gradient_map(model, zoo.images(), "guided_backprop")
    assert tfs.gradient_map(model, zoo.images())["gradient"].any()


@pytest.mark.parametrize("rule", MODIFIED)
@pytest.mark.parametrize("activation", zoo.WITHOUT_RELU)
def test_a_model_without_relu_is_refused(activation, rule):
    with pytest.raises(tfs.NoReluError, match=rule):
        tfs.gradient_map(zoo.WITHOUT_RELU[activation]("float32"), zoo.images(), rule)


def test_only_what_lies_between_image_and_score_counts():
    x = i = keras.Input((4, 4, 3))
    kernel_like = keras.ops.relu(keras.ops.sum(x * 0.0))  # reached, on the path
    h = layers.ReLU()(x) + kernel_like
    side = layers.Lambda(keras.ops.relu)(x)  # beside it: an output of the block that nobody uses
    block = keras.Model(i, [h, side])
    x = i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(block(x)[0])))
    coverage = tfs.gradient_map(model, np.ones((4, 4, 3)), "guided_backprop").coverage
    assert coverage["guided_backprop"] == tfs.Coverage("guided_backprop", relus=2, reached=2)


def test_a_relu_of_weights_alone_is_none_of_the_maps():
    class Positive(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * keras.ops.relu(self.scale)

    x = i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.ReLU()(Positive()(x)))))
    coverage = tfs.gradient_map(model, np.ones((4, 4, 3)), "guided_backprop").coverage
    assert coverage["guided_backprop"].relus == 1


def test_a_maximum_with_something_else_is_no_relu():
    x = i = keras.Input((4, 4, 3))
    h = layers.ReLU()(keras.ops.maximum(x, -1.0))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    assert tfs.gradient_map(model, np.ones((4, 4, 3)), "guided_backprop")["guided_backprop"].any()


def test_a_product_with_a_functions_argument_is_no_relu():
    x = i = keras.Input((4, 4, 3))
    h = zoo.CastInFunction()(layers.ReLU()(x))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    coverage = tfs.gradient_map(model, np.ones((4, 4, 3)), "guided_backprop").coverage
    assert coverage["guided_backprop"].relus == 1
