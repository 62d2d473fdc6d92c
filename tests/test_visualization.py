"""Figures: contents, positions and scales; pyplot does not register them."""

import io
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import zoo
from matplotlib.colors import to_rgb
from PIL import Image

import tfsaliency as tfs
from tfsaliency.visualization.tiles import color_map

PHOTO = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype="uint8")
MAP = np.linspace(0.5, 2.0, 96).reshape(8, 12)


def _colors(figure, k):
    """The RGB that tile k of a row shows, (h, w, 3) of 0..1."""
    (drawn,) = figure.axes[k].images
    return drawn.to_rgba(drawn.get_array())[..., :3]


def test_the_row_of_the_original():
    labels = ["English setter (64%)", "gradient", "signed"]
    figure = tfs.tile_input_and_maps(
        PHOTO, [MAP, MAP - 1], labels, title="Gradient Attribution Techniques", percentile=100
    )
    assert [axes.get_title() for axes in figure.axes] == labels
    assert figure.get_suptitle() == "Gradient Attribution Techniques"
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), PHOTO / 255)
    # White to red: green and blue fall linearly from the map's minimum to its maximum.
    falling = 1 - (MAP - MAP.min()) / (MAP.max() - MAP.min())
    colors = _colors(figure, 1)
    np.testing.assert_allclose(colors[..., 0], 1.0)
    np.testing.assert_allclose(colors[..., 1], falling, atol=1 / 200)
    np.testing.assert_allclose(colors[..., 2], falling, atol=1 / 200)
    low, high = figure.axes[2].images[0].get_clim()
    assert low == -high == -1.0


def test_a_mapping_of_maps_and_long_titles():
    title = "Gradient attribution maps of the margin (before the final softmax)"
    label = "a class of a very long and winding name (33%)"
    figure = tfs.tile_input_and_maps(
        PHOTO, {"gradient": MAP[np.newaxis]}, [label, "b"], title=title
    )
    assert figure.get_suptitle().replace("\n", " ") == title
    assert figure.axes[0].get_title().replace("\n", " ") == label
    figure.draw_without_rendering()
    width = figure.bbox.width
    for text in (figure._suptitle, figure.axes[0].title):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
    assert figure.axes[0].title.get_window_extent().x1 < figure.axes[1].title.get_window_extent().x0


def test_a_signed_map_is_white_at_zero_blue_below_and_red_above():
    signed = np.array([[-2.0, 0.0, 2.0]])
    figure = tfs.tile_input_and_maps(np.zeros((1, 3, 3)), [signed], ["a", "b"])
    (negative, zero, positive) = _colors(figure, 1)[0]
    assert np.all(zero > 0.95)
    assert negative[2] > negative[0] and positive[0] > positive[2]


def test_one_large_value_does_not_hide_the_rest():
    spike = MAP.copy()
    spike[0, 0] = 1e6
    plain = _colors(tfs.tile_input_and_maps(PHOTO, [MAP], ["a", "b"]), 1)
    spiked = _colors(tfs.tile_input_and_maps(PHOTO, [spike], ["a", "b"], percentile=90), 1)
    np.testing.assert_allclose(spiked[4], plain[4], atol=0.15)


def test_constant_and_undefined_maps_are_gray():
    holes = MAP.copy()
    holes[2, 3] = np.nan
    figure = tfs.tile_input_and_maps(
        PHOTO, [np.zeros((8, 12)), np.full((8, 12), np.nan), holes], list("abcd")
    )
    gray = np.full((8, 12, 3), 211 / 255)
    np.testing.assert_allclose(_colors(figure, 1), gray, atol=0.01)
    file = io.BytesIO()
    figure.savefig(file)  # with NaN in it
    assert np.ma.getmaskarray(figure.axes[3].images[0].get_array())[2, 3]


