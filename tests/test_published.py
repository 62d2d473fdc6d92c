"""The three maps against the figure that the MATLAB original publishes."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

import tfsaliency as tfs

# Where figure_1.png draws its 72 x 72 maps.
ROWS = slice(111, 183)
FIRST_COLUMN = {"gradient": 128, "guided_backprop": 233, "zeiler_fergus": 338}
SIDE, SIGMA, BORDER = 72, 1.5, 4


@pytest.fixture(scope="module")
def ours(squeezenet, data):
    x = tfs.load_images(data / "seed" / "anansi.jpg", squeezenet, fit="squash")
    return tfs.saliency_map(
        squeezenet,
        x,
        list(FIRST_COLUMN),
        score="probability",
        preprocess=tfs.models.squeezenet.preprocess_input,
    )


def _panel(data, name, shift):
    with Image.open(data / "seed" / "figure_1.png") as figure:
        redness = 255.0 - np.asarray(figure.convert("RGB"), dtype=float)[..., 1]
    redness = np.pad(redness, ((0, 0), (0, 2)))  # the last panel ends at the figure's edge
    column = FIRST_COLUMN[name] + shift
    return _prepared(redness[ROWS, column : column + SIDE])


def _prepared(panel):
    smooth = gaussian_filter(panel, SIGMA)
    return smooth[BORDER:-BORDER, BORDER:-BORDER].ravel()


def _reduced(values):
    """Box averages: each of 72 x 72 cells is the mean of its part of 227 x 227 pixels."""
    n = len(values)
    edges = np.linspace(0, n, SIDE + 1)
    integral = np.zeros((n + 1, n))
    integral[1:] = np.cumsum(values, axis=0)

    def average(table):
        low = np.floor(edges).astype(int)
        part = (edges - low)[:, None]
        at = table[low] * (1 - part) + table[np.minimum(low + 1, n)] * part
        return np.diff(at, axis=0) / np.diff(edges)[:, None]

    rows = average(integral)
    integral = np.zeros((n + 1, SIDE))
    integral[1:] = np.cumsum(rows.T, axis=0)
    return average(integral).T


def test_box_averages():
    values = np.random.default_rng(0).normal(size=(144, 144))
    np.testing.assert_allclose(_reduced(values), values.reshape(72, 2, 72, 2).mean(axis=(1, 3)))
    assert np.isclose(
        _reduced(np.random.default_rng(0).normal(2, 1, (227, 227))).mean(), 2, atol=0.02
    )


def test_maps_equal_those_of_matlab(ours, data):
    table = {
        (panel, name): max(
            np.corrcoef(_panel(data, panel, shift), _prepared(_reduced(ours[name][0])))[0, 1]
            for shift in range(-2, 3)
        )
        for panel in FIRST_COLUMN
        for name in FIRST_COLUMN
    }
    print({key: round(value, 3) for key, value in table.items()})
    for (panel, name), correlation in table.items():
        if panel == name:
            assert correlation >= 0.94, (panel, name)
        else:
            assert correlation <= 0.80, (panel, name)
