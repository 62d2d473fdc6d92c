"""Relevance by op in the traced graph, against formulas, published values and other libraries."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow
from setups import float64

import tfsaliency as tfs
from tfsaliency import synthetic


def six_methods():
    """The network f = ReLU(ReLU(x1 - 1) - ReLU(x2)) of methods that differ."""
    i = keras.Input((2,))
    h = layers.Dense(2, activation="relu", name="h")(i)
    model = keras.Model(i, layers.Dense(1, activation="relu", name="f")(h))
    model.get_layer("h").set_weights([np.eye(2), np.array([-1.0, 0.0])])
    model.get_layer("f").set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
    return model


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradient", (1, -1)),
        ("input_x_gradient", (3, -1)),
        ("integrated_gradients", (1.5, -0.5)),
        ("lrp_epsilon", (3, -1)),
        ("transformer_lrp", (3, -1)),
        ("deep_lift", (2, -1)),
        ("occlusion", (1, -1)),
    ],
)
def test_one_network_tells_the_methods_apart(method, expected):
    # Exact integration: the corner lies at a third of the path.
    chosen = tfs.IntegratedGradients(steps=512) if method == "integrated_gradients" else method
    x = np.array([[3.0, 1.0], [-10.0, -5.0]])
    found = tfs.attributions(
        six_methods(), x, chosen, targets=0, score="logit", on_problem="ignore"
    )[method]
    tolerance = 2e-3 if method == "integrated_gradients" else 1e-5
    np.testing.assert_allclose(found[0], expected, rtol=tolerance)
    np.testing.assert_array_equal(found[1], 0)


@pytest.mark.parametrize(
    ("corner", "rule", "expected"),
    [
        (2.0, tfs.LRP("epsilon"), (18, 36, 54)),
        (-2.0, tfs.LRP("alpha1_beta0"), (12, 33.6, 50.4)),
        (-2.0, tfs.LRP("z_plus"), (12, 33.6, 50.4)),
    ],
)
def test_dense_nets_of_known_relevance(corner, rule, expected):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, use_bias=False), layers.Dense(1, use_bias=False)]
    )
    first = np.full((3, 3), 2.0)
    first[0, 0] = corner
    model.set_weights([first, np.full((3, 1), 3.0)])
    x = np.array([[1.0, 2.0, 3.0]])
    found = tfs.attributions(model, x, rule, targets=0, score="logit")["lrp"]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_gamma_of_two_layers():
    """Gamma 1 in the lower layer, .25 in the upper one: (28/3, 104/3, 52)."""
    lower = keras.Sequential([keras.Input((3,)), layers.Dense(3, use_bias=False)])
    first = np.full((3, 3), 2.0)
    first[0, 0] = -2.0
    lower.set_weights([first])
    x = np.array([[1.0, 2.0, 3.0]])
    hidden = lower.predict(x, verbose=0)
    # All weights of the upper layer are positive, so that its gamma changes nothing.
    relevance = hidden * 3.0
    found = np.zeros(3)
    for j in range(3):
        part = tfs.attributions(lower, x, tfs.LRP("gamma", gamma=1.0, epsilon=0), targets=j,
                                score="logit")["lrp"][0]  # fmt: skip
        found += part * relevance[0, j] / hidden[0, j]
    np.testing.assert_allclose(found, (28 / 3, 104 / 3, 52), rtol=1e-6)


_A, _B = {"dense": "epsilon", "convolution": "alpha1_beta0"}, {"convolution": "alpha2_beta1"}
CASES = {
    "LRPZ": tfs.LRP("z"),
    "LRPZIgnoreBias": tfs.LRP("z", bias=False),
    "LRPEpsilon": tfs.LRP(epsilon=1e-7),
    "LRPEpsilonIgnoreBias": tfs.LRP(epsilon=1e-7, bias=False),
    "LRPZPlus": tfs.LRP("z_plus"),
    "LRPZPlusFast": tfs.LRP("z_plus"),
    "LRPAlpha1Beta0": tfs.LRP("alpha1_beta0"),
    "LRPAlpha1Beta0IgnoreBias": tfs.LRP("alpha1_beta0", bias=False),
    "LRPAlpha2Beta1": tfs.LRP("alpha2_beta1"),
    "LRPAlpha2Beta1IgnoreBias": tfs.LRP("alpha2_beta1", bias=False),
    "LRPFlat": tfs.LRP("flat"),
    "LRPWSquare": tfs.LRP("w_square"),
    "DeepTaylor": tfs.LRP("z_plus"),
    "BoundedDeepTaylor": tfs.LRP({"dense": "z_plus", "convolution": "z_plus", "first": "z_box"},
                                 box=(-128, 128)),
    "LRPZ_Flat_input_layer_rule": tfs.LRP({"dense": "z", "convolution": "z", "first": "flat"}),
    "LRPZ_boxed_input_layer_rule": tfs.LRP({"dense": "z", "convolution": "z", "first": "z_box"},
                                           box=(-10, 10)),
    "LRPSequentialPresetA": tfs.LRP(_A, epsilon=0.1),
    "LRPSequentialPresetB": tfs.LRP(_B, epsilon=0.1),
    "LRPSequentialPresetAFlat": tfs.LRP({**_A, "first": "flat"}, epsilon=0.1),
    "LRPSequentialPresetBFlat": tfs.LRP({**_B, "first": "flat"}, epsilon=0.1),
}  # fmt: skip
LAYERS = {
    "Dense": lambda: layers.Dense(5),
    "Dense_relu": lambda: layers.Dense(5, activation="relu"),
    "Conv2D": lambda: layers.Conv2D(5, 3),
    "Conv2D_relu": lambda: layers.Conv2D(5, 3, activation="relu"),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2),
    "MaxPooling2D": lambda: layers.MaxPooling2D(2),
}


# The others are alike, or combine these.
_FAST = ("LRPEpsilon", "LRPZPlus", "LRPAlpha2Beta1", "LRPFlat", "LRPWSquare", "BoundedDeepTaylor")


@pytest.mark.parametrize(
    "case", [c if c in _FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_the_attributions_of_innvestigate(case, data):
    with h5py.File(data / "innvestigate" / f"{case}.hdf5") as file:
        x = file["input"][:]
        for name, layer in LAYERS.items():
            if name == "AveragePooling2D" and "DeepTaylor" in case:
                continue  # it spreads relevance evenly there, where the z rule weighs by values
            own = file[name]
            model = keras.Sequential([keras.Input((10, 10, 3)), layer(), layers.Flatten()])
            model.set_weights([own["weights"][str(i)][:] for i in range(len(own["weights"]))])
            targets = own["output"][:].argmax(axis=1)
            found = tfs.attributions(
                model, x, CASES[case], targets=targets, score="logit", on_problem="ignore"
            )["lrp"]
            slow.near(found, own["attribution"][:], 1e-6)


# A network in float64, propagated by loops: convolution, batch normalization, residual sum, pools.


def residual_network():
    with float64():
        i = keras.Input((6, 5, 2), dtype="float64")
        a = layers.Conv2D(3, 3, padding="same", name="conv1")(i)
        a = layers.Activation("relu")(layers.BatchNormalization(name="bn1")(a))
        b = layers.Conv2D(3, (2, 3), padding="same", name="conv2")(a)
        b = layers.BatchNormalization(name="bn2")(b)
        a = layers.Activation("relu")(layers.Add()([a, b]))
        a = layers.AveragePooling2D(2)(a)
        a = layers.Dense(4, activation="relu", name="dense1")(layers.Flatten()(a))
        model = zoo.random_weights(keras.Model(i, layers.Dense(3, name="dense2")(a)), seed=7)
    for name in ("bn1", "bn2"):
        gamma, beta, mean, variance = model.get_layer(name).get_weights()
        gamma[0] = -abs(gamma[0])  # a negative scale, too
        model.get_layer(name).set_weights([gamma, beta, mean, np.abs(variance) + 0.5])
    return model


def matrix(model, name, size):
    """A convolution of padding "same" as a matrix (pixels * channels, pixels * filters)."""
    layer = model.get_layer(name)
    kernel, bias = layer.get_weights()
    (h, w), c = size, kernel.shape[2]
    inputs = np.eye(h * w * c).reshape(-1, h, w, c)
    return tf.nn.conv2d(inputs, kernel, 1, "SAME").numpy().reshape(h * w * c, -1), bias


def relevance_by_loops(model, image, target, rules):
    """The relevance of one image, layer by layer with matrices; rules by layer."""
    size = image.shape[:2]

    def folded(conv, bn):
        w, b = matrix(model, conv, size)
        gamma, beta, mean, variance = model.get_layer(bn).get_weights()
        scale = gamma / np.sqrt(variance + model.get_layer(bn).epsilon)
        pixels = w.shape[1] // len(scale)
        return w * np.tile(scale, pixels), np.tile((b - mean) * scale + beta, pixels)

    linear = {
        "conv1": folded("conv1", "bn1"),
        "conv2": folded("conv2", "bn2"),
        "dense1": model.get_layer("dense1").get_weights(),
        "dense2": model.get_layer("dense2").get_weights(),
    }
    x = image.ravel()
    a1 = np.maximum(x @ linear["conv1"][0] + linear["conv1"][1], 0)
    b = a1 @ linear["conv2"][0] + linear["conv2"][1]
    total = a1 + b
    a2 = np.maximum(total, 0).reshape(*size, -1)
    h, w = size[0] // 2, size[1] // 2
    pooled = a2[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean(axis=(1, 3))
    d1 = np.maximum(pooled.ravel() @ linear["dense1"][0] + linear["dense1"][1], 0)
    out = d1 @ linear["dense2"][0] + linear["dense2"][1]

    def down(name, inputs, relevance):
        return slow.divided(rules[name], inputs, *linear[name], relevance)

    r = np.zeros(3)
    r[target] = out[target]
    r = down("dense1", pooled.ravel(), down("dense2", d1, r)).reshape(pooled.shape)
    share = np.zeros_like(a2)
    share[: 2 * h, : 2 * w] = np.repeat(
        np.repeat(np.divide(r, pooled, where=pooled != 0, out=np.zeros_like(r)) / 4, 2, 0), 2, 1
    )
    r = (a2 * share).ravel()
    each = np.divide(r, total, where=total != 0, out=np.zeros_like(r))
    r = a1 * each + down("conv2", a1, b * each)
    return down("conv1", x, r).reshape(image.shape)


@pytest.mark.parametrize(
    "rules",
    [
        {"dense": "epsilon", "convolution": "epsilon"},
        {"dense": "epsilon", "convolution": "gamma"},
        {"dense": "gamma", "convolution": "alpha2_beta1"},
        {"dense": "epsilon", "convolution": "z_plus", "first": "w_square"},
        {"dense": "z_plus", "convolution": "z_plus", "first": "flat"},
        {"dense": "epsilon", "convolution": "gamma", "first": "z_box"},
    ],
    ids=lambda rules: "-".join(rules.values()),
)
def test_a_residual_network_equals_loops(rules):
    model = residual_network()
    images = np.random.default_rng(3).normal(0.3, 1, (2, 6, 5, 2))
    lrp = tfs.LRP(rules, box=(-3.0, 4.0))
    found = tfs.attributions(model, images, lrp, targets=[1, 2], on_problem="ignore")["lrp"]
    by_layer = {
        "conv1": rules.get("first", rules["convolution"]),
        "conv2": rules["convolution"],
        "dense1": rules["dense"],
        "dense2": rules["dense"],
    }
    expected = np.stack(
        [relevance_by_loops(model, x, t, by_layer) for x, t in zip(images, (1, 2), strict=True)]
    )
    slow.near(found, expected)


def test_epsilon_of_a_relu_network_is_input_x_gradient():
    """For networks of ReLUs, linear layers and max pools (Ancona et al. 2018)."""
    data = synthetic.make_shapes(2, seed=0)
    for model in (zoo.SPELLINGS["ReLU layer"].build("float64"), residual_network()):
        x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
        names = ["input_x_gradient", tfs.LRP(epsilon=1e-9), "transformer_lrp"]
        found = tfs.attributions(model, x, names, targets=1, on_problem="ignore")
        slow.near(found["lrp"], found["input_x_gradient"])
        slow.near(found["transformer_lrp"], found["input_x_gradient"])
    found = tfs.attributions(
        synthetic.shapes_model(), data.images, ["input_x_gradient", "transformer_lrp"],
        on_problem="ignore",
    )  # fmt: skip
    slow.near(found["transformer_lrp"], found["input_x_gradient"])


@pytest.mark.parametrize("rules", ["epsilon", "z", {"convolution": "gamma", "first": "flat"}])
@pytest.mark.parametrize("network", ["cnn", pytest.param("vit", marks=pytest.mark.slow)])
def test_relevance_and_what_biases_keep_is_the_score(network, rules):
    data = synthetic.make_shapes(3, seed=2)
    maps = tfs.attributions(
        synthetic.shapes_model(network), data.images, tfs.LRP(rules), on_problem="ignore"
    )
    told = maps.details["lrp"]
    np.testing.assert_allclose(told["relevance"], maps["lrp"].sum(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(told["relevance"] + told["kept"], maps.scores, rtol=2e-3)
    assert (told["conservation_error"] < 1e-3).all()
    assert maps.coverage["lrp"].layers


@pytest.mark.filterwarnings("ignore:zero_map")
def test_a_layer_that_loses_relevance_is_named():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 1, name="lost"),
                              layers.Flatten(), layers.Dense(1, use_bias=False)])  # fmt: skip
    model.set_weights([np.full((1, 1, 1, 1), -1.0), np.array([3.0]), np.ones((16, 1))])
    with pytest.warns(tfs.SaliencyWarning, match=r"not_conserved \(lrp, image 0\).*lost"):
        maps = tfs.attributions(model, np.ones((1, 4, 4, 1)), tfs.LRP("z_plus"), targets=0,
                                score="logit")  # fmt: skip
    assert maps.details["lrp"]["conservation_error"][0] == pytest.approx(1.0)
    assert "lost" in maps.details["lrp"]["worst_layer"][0]


@pytest.mark.parametrize("activation", ["gelu", "silu", "hard_silu", "elu", "tanh", "softplus"])
def test_transformer_lrp_passes_f_of_z_over_z(activation):
    with float64():
        i = keras.Input((5,), dtype="float64")
        z = layers.Dense(4, name="z")(i)
        h = layers.Activation(activation, dtype="float64")(z)
        model = zoo.random_weights(keras.Model(i, layers.Dense(2, name="out")(h)), seed=1)
    x = np.random.default_rng(0).normal(size=(3, 5))
    found = tfs.attributions(model, x, "transformer_lrp", targets=1, score="logit")
    z = keras.Model(model.input, model.get_layer("z").output).predict(x, verbose=0)
    slope = model.get_layer("out").get_weights()[0][:, 1] * keras.activations.get(activation)(z) / z
    expected = x * (np.asarray(slope) @ model.get_layer("z").get_weights()[0].T)
    slow.near(found["transformer_lrp"], expected)
    assert (found.details["transformer_lrp"]["conservation_error"] < 1e-5).all()


def test_a_normalization_divides_by_a_constant():
    """The derivative of (x - mean) / s, with s held."""
    with float64():
        i = keras.Input((6,), dtype="float64")
        h = layers.LayerNormalization(name="norm", dtype="float64")(i)
        model = zoo.random_weights(keras.Model(i, layers.Dense(2, name="out")(h)), seed=2)
    x = np.random.default_rng(0).normal(size=(2, 6))
    gamma, beta = model.get_layer("norm").get_weights()
    upper = model.get_layer("out").get_weights()[0][:, 0]
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + model.get_layer("norm").epsilon)
    pulled = gamma * upper / deviation
    expected = x * (pulled - pulled.mean(axis=1, keepdims=True))
    for method in ("transformer_lrp", tfs.LRP("z")):
        found = tfs.attributions(model, x, method, targets=0, score="logit")
        (maps,) = found.values()
        slow.near(maps, expected)
        (told,) = found.details.values()
        kept = (beta * upper).sum() + model.get_layer("out").get_weights()[1][0]
        np.testing.assert_allclose(told["kept"], [kept, kept], rtol=1e-5)


# DeepLIFT


def test_deep_lift_of_a_residual_network_is_complete_and_equals_loops():
    model = residual_network()
    rng = np.random.default_rng(3)
    images, baseline = rng.normal(0.3, 1, (2, 6, 5, 2)), rng.normal(0, 1, (6, 5, 2))
    lift = tfs.DeepLIFT(baseline=baseline)
    found = tfs.attributions(model, images, lift, targets=1)
    outputs = model.predict(np.concatenate([images, baseline[None]]), verbose=0)[:, 1]
    np.testing.assert_allclose(
        found["deep_lift"].sum(axis=(1, 2, 3)), outputs[:2] - outputs[2], rtol=1e-6
    )
    # Rescaled slopes, by the derivative of a network in which each ReLU is a fixed factor.
    names = [each.name for each in model.layers if isinstance(each, layers.Activation)]
    names.append("dense1")
    inner = keras.Model(model.input, [model.get_layer(n).input for n in names[:2]])
    for k, image in enumerate(images):
        pair = np.stack([image, baseline])
        steps = []
        for values in [*inner.predict(pair, verbose=0), _before(model, "dense1", pair)]:
            a, b = values
            steps.append((np.maximum(a, 0) - np.maximum(b, 0)) / (a - b))
        slope = _with_factors(model, names, steps, baseline)
        slow.near(found["deep_lift"][k], (image - baseline) * slope, 1e-6)


def _before(model, name, x):
    """The outputs of a dense layer before its ReLU."""
    values = keras.Model(model.input, model.get_layer(name).input).predict(x, verbose=0)
    kernel, bias = model.get_layer(name).get_weights()
    return values @ kernel + bias


def _with_factors(model, names, factors, at):
    """The derivative of output 1 if the activations multiply by constants."""
    by_name = dict(zip(names, factors, strict=True))

    def call(layer, *args):
        if layer.name not in by_name:
            return layer(*args)
        if layer.name == "dense1":
            return (args[0] @ layer.kernel + layer.bias) * by_name[layer.name]
        return args[0] * by_name[layer.name]

    x = tf.constant(at[None])
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = {model.input.name: x}
        for layer in model.layers[1:]:
            (node,) = layer._inbound_nodes[:1]
            inputs = [values[t.name] for t in node.input_tensors]
            values[layer.output.name] = call(layer, inputs if len(inputs) > 1 else inputs[0])
        output = values[model.output.name][0, 1]
    return tape.gradient(output, x).numpy()[0]


@pytest.mark.parametrize("activation", ["gelu", "silu", "tanh", "relu6", "softplus"])
def test_deep_lift_is_complete_for_any_activation(activation):
    with float64():
        i = keras.Input((6, 6, 2), dtype="float64")
        x = layers.Conv2D(4, 3, activation=activation)(i)
        x = layers.MaxPooling2D(2)(layers.LayerNormalization(dtype="float64")(x))
        gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
        x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(gate)])
        x = layers.GlobalMaxPooling2D()(x)
        model = zoo.random_weights(keras.Model(i, layers.Dense(3)(x)), seed=5)
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
    found = tfs.attributions(model, x, tfs.DeepLIFT(baseline=[0.0, 1.0]), targets=2)
    assert (found.details["deep_lift"]["gap"] < 1e-6).all()
    # The mean over baselines is the mean of differences.
    outputs = model.predict(np.concatenate([x, x[:1] * 0, x[:1] * 0 + 1]), verbose=0)[:, 2]
    np.testing.assert_allclose(
        found["deep_lift"].sum(axis=(1, 2, 3)), outputs[:3] - outputs[3:].mean(), rtol=1e-6
    )


# What is refused


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda h: keras.ops.sin(h), "Sin"),
        (lambda h: h * h, "Mul"),
        (lambda h: h * keras.ops.relu(h), "Mul"),
        (lambda h: keras.ops.softmax(h), "Softmax"),
        (lambda h: keras.ops.cumsum(h, 1), "Cumsum"),
    ],
)
def test_an_operation_without_a_rule_is_refused_by_name(layer, named):
    i = keras.Input((4, 4, 2))
    h = layers.Lambda(layer, name="unknown")(i)
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    for method in ("lrp_epsilon", "lrp_z_plus", "transformer_lrp"):
        with pytest.raises(tfs.UncoveredLayerError, match=f"Received: {named} .*unknown"):
            tfs.saliency_map(model, np.ones((1, 4, 4, 2)), method, targets=0, score="logit")


def test_a_recurrent_network_and_a_probability_are_refused():
    i = keras.Input((6, 3))
    model = keras.Model(i, layers.Dense(2, "softmax")(layers.LSTM(4)(i)))
    with pytest.raises(tfs.UncoveredLayerError, match="Received: TensorListStack"):
        tfs.saliency_map(model, np.ones((1, 6, 3)), "lrp_epsilon")
    with pytest.raises(tfs.OptionError, match="Expected score='logit'"):
        tfs.saliency_map(
            synthetic.shapes_model(), np.ones((1, 64, 64, 3)), "lrp_epsilon", score="probability"
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfs.LRP("epsilo"), "Unknown rule of relevance: 'epsilo'. Did you mean 'epsilon'"),
        (lambda: tfs.LRP({"conv": "flat"}), "Unknown kind of layer: 'conv'"),
        (lambda: tfs.LRP(3), "Expected rule as a name, or a mapping"),
        (lambda: tfs.LRP("z_box"), r"Expected box=\(lowest, highest\)"),
        (lambda: tfs.LRP("z_box", box=(1, 0)), "Expected the highest value of box"),
        (lambda: tfs.DeepLIFT(tolerance=0), "Expected tolerance as a number above 0"),
    ],
)
def test_impossible_options(make, message):
    with pytest.raises(tfs.OptionError, match=message):
        make()