def test_pyplot_and_its_settings_are_left_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    tfs.tile_input_and_maps(PHOTO, [MAP], ["a", "b"], title="t").savefig(io.BytesIO())
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_notebooks_show_the_figure_as_a_png():
    figure = tfs.tile_input_and_maps(PHOTO, [MAP], ["a", "b"])
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.format == "PNG" and image.width > image.height > 100


def test_overlay_by_hand():
    image = np.full((1, 3, 3), 51, "uint8")
    gray = 51
    ours = tfs.overlay(image, np.array([[0.0, 1.0, 2.0]]), percentile=100, strength=0.5)
    # Shares 0, .25 and .5 of white-to-red at 0, .5 and 1.
    half_red = np.array([255, 127.5, 127.5])
    expected = [[gray] * 3, 0.75 * gray + 0.25 * half_red, 0.5 * gray + 0.5 * np.array([255, 0, 0])]
    np.testing.assert_allclose(ours[0], expected, atol=1)
    signed = tfs.overlay(image, np.array([[-1.0, 0.0, 1.0]]), strength=1.0)
    assert signed[0, 1].tolist() == [gray] * 3
    assert signed[0, 0, 2] > signed[0, 0, 0] and signed[0, 2, 0] > signed[0, 2, 2]
    undefined = tfs.overlay(image, np.array([[np.nan, 1.0, 2.0]]))
    assert undefined[0, 0].tolist() == [gray] * 3
    for constant in (0.0, 1.0, -1.0, np.nan):
        assert np.array_equal(tfs.overlay(image, np.full((1, 3), constant)), image)


def test_forms_of_an_image():
    unit = PHOTO / 255.0
    for form in (PHOTO, PHOTO[np.newaxis], PHOTO.astype("float32"), unit, Image.fromarray(PHOTO)):
        figure = tfs.tile_input_and_maps(form, [MAP[np.newaxis]], ["a", "b"])
        np.testing.assert_allclose(figure.axes[0].images[0].get_array(), unit, atol=1e-6)
    gray = tfs.tile_input_and_maps(PHOTO[..., :1], [MAP], ["a", "b"])
    assert np.array_equal(np.ptp(gray.axes[0].images[0].get_array(), axis=-1), np.zeros((8, 12)))


@pytest.mark.parametrize(
    ("image", "maps", "labels", "error", "message"),
    [
        (PHOTO, [MAP], ["a"], tfs.OptionError, "Expected 2 labels"),
        (PHOTO, [MAP.T], ["a", "b"], tfs.ImageError, r"size \(8, 12\).*\(12, 8\)"),
        (PHOTO - 128.0, [MAP], ["a", "b"], tfs.ImageError, "photo before preprocessing"),
        (PHOTO * 2.0, [MAP], ["a", "b"], tfs.ImageError, "0..255 or 0..1"),
        (np.stack([PHOTO] * 2), [MAP], ["a", "b"], tfs.ImageError, "batch of 2"),
    ],
)
def test_what_cannot_be_drawn(image, maps, labels, error, message):
    with pytest.raises(error, match=message):
        tfs.tile_input_and_maps(image, maps, labels)


def test_bad_drawing_options():
    for options in ({"cmap": "no_such"}, {"percentile": 0}, {"percentile": 101}):
        with pytest.raises(tfs.OptionError, match="colormap|percentile"):
            tfs.tile_input_and_maps(PHOTO, [MAP], ["a", "b"], **options)
    with pytest.raises(tfs.OptionError, match="strength"):
        tfs.overlay(PHOTO, MAP, strength=2)


