"""data_randomization_check, and the networks that it trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfsaliency as tfs
from tfsaliency import synthetic


@pytest.fixture(scope="module")
def images():
    return synthetic.make_shapes(8, seed=9).images


@pytest.fixture(scope="module")
def twins():
    return synthetic.permuted_label_models()


@pytest.fixture(scope="module")
def result(images, twins):
    return tfs.data_randomization_check(
        synthetic.shapes_model(), images, zoo.RULES, permuted=twins, verbose=0
    )


def test_verdicts_are_those_of_maps_made_by_hand(images, twins, result):
    model = synthetic.shapes_model()
    trained = tfs.attributions(model, images, zoo.RULES)
    others = [tfs.attributions(twin, images, zoo.RULES, targets=trained.targets) for twin in twins]
    for method in zoo.RULES:
        expected = tfs.judge(trained[method], np.stack([maps[method] for maps in others]))
        (verdict,) = result.verdicts[method]
        assert verdict.invariance == pytest.approx(expected.invariance, abs=1e-4)
        assert verdict.low == pytest.approx(expected.low, abs=1e-4)
        assert verdict.verdict == expected.verdict.replace("the parameters", "the labels")
    spearman = tfs.SIMILARITIES["spearman"]
    own = spearman(trained["gradient"], others[2]["gradient"])
    found = result.select(method="gradient", similarity="spearman", seed=2)[0]
    assert found == pytest.approx(own, abs=1e-4)


def test_what_a_result_says(result):
    assert result.seeds == (0, 1, 2, 3) and result.headline == 0
    assert result.steps == (tfs.StepRecord("permuted labels", (), 0, ()),)
    assert "data randomization" in result.settings["check"]
    assert "With permuted labels:" in str(result)


def _build(units=64):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


@pytest.fixture(scope="module")
def data():
    """Images with one of three stripes bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    images = rng.normal(size=(60, 8, 8, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 1.5
    return images, labels


def test_networks_learn_their_labels(data):
    keras.utils.set_random_seed(0)
    images, labels = data
    found = tfs.train_permuted_label_models(_build, images, labels, seeds=[3, 4], verbose=0)
    said = [m.predict(images, verbose=0).argmax(axis=-1) for m in (found.model, *found.permuted)]
    permuted = [np.random.default_rng(seed).permutation(labels) for seed in (3, 4)]
    accuracies = [np.mean(s == y) for s, y in zip(said, [labels, *permuted], strict=True)]
    assert found.accuracies == pytest.approx(accuracies)
    assert min(accuracies) >= 0.95
    assert np.mean(said[1] == labels) < 0.7  # a third by chance, 60 images


@pytest.mark.slow
def test_a_function_and_data_are_trained_first(data, capsys):
    keras.utils.set_random_seed(0)
    result = tfs.data_randomization_check(
        lambda: _build(), data[0][:12], data=data, similarities="spearman"
    )
    printed = capsys.readouterr().out
    assert "training on labels" in printed and "training on permuted labels, seed 3" in printed
    reached = [float(part.rstrip("%")) for part in result.settings["training accuracy"].split(", ")]
    assert len(reached) == 5 and min(reached) >= 95
    assert result.seeds == (0, 1, 2, 3)
    assert result.verdicts["gradient"][0].verdict == "depends on the labels"


def test_a_network_that_has_not_learned_is_refused(data):
    keras.utils.set_random_seed(0)
    with pytest.raises(
        tfs.ModelError,
        match=r"on permuted labels, seed 0 reached a training accuracy of \d.*at least 95%",
    ):
        tfs.train_permuted_label_models(_build, *data, epochs=1, verbose=0)
    images, labels = data
    few = [np.repeat(images[:1], 60, axis=0), labels]  # indistinguishable
    with pytest.raises(tfs.ModelError, match="did not learn"):
        tfs.train_permuted_label_models(_build, *few, epochs=2, verbose=0)


def test_the_callers_labels_stay(data):
    before = data[1].copy()
    keras.utils.set_random_seed(0)
    tfs.train_permuted_label_models(_build, *data, seeds=1, verbose=0)
    assert np.array_equal(data[1], before)


def _uncompiled():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


def _without_metric():
    model = _uncompiled()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (_uncompiled, "compiled keras.Model"),
        (_build(), "build as a function"),
        (lambda: None, "build as a function"),
        ("build", "build as a function"),
        (lambda units: _build(units), "build as a function without arguments"),
        (_without_metric, r"compile with metrics=\['accuracy'\]"),
    ],
)
def test_what_builds_no_network_is_refused(build, match, data):
    with pytest.raises(tfs.ModelError, match=match):
        tfs.train_permuted_label_models(build, *data, verbose=0)


def test_a_network_that_is_given_again_is_refused(data):
    """The same network would forget its labels, and be compared with itself."""
    keras.utils.set_random_seed(0)
    model = _build()
    with pytest.raises(tfs.ModelError, match="a new network each time"):
        tfs.train_permuted_label_models(lambda: model, *data, seeds=1, verbose=0)


@pytest.mark.parametrize("labels", [np.zeros(60, int), np.full((60, 3), [0, 1, 0])])
def test_labels_that_a_permutation_leaves_are_refused(labels, data):
    with pytest.raises(tfs.OptionError, match="labels that a permutation changes.*60 labels"):
        tfs.train_permuted_label_models(_build, data[0], labels, verbose=0)


