"""evaluate: methods and controls against known masks."""

import csv
from dataclasses import replace

import keras
import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.tables import DEFAULT_METHODS


@pytest.fixture(scope="module")
def world():
    return synthetic.make_shapes(60, seed=8)


@pytest.fixture(scope="module")
def result(world):
    return tfs.evaluate(synthetic.shapes_model(), world)


def test_values_are_those_of_the_maps_of_the_labels(world, result):
    maps = tfs.saliency_map(
        synthetic.shapes_model(), world.images, list(DEFAULT_METHODS), targets=world.labels
    )
    assert result.methods == DEFAULT_METHODS
    for method in DEFAULT_METHODS:
        for name in result.metrics:
            score = tfs.METRICS[name]
            expected = score(maps[method], world.masks)
            assert result.of(method, name) == pytest.approx(expected, rel=1e-6)
            assert result.mean(method, name) == pytest.approx(np.mean(expected), rel=1e-6)


def test_the_label_is_explained_and_not_the_top_class(world):
    wrong = replace(world, labels=(world.labels + 1) % 8)
    found = tfs.evaluate(synthetic.shapes_model(), wrong, "gradient")
    assert not found.correct.any()
    maps = tfs.saliency_map(synthetic.shapes_model(), world.images, targets=wrong.labels)
    expected = tfs.METRICS["relevance_mass"](maps["gradient"], world.masks)
    assert found.of("gradient", "relevance_mass") == pytest.approx(expected, rel=1e-6)


def test_controls_are_what_their_names_say(world, result):
    images, masks = world.images.astype(float), world.masks
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    controls = {
        "random_map": rng.uniform(size=masks.shape),
        "x_times_noise": np.abs(images * rng.normal(size=images.shape)).sum(axis=-1),
        "center_blob": np.broadcast_to(-(y**2) - x**2, masks.shape),
    }
    for name, control in controls.items():
        for score in (
            "pointing_game",
            "relevance_rank",
            "localization_auc",
        ):  # from the order alone
            expected = tfs.METRICS[score](control, masks)
            assert result.of(name, score) == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    assert result.controls == ("random_map", "edge_map", "x_times_noise", "center_blob")
    chance = masks.mean(axis=(1, 2))
    assert result.of("chance", "relevance_mass") == pytest.approx(chance)
    assert result.mean("chance", "localization_auc") == 0.5


def test_a_method_beats_chance_and_edges_do_not(result):
    """In these pictures, the edges of the distractors are stronger than the object's."""
    for score in result.metrics:
        assert result.difference("guided_backprop", "chance", score).sign == 1
        assert result.difference("guided_backprop", "edge_map", score).sign == 1
        assert result.difference("edge_map", "chance", score).sign <= 0


def test_intervals_are_those_of_resampled_pictures(result):
    """Intervals agree with those of the normal distribution."""
    for name, score in (("gradient", "relevance_mass"), ("guided_backprop", "relevance_rank")):
        values = result.of(name, score)
        reach = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        low, high = result.interval(name, score)
        assert high - low == pytest.approx(2 * reach, rel=0.1)
        assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * reach)
    gaps = result.of("guided_backprop", "relevance_mass") - result.of("gradient", "relevance_mass")
    difference = result.difference("guided_backprop", "gradient", "relevance_mass")
    assert difference.mean == pytest.approx(gaps.mean())
    reach = 1.96 * gaps.std(ddof=1) / np.sqrt(len(gaps))
    assert difference.high - difference.low == pytest.approx(2 * reach, rel=0.1)
    none = result.difference("gradient", "gradient", "relevance_mass")
    assert none == tfs.Difference(0.0, 0.0, 0.0)


def _evaluation(values):
    """An Evaluation of given relevance masses, by name."""
    array = np.array(list(values.values()))[:, np.newaxis]
    chance = np.full((1, array.shape[-1]), 0.1)
    return tfs.Evaluation(array, chance, tuple(values), (), ("relevance_mass",), None, {}, {})


def test_a_ranking_parts_what_differs():
    noise = np.random.default_rng(0).normal(size=(3, 100))
    found = _evaluation(
        {
            "high": 0.8 + 0.1 * noise[0],
            "also_high": 0.8 + 0.1 * noise[1],
            "low": 0.5 + 0.1 * noise[2],
            "equal_to_chance": 0.1 + 0.01 * (-1) ** np.arange(100),
        }
    )
    ranking = found.ranking("relevance_mass")
    assert [set(group) for group in ranking] == [
        {"high", "also_high"},
        {"low"},
        {"equal_to_chance", "chance"},
    ]


def test_what_is_undefined_has_no_rank():
    """A NaN among sorted means would leave the rest in any order."""
    rng = np.random.default_rng(0)
    found = _evaluation(
        {
            "low": rng.uniform(0.2, 0.3, 40),
            "constant": np.full(40, np.nan),
            "high": rng.uniform(0.8, 0.9, 40),
            "seldom": np.where(np.arange(40) < 7, 1.0, np.nan),
        }
    )
    assert found.ranking("relevance_mass") == [("high",), ("low",), ("chance",)]
    lines = str(found).splitlines()
    assert "constant  undefined" in lines
    assert "relevance_mass  high > low > chance" in lines
    assert found.difference("high", "constant", "relevance_mass").sign == 0