@pytest.fixture(scope="module")
def checked():
    model = zoo.random_weights(
        keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax", name="top"),
            ]
        )
    )
    photos = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    dead = tfs.Randomizer(
        "dead", lambda unit, rng: [rng.uniform(-1, 0, w.shape) for w in unit.weights]
    )
    options = {"verbose": 0, "on_problem": "ignore"}
    methods = ["gradient", "guided_backprop"]
    return {
        "cascade": tfs.sanity_check(model, photos, methods, randomizer="matched", **options),
        "one step": tfs.sanity_check(model, photos, methods, plan="all", **options),
        "independent": tfs.sanity_check(model, photos, methods, plan="independent", **options),
        "preprocessed": tfs.sanity_check(
            model, photos - 99, methods, randomizer="matched", **options
        ),
        "dead": tfs.sanity_check(model, photos, methods, randomizer=dead, plan=["conv"], **options),
        "one photo": tfs.sanity_check(model, photos[:1], methods, randomizer="matched", **options),
        "class": tfs.random_logit_check(model, photos, methods, **options),
        "eMPRT": tfs.sanity_check(
            model,
            photos,
            methods,
            plan="all",
            similarities="emprt",
            randomizer="matched",
            **options,
        ),
    }


def _named(figure, label):
    return next(axis for axis in figure.axes if axis.get_ylabel() == label)


def test_curves_are_the_numbers_of_the_result(checked):
    result = checked["cascade"]
    figure = tfs.plot_similarities(result)
    lines = {line.get_label(): line for line in _named(figure, "invariance").lines}
    drawn = [line.get_ydata() for line in lines.values() if len(line.get_xdata()) == 2]
    indices = [[v.invariance for v in result.verdicts[m]] for m in result.methods]
    assert all(any(np.array_equal(np.asarray(d, float), i) for d in drawn) for i in indices)
    panel = [np.asarray(line.get_ydata(), float) for line in _named(figure, "spearman").lines]
    for m in result.methods:
        for chance in (False, True):
            table = result.select(method=m, similarity="spearman", chance=chance)
            means = table.mean(axis=(1, 2))
            assert any(len(p) == 2 and np.allclose(p, means) for p in panel), (m, chance)
    steps = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert steps == [step.name for step in result.steps]


def test_no_line_joins_steps_that_are_no_cascade(checked):
    for name in ("independent", "one step"):
        axis = _named(tfs.plot_similarities(checked[name]), "invariance")
        assert not any(
            line.get_linestyle() == "-" and len(line.get_xdata()) > 2 for line in axis.lines
        )
        assert len(axis.containers) == 2  # points with error bars


@pytest.mark.parametrize(
    "name", ["one step", "independent", "preprocessed", "dead", "one photo", "class", "eMPRT"]
)
def test_every_result_can_be_drawn(name, checked, tmp_path):
    result = checked[name]
    for draw in (tfs.plot_similarities, tfs.tile_cascade):
        figure = draw(result)
        figure.savefig(tmp_path / "figure.png")
        titles = [axis.get_title() for axis in figure.axes]
        assert ("photo" in titles) == (draw is tfs.tile_cascade and name != "preprocessed")


def test_the_grid_holds_the_maps_of_the_result(checked):
    result = checked["cascade"]
    figure = tfs.tile_cascade(result)
    drawn = [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]
    maps = result.shown.maps.astype(float).reshape(-1, 16, 16)
    assert len(drawn) == 1 + len(maps)
    assert all(any(np.array_equal(d, m) for d in drawn if d.ndim == 2) for m in maps)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["photo", "trained", "+ top", "+ conv"]
    with pytest.raises(tfs.OptionError, match="Expected a SanityResult. Received: int"):
        tfs.plot_similarities(3)


def _outline(axes):
    """The extent of the contour that a tile shows: least and largest column and row."""
    (contour,) = axes.collections
    corners = np.concatenate([path.vertices for path in contour.get_paths()])
    return [*corners.min(axis=0), *corners.max(axis=0)]