def test_exactly_the_least_accuracy_is_enough():
    """19 of 20 is .95, which float32 rounds down."""
    images = np.eye(20, 64, dtype=np.float32).reshape(20, 8, 8, 1)
    labels = np.arange(20) % 3

    def build():
        kernel = np.zeros((64, 3))
        kernel[np.arange(20), labels] = 1.0
        kernel[0] = kernel[0, ::-1]  # misclassified
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)]
        )
        model.set_weights([kernel])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
        return model

    assert float(np.float32(19 / 20)) < 0.95
    with pytest.raises(tfs.ModelError, match="on permuted labels, seed 0"):  # errors of labels pass
        tfs.train_permuted_label_models(build, images, labels, seeds=1, epochs=1, verbose=0)


def test_bad_data_is_refused(data):
    images, labels = data
    ragged = [images[0], images[1, :4]]
    with pytest.raises(tfs.OptionError, match="images as an array of numbers.*list"):
        tfs.train_permuted_label_models(_build, ragged, labels[:2], verbose=0)
    with pytest.raises(tfs.OptionError, match="images as an array of numbers.*Dataset"):
        tfs.train_permuted_label_models(
            _build, tf.data.Dataset.from_tensor_slices(images), labels, verbose=0
        )
    with pytest.raises(tfs.OptionError, match="labels as an array of numbers"):
        tfs.train_permuted_label_models(_build, images, ["cat"] * 60, verbose=0)
    with pytest.raises(tfs.OptionError, match="batch_size as an int of at least 1. Received: 0"):
        tfs.train_permuted_label_models(_build, images, labels, batch_size=0, verbose=0)
    with pytest.raises(tfs.OptionError, match="one label for each image"):
        tfs.train_permuted_label_models(_build, images, labels[:-1], verbose=0)
    with pytest.raises(tfs.OptionError, match="epochs as an int of at least 1. Received: 0"):
        tfs.train_permuted_label_models(_build, images, labels, epochs=0, verbose=0)
    with pytest.raises(tfs.OptionError, match="seeds"):
        tfs.train_permuted_label_models(_build, images, labels, seeds=0, verbose=0)
    with pytest.raises(tfs.OptionError, match=r"data as \(images, labels\)"):
        tfs.data_randomization_check(_build, images, data=images, verbose=0)


def test_networks_that_cannot_be_compared_are_refused(images, twins):
    model = synthetic.shapes_model()

    def check(permuted, **options):
        return tfs.data_randomization_check(model, images, permuted=permuted, verbose=0, **options)

    with pytest.raises(tfs.OptionError, match="either permuted.*Received: none"):
        check(None)
    with pytest.raises(tfs.OptionError, match="either permuted.*Received: both"):
        check(twins, data=(images, np.zeros(8)))
    with pytest.raises(tfs.OptionError, match=r"permuted\[1\] \('other'\) has other weights"):
        check([twins[0], keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten(),
                                           keras.layers.Dense(8)], name="other")])  # fmt: skip
    with pytest.raises(tfs.OptionError, match="networks that differ"):
        check([twins[0], twins[0]])
    with pytest.raises(tfs.OptionError, match="networks that differ"):
        check([twins[0], model])
    with pytest.raises(tfs.OptionError, match="as keras.Models.*Received: .'str'."):
        check(["twin"])
    with pytest.raises(tfs.OptionError, match="as keras.Models"):
        check([])
    with pytest.raises(tfs.OptionError, match="permuted as a keras.Model, a list.*function"):
        check(_build)
    with pytest.raises(tfs.ModelError, match="a trained keras.Model, or with data"):
        tfs.data_randomization_check(_build, images, permuted=twins, verbose=0)


def test_a_typing_error_is_told_before_anything_is_trained(data):
    def build():
        raise AssertionError("was called")

    for wrong in ({"methods": "gradeint"}, {"similarities": "spaerman"}):
        with pytest.raises(tfs.OptionError, match="Did you mean"):
            tfs.data_randomization_check(build, data[0][:8], data=data, verbose=0, **wrong)


def test_what_train_twins_returns_is_taken(images, twins, result):
    trained = tfs.PermutedLabelModels(synthetic.shapes_model(), tuple(twins), (1.0,) * 5)
    found = tfs.data_randomization_check(
        synthetic.shapes_model(), images, zoo.RULES, permuted=trained, verbose=0
    )
    assert np.array_equal(found.values, result.values)


def test_the_same_weights_in_another_network_are_noticed(images, twins):
    other = keras.models.clone_model(
        twins[0],
        clone_function=lambda layer: layer.__class__.from_config(
            {**layer.get_config(), "activation": "tanh"}
            if layer.name.endswith("squeeze1x1")
            else layer.get_config()
        ),
    )
    other.set_weights(twins[0].get_weights())
    with pytest.raises(tfs.OptionError, match="computes something else"):
        tfs.data_randomization_check(
            synthetic.shapes_model(), images, permuted=[other, twins[1]], verbose=0
        )


def test_one_network_gives_no_verdict(images, twins):
    result = tfs.data_randomization_check(
        synthetic.shapes_model(), images, permuted=twins[0], verbose=0
    )
    assert result.verdicts["gradient"][0].verdict == "inconclusive"
    assert "1 seed" in result.verdicts["gradient"][0].reason
