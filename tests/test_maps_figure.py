"""The figure of SaliencyMaps: what each tile shows, where it is, and when pyplot knows it."""

import subprocess
import sys
from dataclasses import replace

import keras
import matplotlib as mpl
import numpy as np
import pytest
from keras import layers

import tfsaliency as tfs
from tfsaliency.arrays import resolve_indices
from tfsaliency.engine.coverage import Coverages
from tfsaliency.visualization.tiles import RED

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "$quail$")


def _maps(n=3, shape=(6, 8, 3), methods=("gradient", "signed"), **changes):
    """Maps with known numbers; the second method has negative values."""
    images = RNG.integers(0, 256, (n, *shape)).astype("float32")
    positions = shape[:-1] or shape
    arrays = {name: RNG.uniform(0, 1, (n, *positions)) for name in methods}
    if "signed" in arrays:
        arrays["signed"] -= 0.5
    outputs = np.tile([0.2, 0.7, 0.1], (n, 1))
    return tfs.SaliencyMaps(
        **{
            "maps": arrays,
            "images": images,
            "targets": np.array([1, 0, 2][:n] + [1] * max(0, n - 3)),
            "scores": np.zeros(n),
            "score": "logit",
            "outputs": outputs,
            "coverage": Coverages({m: tfs.Coverage(m, 1, 1) for m in methods}),
            "names": tuple(f"folder/photo_{i}.jpg" for i in range(n)),
            "meaning": "classes",
            "class_names": NAMES,
            **changes,
        }
    )


def _titles(figure):
    return [axes.get_title() for axes in figure.axes]


def _shown(axes):
    (drawn,) = axes.images
    array = np.asarray(drawn.get_array())
    return array if array.ndim == 3 else drawn.to_rgba(array)[..., :3]


def test_each_image_is_named_with_the_explained_and_the_top_class():
    assert _titles(_maps().plot())[::3] == [
        "photo_0.jpg\ndog (70%)",
        "photo_1.jpg\nexplained: cat (20%)\ntop: dog (70%)",
        "photo_2.jpg\nexplained: $quail$ (10%)\ntop: dog (70%)",
    ]
    assert _titles(_maps(names=(), class_names=()).plot())[0] == "class 1 (70%)"
    assert _titles(_maps().plot("signed"))[1::2] == ["signed"] * 3


def test_outputs_with_positions_have_no_confidence():
    maps = _maps(1, outputs=np.full((1, 6, 8, 3), 0.25))
    assert _titles(maps.plot())[0] == "photo_0.jpg\ndog"


def test_tiles_have_the_colors_of_the_originals_figure():
    maps = _maps()
    figure = maps.plot(percentile=100)
    for i in range(3):
        image, *tiles = figure.axes[3 * i : 3 * i + 3]
        np.testing.assert_allclose(_shown(image), maps.images[i] / 255)
        values = maps["gradient"][i]
        position = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(_shown(tiles[0]), RED(position)[..., :3], atol=1 / 200)
        low, high = tiles[1].images[0].get_clim()
        assert low == -high == -np.abs(maps["signed"][i]).max()


def test_an_overlay_is_that_of_overlay():
    maps = _maps()
    figure = maps.plot(overlay=True, percentile=90, cmap="viridis")
    for i in range(3):
        for k, name in enumerate(maps, start=1):
            expected = tfs.overlay(maps.images[i], maps[name][i], "viridis", percentile=90)
            np.testing.assert_array_equal(_shown(figure.axes[3 * i + k]), expected)


def _grid(figure):
    """The columns and rows of the tiles, by their positions."""
    boxes = [axes.get_position() for axes in figure.axes]
    lefts, bottoms = (sorted({round(getattr(b, s), 6) for b in boxes}) for s in ("x0", "y0"))
    column = [lefts.index(round(box.x0, 6)) for box in boxes]
    row = [len(bottoms) - 1 - bottoms.index(round(box.y0, 6)) for box in boxes]
    return list(zip(row, column, strict=True))


def test_images_stand_beside_each_other_and_many_methods_wrap():
    assert _grid(_maps(3).plot(columns=7)) == [
        *[(0, c) for c in range(6)], *[(1, c) for c in range(3)]
    ]  # fmt: skip
    many = _maps(2, methods=tuple("abcdefgh"))
    nine = [(0, c) for c in range(5)] + [(1, c) for c in range(4)]
    assert _grid(many.plot()) == nine + [(r + 2, c) for r, c in nine]
    assert {column for _, column in _grid(many.plot(columns=1))} == {0}