def test_few_pictures_have_no_intervals():
    """With 2 images, an interval from resampling contains the true mean far too rarely."""
    values = {"high": np.linspace(0.8, 0.9, 7), "low": np.linspace(0.1, 0.3, 7)}
    found = _evaluation(values)
    assert np.isnan(found.interval("high", "relevance_mass")).all()
    difference = found.difference("high", "low", "relevance_mass")
    assert (
        difference.mean == pytest.approx(0.65) and np.isnan((difference.low, difference.high)).all()
    )
    assert difference.sign == 0 and found.ranking("relevance_mass") == []
    assert "high    .85" in str(found).splitlines()
    assert "need at least 8 images" in str(found) and "highest" not in str(found)
    more = _evaluation({name: np.append(array, array.mean()) for name, array in values.items()})
    assert more.difference("high", "low", "relevance_mass").sign == 1


def test_undefined_scores_are_left_out_and_counted(world):
    empty = replace(world, masks=world.masks.copy())
    empty.masks[:10] = False
    found = tfs.evaluate(synthetic.shapes_model(), empty, "gradient")
    assert np.isnan(found.of("gradient", "relevance_rank")[:10]).all()
    rest = found.of("gradient", "relevance_rank")[10:]
    assert found.mean("gradient", "relevance_rank") == pytest.approx(rest.mean())
    assert "a mask is empty, or a metric divides by zero: 200 of 1200." in str(found)


def test_what_is_printed(result):
    text = str(result)
    correct = np.mean(result.correct)
    assert f"classified correctly: {correct:.1%}" in text
    row, judged = (line for line in text.splitlines() if line.startswith("guided_backprop  "))
    assert judged.split()[-1] in ("yes", "no", "tell")
    low, high = result.interval("guided_backprop", "pointing_game")
    mean = result.mean("guided_backprop", "pointing_game")
    assert row.split()[1:5] == [_short(mean), _short(low), "to", _short(high)]
    (row,) = (line for line in text.splitlines() if line.startswith("relevance_mass "))
    assert row.split()[1] == "guided_backprop" and row.split()[2] in (">", "=")
    assert repr(result).startswith("Evaluation(['gradient', 'guided_backprop', 'zeiler_fergus']")


def _short(value):
    return f"{value:.2f}".lstrip("0")


def test_a_csv_has_a_row_for_each_number(result, tmp_path):
    result.to_csv(tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result.values.size
    row = rows[-1]
    assert row["method"] == "center_blob" and row["metric"] == "localization_auc"
    assert float(row["value"]) == result.values[-1, -1, -1] and float(row["chance"]) == 0.5


def test_a_method_of_ones_own_and_a_model_of_one_output():
    known = synthetic.closed_form_model("xor")
    scaled = tfs.Method("scaled", lambda upstream, site: 2 * site.backward(upstream))
    found = tfs.evaluate(known.model, known.ground_truth(3, seed=0), ["gradient", scaled])
    assert found.correct is None and "classified" not in str(found)
    assert found.mean("scaled", "relevance_mass") == pytest.approx(1.0)


def test_what_cannot_be_evaluated_is_refused(world, result):
    model = synthetic.shapes_model()
    with pytest.raises(tfs.ImageError, match="masks' shape"):
        tfs.evaluate(model, replace(world, masks=world.masks[:, :32]), "gradient")
    with pytest.raises(tfs.OptionError, match="Unknown method: 'gradeint'"):
        tfs.evaluate(model, world, "gradeint")
    clash = tfs.Method("edge_map")
    with pytest.raises(tfs.OptionError, match=r"those of controls. Received: \['edge_map'\]"):
        tfs.evaluate(model, world, clash)
    with pytest.raises(tfs.OptionError, match="Unknown metric: 'auc'"):
        result.mean("gradient", "auc")
    with pytest.raises(tfs.OptionError, match="Unknown method: 'edges'. Did you mean"):
        result.mean("edges", "pointing_game")
    with pytest.raises(
        tfs.OptionError, match="Expected a GroundTruth with masks for pointing_game"
    ):
        tfs.evaluate(model, world.images, metrics="pointing_game")
    with pytest.raises(tfs.ImageError, match=r"\(n, h, w, c\).*Received: \(60, 64, 64\)"):
        tfs.evaluate(model, replace(world, images=world.images[..., 0]))
    with pytest.raises(tfs.OptionError, match="seed as an int of at least 0. Received: -1"):
        tfs.evaluate(model, world, seed=-1)


@pytest.mark.parametrize(
    "labels",
    [
        lambda labels: labels[:, np.newaxis],  # compared with (n,), they would give (n, n)
        lambda labels: np.eye(8)[labels],
        lambda labels: labels.astype(float),
        lambda labels: [synthetic.CLASSES[label] for label in labels],
        lambda labels: labels[:-1],
        lambda labels: None,
    ],
)
def test_labels_that_are_no_class_indices_are_refused(labels, world):
    with pytest.raises(tfs.OptionError, match="labels as 60 class indices, one for each image"):
        tfs.evaluate(synthetic.shapes_model(), replace(world, labels=labels(world.labels)))


def test_maps_that_mean_nothing_are_told(world):
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(8)]
    )
    with pytest.warns(tfs.SaliencyWarning, match="constant_map"):
        found = tfs.evaluate(model, world, "gradient")
    assert np.isnan(found.of("gradient", "pointing_game")).all()
    with pytest.raises(tfs.MeaninglessMapError):
        tfs.evaluate(model, world, "gradient", on_problem="raise")