def test_pictures_with_a_known_answer():
    masks = np.zeros((2, 8, 12), bool)
    masks[0, 2:5, 3:9] = True  # the second has none
    world = tfs.synthetic.GroundTruth(np.stack([PHOTO, PHOTO]), np.zeros(2, int), masks)
    maps = {"gradient": np.stack([MAP, MAP - 1]), "flat": np.zeros((2, 8, 12))}
    figure = tfs.tile_ground_truth(world, maps, ["disk", "ring"], title="Two pictures")
    assert figure.get_suptitle() == "Two pictures"
    assert [axes.get_title() for axes in figure.axes[:3]] == ["picture", "gradient", "flat"]
    assert [figure.axes[k].get_ylabel() for k in (0, 3)] == ["disk", "ring"]
    for axes in figure.axes[:3]:
        # Half way between the pixels inside and those outside.
        assert _outline(axes) == pytest.approx([2.5, 1.5, 8.5, 4.5])
    assert not any(axes.collections for axes in figure.axes[3:])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), PHOTO / 255)
    assert figure.axes[4].images[0].get_clim()[0] < 0 < figure.axes[1].images[0].get_clim()[0]
    with pytest.raises(tfs.ImageError, match="maps of the masks' shape"):
        tfs.tile_ground_truth(world, {"gradient": MAP})
    with pytest.raises(tfs.OptionError, match="Expected 2 labels"):
        tfs.tile_ground_truth(world, maps, ["disk"])
    with pytest.raises(tfs.ImageError, match=r"images and maps.*images \(2, 4, 12\)"):
        tfs.tile_ground_truth(replace(world, images=world.images[:, :4]), maps)
    with pytest.raises(tfs.OptionError, match="maps by name.*Received: ndarray"):
        tfs.tile_ground_truth(world, maps["gradient"])
    with pytest.raises(tfs.ImageError, match="masks .n, h, w. of bool"):
        tfs.tile_ground_truth(replace(world, masks=masks[0]), maps)
    figure = tfs.tile_ground_truth(world, maps, np.array(["disk", "ring"]))
    assert figure.axes[3].get_ylabel() == "ring"


def test_equal_scores_are_drawn_without_an_interval():
    """An interval of equal values may miss their mean by a rounding error on either side."""
    values = np.full((1, 1, 10), 0.1)
    result = tfs.Evaluation(values, values[0], ("gradient",), (), ("relevance_mass",), None, {}, {})
    assert any(end != 0.1 for end in (result.mean("gradient", "relevance_mass"),
                                      *result.interval("gradient", "relevance_mass")))  # fmt: skip
    _, caps, _ = tfs.plot_evaluation(result).axes[0].containers[0]
    assert [cap.get_xdata()[0] for cap in caps] == pytest.approx([0.1, 0.1])


def test_scores_are_drawn_at_their_means_with_intervals():
    known = tfs.synthetic.closed_form_model("null_patch")
    result = tfs.evaluate(known.model, known.ground_truth(20, seed=0), on_problem="ignore")
    figure = tfs.plot_evaluation(result)
    panel = figure.axes[1]
    assert panel.get_title() == "relevance_mass ↑"
    chance, *points = panel.lines[0], *panel.containers
    assert chance.get_xdata()[0] == result.mean("chance", "relevance_mass")
    for row, (name, point) in enumerate(zip(result.names, points, strict=False)):
        marker, caps, _ = point
        assert marker.get_xdata()[0] == result.mean(name, "relevance_mass")
        assert marker.get_ydata()[0] == row
        low, high = result.interval(name, "relevance_mass")
        assert [cap.get_xdata()[0] for cap in caps] == pytest.approx([low, high])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(
        result.names[:-1]
    )
    with pytest.raises(tfs.OptionError, match="an Evaluation. Received: dict"):
        tfs.plot_evaluation({})


@pytest.mark.parametrize(
    "values", [MAP, MAP - 1, np.zeros((8, 12)), np.where(MAP > 1, np.nan, MAP)]
)
def test_colors_of_a_map_are_those_of_its_tile(values):
    figure = tfs.tile_input_and_maps(PHOTO, [values], ["a", "b"])
    expected = np.where(
        np.isfinite(values)[..., np.newaxis], _colors(figure, 1), to_rgb("lightgray")
    )
    np.testing.assert_allclose(color_map(values) / 255, expected, atol=0.51 / 255)