def test_labels_do_not_touch_their_neighbors():
    long = tuple(f"{'very_long_' * 9}{i}.jpg" for i in range(3))
    maps = _maps(names=long, class_names=("a cat of a long and winding name", *NAMES[1:]))
    figure = maps.plot()
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    width, height = figure.bbox.width, figure.bbox.height
    assert all(box.x0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_hundreds_of_images_are_a_figure_that_can_be_saved():
    figure = _maps(900, (1, 1, 1), ("gradient",)).plot(columns=1)
    assert len(figure.axes) == 1800
    assert figure.bbox.height < 2**16


def test_sequences_features_volumes_and_attributions():
    sequence = _maps(1, (20, 2), ("gradient",))
    line, colored = sequence.plot().axes
    np.testing.assert_array_equal(line.lines[1].get_ydata(), sequence.images[0, :, 1])
    np.testing.assert_array_equal(colored.images[0].get_array()[0], sequence["gradient"][0])
    features = _maps(1, (5,), ("gradient",))
    np.testing.assert_array_equal(
        features.plot().axes[1].images[0].get_array()[0], features["gradient"][0]
    )
    volume = _maps(1, (4, 6, 8, 1), ("gradient",))
    volume.maps["gradient"][0, 2] += 5
    first, plane = volume.plot().axes
    assert first.get_title().endswith("plane 2 of 4")
    np.testing.assert_array_equal(plane.images[0].get_array(), volume["gradient"][0, 2])
    signed = RNG.normal(size=(1, 6, 8, 3))
    summed = _maps(1, maps={"gradient": signed}).plot()
    np.testing.assert_allclose(summed.axes[1].images[0].get_array(), signed[0].sum(axis=-1))
    assert summed.get_suptitle() == "Maps of the logit; sums over channels"


def test_cells_are_drawn_at_their_place_and_refused_as_overlay():
    cells = _maps(1, maps={"grad_cam": RNG.uniform(size=(1, 3, 4))})
    assert cells.plot().axes[1].images[0].get_extent() == [-0.5, 7.5, 5.5, -0.5]
    with pytest.raises(tfs.ImageError, match="overlay=False"):
        cells.plot(overlay=True)


def test_any_image_is_drawn():
    maps = _maps(1, (6, 8, 12))
    shown = _shown(maps.plot().axes[0])
    np.testing.assert_allclose(shown[..., 0], maps.images[0].mean(axis=-1) / 255, rtol=1e-6)
    shifted = replace(maps, images=maps.images[..., :3] / 127.5 - 1)
    shown = _shown(shifted.plot().axes[0])
    assert shown.min() == 0 and shown.max() == 1


def test_a_constant_image_of_any_value_is_drawn():
    maps = _maps(1)
    for value in (-1.0, 0.0, 300.0, np.nan):
        dark = replace(maps, images=np.full_like(maps.images, value))
        assert np.isfinite(_shown(dark.plot().axes[0])).all()
        assert "<table" in dark._repr_html_()


def test_a_name_that_is_no_text_is_escaped():
    maps = _maps(1, names=("a/\udcff\nb.png",))
    assert _titles(maps.plot())[0].startswith("\\udcff b.png\n")
    maps._repr_html_().encode()


def test_a_figure_that_fails_is_not_left_to_pyplot(monkeypatch):
    import matplotlib.pyplot as plt

    for options in ({"percentile": 0}, {"overlay": True}):
        with pytest.raises(tfs.TfSaliencyError):
            _maps(1, maps={"cells": np.ones((1, 2, 2))}).plot(**options)
    assert plt.get_fignums() == []
    plt.close("all")


def test_unknown_options_are_named():
    with pytest.raises(tfs.OptionError, match="Did you mean 'gradient'"):
        _maps().plot("gradeint")
    wrong = {"overlay": 1, "columns": 0, "percentile": 0, "cmap": "reed", "title": 3}
    for options in ({name: value} for name, value in wrong.items()):
        with pytest.raises(tfs.OptionError, match="Received|Unknown"):
            _maps().plot(**options)
    with pytest.raises(tfs.OptionError, match="at least one"):
        _maps().plot([])


_SCRIPT = """
import sys, numpy as np, keras, tfsaliency as tfs
{first}
settings = None
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
                          keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
maps = tfs.saliency_map(model, np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))
figure = maps.plot()
tfs.tile_input_and_maps(maps.images[0], maps[:1], ["a", "b"])
there = sys.modules.get("matplotlib.pyplot")
print([] if there is None else [there.figure(n) is figure for n in there.get_fignums()])
"""


@pytest.mark.parametrize(
    ("first", "known"),
    [
        ("", "[]"),
        ("import matplotlib.pyplot as plt", "[True]"),
        ("import matplotlib; matplotlib.pyplot", "[True]"),
        ("import matplotlib", "[]"),
    ],
    ids=["not in use", "pyplot", "pyplot in its package", "matplotlib"],
)
def test_plt_show_finds_the_figure_if_pyplot_is_in_use(first, known):
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(first=first)],
        capture_output=True,
        text=True,
        check=True,
        env={"MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""},
    )
    assert run.stdout.strip() == known


def test_settings_of_matplotlib_are_left_alone():
    before = dict(mpl.rcParams)
    _maps().plot()
    assert dict(mpl.rcParams) == before


def _model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def test_class_names_and_settings_are_kept_and_saved(tmp_path):
    maps = tfs.saliency_map(_model(), RNG.uniform(size=(2, 12, 12, 3)), class_names=NAMES)
    assert maps.class_names == NAMES
    assert maps.settings["model"].startswith("sequential")
    assert "TensorFlow" in maps.settings["versions"]
    maps.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert loaded.class_names == NAMES and loaded.settings == maps.settings
    assert loaded.caption(0) == maps.caption(0)


@pytest.mark.parametrize(
    ("chosen", "places"),
    [
        (lambda m: m[:2], [0, 1]),
        (lambda m: m[::-2], [3, 1]),
        (lambda m: m.select([3, 0, 3]), [3, 0, 3]),
        (lambda m: m.select(-1), [3]),
        (lambda m: m.select(np.array([2, 1], np.uint8)), [2, 1]),
        (lambda m: m.select(m.targets == 1), [0, 2]),
        (lambda m: m.images_of("dog"), [0, 2]),
        (lambda m: m.images_of(0), [1]),
    ],
)
def test_images_are_selected_with_all_that_belongs_to_them(chosen, places):
    images = RNG.uniform(size=(4, 12, 12, 3))
    images[2] = 0.3  # a constant image: its map is constant in the middle only
    methods = ["gradient", tfs.IntegratedGradients(steps=2, max_steps=2, tolerance=1e-9)]
    maps = tfs.saliency_map(
        _model(), images, methods, targets=[1, 0, 1, 2], class_names=NAMES, on_problem="ignore"
    )
    maps = replace(maps, names=tuple("abcd"))
    few = chosen(maps)
    for name in maps:
        np.testing.assert_array_equal(few[name], maps[name][places])
    for name in ("images", "targets", "scores", "outputs"):
        np.testing.assert_array_equal(getattr(few, name), getattr(maps, name)[places])
    assert few.names == tuple("abcd"[i] for i in places)
    for key, values in maps.details["integrated_gradients"].items():
        np.testing.assert_array_equal(few.details["integrated_gradients"][key], values[places])
    assert len(maps.problems) >= 1
    for problem in maps.problems:
        expected = tuple(k for k, i in enumerate(places) if i in problem.images)
        same = problem.cause, problem.methods
        found = [p.images for p in few.problems if (p.cause, p.methods) == same]
        assert found == ([expected] if expected else [])


def test_indices_of_a_small_dtype_reach_many_images():
    assert resolve_indices(np.array([1, 255], np.uint8), 300).tolist() == [1, 255]
    assert resolve_indices(np.array([-1], np.int8), 300).tolist() == [299]


def test_what_cannot_be_selected_is_named():
    maps = _maps()
    for wrong in ([], [3], [-4], [0.5], "a", [True, False], [[0]], None):
        with pytest.raises(tfs.OptionError, match="Expected indices of 3 images"):
            maps.select(wrong)
    with pytest.raises(tfs.OptionError, match="Expected a slice of 3 images, at least one"):
        maps[3:]
    with pytest.raises(KeyError, match=r"use select\(1\)"):
        maps[1]
    with pytest.raises(tfs.OptionError, match="dgo"):
        maps.images_of("dgo")
    with pytest.raises(tfs.OptionError, match="Expected an explained class: cat"):
        maps[1:2].images_of("dog")
