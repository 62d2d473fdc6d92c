"""Similarities against scipy, scikit-image and TensorFlow, and on maps of known similarity."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats
from skimage.feature import hog
from skimage.metrics import structural_similarity

import tfsaliency as tfs
from tfsaliency.arrays import rescale
from tfsaliency.evaluation.controls import edge_map
from tfsaliency.similarity import resolve_similarities
from tfsaliency.similarity.entropy import emprt
from tfsaliency.similarity.protocol import absolute, diverging
from tfsaliency.similarity.rank import average_ranks
from tfsaliency.statistics import upper_percentile

RNG = np.random.default_rng


def _maps(seed=0, n=4, size=64, dtype="float64"):
    rng = RNG(seed)
    a = rng.standard_t(3, (n, size, size, 3))
    b = 0.6 * a + rng.standard_t(3, a.shape)
    a[0, :20] = 0.0  # ties
    b[0, :25] = 0.0
    return a.astype(dtype), b.astype(dtype)


def _plain_absolute(m):
    m = np.abs(m).sum(-1)
    m = np.minimum(m, np.percentile(m, 99))
    return (m - m.min()) / (m.max() - m.min())


def _plain_diverging(m):
    m = m.sum(-1)
    return np.clip(m / abs(np.percentile(m, 99)), -1, 1)


def _top(a, b, fraction=0.1):
    """The expected overlap if ties at the end of the top are drawn by lot."""
    rng, k = RNG(0), round(fraction * a.size)
    overlaps = []
    for _ in range(400):
        tops = [
            set(np.lexsort((rng.uniform(size=m.size), m.ravel()))[-k:].tolist()) for m in (a, b)
        ]
        overlaps.append(len(tops[0] & tops[1]) / k)
    return np.mean(overlaps)


def _hog(m):
    return hog(m, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(3, 3))


def _correlation(correlate, prepare):
    return lambda a, b: correlate(prepare(a).ravel(), prepare(b).ravel())[0]


def _entropy(m):
    counts, _ = np.histogram(np.abs(m).sum(-1), bins=100)
    return stats.entropy(counts)


INDEPENDENT = {
    "spearman": _correlation(stats.spearmanr, _plain_absolute),
    "spearman_signed": _correlation(stats.spearmanr, _plain_diverging),
    "pearson": _correlation(stats.pearsonr, _plain_diverging),
    "ssim": lambda a, b: float(
        tf.image.ssim(_plain_absolute(a)[..., None], _plain_absolute(b)[..., None], 1.0)
    ),
    "ssim_adebayo": lambda a, b: structural_similarity(
        _plain_diverging(a), _plain_diverging(b), win_size=5, data_range=2.0
    ),
    "hog": lambda a, b: np.corrcoef(_hog(_plain_absolute(a)), _hog(_plain_absolute(b)))[0, 1],
    "top_k_overlap": lambda a, b: _top(_plain_absolute(a), _plain_absolute(b)),
    "emprt": lambda a, b: _entropy(b) / _entropy(a) - 1,
}
TOLERANCES = {"ssim": 1e-5, "top_k_overlap": 0.02}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", tfs.SIMILARITIES)
def test_a_similarity_equals_that_of_another_library(name, dtype):
    a, b = _maps(dtype=dtype)
    found = tfs.SIMILARITIES[name](a, b)
    expected = [INDEPENDENT[name](x, y) for x, y in zip(a, b, strict=True)]
    tolerance = max(TOLERANCES.get(name, 1e-9), 1e-5 if dtype == "float32" else 0)
    np.testing.assert_allclose(found, expected, rtol=tolerance)


@pytest.mark.parametrize("name", ["spearman", "spearman_signed", "pearson", "ssim", "ssim_adebayo"])
def test_a_mask_leaves_the_other_pixels_out(name):
    a, b = _maps()
    mask = RNG(5).uniform(size=a.shape[:3]) > 0.7
    prepare = _plain_absolute if name in ("spearman", "ssim") else _plain_diverging
    plain = {
        "spearman": lambda x, y, m: stats.spearmanr(x[m], y[m])[0],
        "spearman_signed": lambda x, y, m: stats.spearmanr(x[m], y[m])[0],
        "pearson": lambda x, y, m: stats.pearsonr(x[m], y[m])[0],
        "ssim": lambda x, y, m: structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )[1][5:-5, 5:-5][m[5:-5, 5:-5]].mean(),
        "ssim_adebayo": lambda x, y, m: structural_similarity(
            x, y, win_size=5, data_range=2.0, full=True
        )[1][2:-2, 2:-2][m[2:-2, 2:-2]].mean(),
    }[name]
    expected = [plain(prepare(x), prepare(y), m) for x, y, m in zip(a, b, mask, strict=True)]
    np.testing.assert_allclose(tfs.SIMILARITIES[name](a, b, mask), expected, rtol=1e-9)


def test_hog_has_no_meaning_over_some_of_the_pixels():
    a, b = _maps()
    assert np.isnan(tfs.SIMILARITIES["hog"](a, b, np.ones(a.shape[:3], bool))).all()


def test_average_ranks_are_scipys():
    values = RNG(0).integers(0, 40, 500).astype(float)
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values) - 1)


@pytest.mark.parametrize("name", tfs.SIMILARITIES)
def test_a_map_is_like_itself_and_an_undefined_one_like_nothing(name):
    a, _ = _maps(3, n=5)
    a[1], a[2], a[3, 4, 4, 0], a[4, 0, 0, 1] = 0.0, 1.5, np.nan, np.inf
    found = tfs.SIMILARITIES[name](a, a)
    assert found[0] == pytest.approx(0.0 if name == "emprt" else 1.0, abs=1e-6)
    assert np.isnan(found[1:]).all()
    mask = np.zeros(a.shape[:3], bool)
    assert np.isnan(tfs.SIMILARITIES[name](a, a, mask)).all()  # no pixel to look at


def _pair(kind, rng, size=299):
    draw = {
        "uniform": lambda: rng.uniform(-1, 1, (size, size)),
        "Gaussian": lambda: rng.normal(size=(size, size)),
        "Laplace": lambda: rng.laplace(size=(size, size)),
    }[kind]
    return [draw()[None] for _ in range(2)]


# Independent pairs, the mean of 20 (published.md, section 3): signed and abs Spearman, HOG,
# ssim_adebayo, ssim.
CALIBRATION = {
    "uniform": (0.001, 0.000, 0.071, 0.0003, 0.007),
    "Gaussian": (0.000, 0.000, 0.002, 0.005, 0.035),
    "Laplace": (-0.001, 0.002, 0.335, 0.024, 0.108),
}
# Signed maps, of which nothing was clipped.
CALIBRATED_ON = {
    "hog": lambda m: m[..., 0],
    "ssim": lambda m: rescale(m[..., 0]),
}
COLUMNS = ("spearman_signed", "spearman", "hog", "ssim_adebayo", "ssim")


@pytest.mark.parametrize("kind", CALIBRATION)
def test_independent_maps_score_what_was_published(kind):
    rng = RNG(0)
    pairs = [_pair(kind, rng) for _ in range(8)]
    for name, expected in zip(COLUMNS, CALIBRATION[kind], strict=True):
        similarity = tfs.SIMILARITIES[name]
        if name in CALIBRATED_ON:
            similarity = replace(similarity, preparation=CALIBRATED_ON[name])
        found = np.mean([similarity(a, b)[0] for a, b in pairs])
        print(f"{kind} {name}: {found:.4f} ({expected})")
        tolerance = {"hog": 0.05, "ssim_adebayo": 0.025}.get(name, 0.015)
        assert found == pytest.approx(expected, abs=tolerance), name


def test_photos_times_noise_are_alike_by_their_zeros():
    rng = RNG(0)
    photo = np.where(
        rng.uniform(size=(10, 28, 28, 1)) < 0.19, 1 - 0.1 * rng.uniform(size=(10, 28, 28, 1)), 0
    )
    first, second = (photo * rng.normal(size=photo.shape) for _ in range(2))
    spearman = tfs.SIMILARITIES["spearman"]
    assert spearman(first, second).mean() > 0.97
    assert spearman(first, second, photo[..., 0] != 0).mean() < 0.3


def test_emprt_is_the_rise_of_the_entropy():
    a, b = _maps()
    expected = [(_entropy(y) - _entropy(x)) / _entropy(x) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(emprt(a, b), expected, rtol=1e-12)
    assert np.isnan(emprt(np.zeros((1, 8, 8)), b[:1, :8, :8, 0]))


def test_the_edge_map_is_the_sobel_gradient():
    images = RNG(0).uniform(size=(2, 16, 16, 3))
    inner = slice(1, -1)
    expected = [
        sum(
            np.hypot(ndimage.sobel(image[..., c], 0), ndimage.sobel(image[..., c], 1))
            for c in range(3)
        )[inner, inner]
        for image in images
    ]
    np.testing.assert_allclose(edge_map(images)[:, inner, inner], expected)


def test_preparations_are_those_of_the_definition():
    a, _ = _maps()
    np.testing.assert_allclose(absolute(a), [_plain_absolute(m) for m in a], rtol=1e-12)
    np.testing.assert_allclose(diverging(a), [_plain_diverging(m) for m in a], rtol=1e-9)
    sparse = np.zeros((1, 40, 40, 1))
    sparse[0, 3, 3], sparse[0, 3, 4] = 4.0, 2.0
    assert absolute(sparse)[0, 3, 3:5].tolist() == [1.0, 0.5]  # nothing to clip
    assert np.isnan(diverging(sparse)).all()  # its 99th percentile is zero


def test_errors_say_what_was_expected(monkeypatch):
    a, b = _maps()
    with pytest.raises(tfs.OptionError, match="Unknown similarity: 'spearmen'. Did you mean"):
        resolve_similarities("spearmen")
    with pytest.raises(tfs.OptionError, match="different names"):
        resolve_similarities(["ssim", "ssim"])
    with pytest.raises(tfs.OptionError, match=r"windows of 11 x 11.*Received: 8 x 8"):
        tfs.SIMILARITIES["ssim"](a[:, :8, :8], b[:, :8, :8])
    with pytest.raises(tfs.OptionError, match=r"at least 48 pixels a side. Received: 32 x 32"):
        tfs.SIMILARITIES["hog"](a[:, :32, :32], b[:, :32, :32])
    with pytest.raises(tfs.OptionError, match="of the same shape"):
        tfs.SIMILARITIES["ssim"](a, b[:2])
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ImportError, match=r"pip install scikit-image"):
        tfs.SIMILARITIES["hog"](a, b)


@pytest.mark.parametrize("percentile", [99.0, 98.0, 90.0, 50.0])
@pytest.mark.parametrize("size", [1, 2, 50, 1601, 40_000])
def test_an_upper_percentile_is_that_of_numpy(size, percentile):
    rng = np.random.default_rng(size)
    normal = rng.normal(size=size).astype(np.float32)
    misled = np.where(np.arange(size) % 16 == 0, 5.0, normal)  # as a sample by strides would be
    for values in (normal, np.sort(normal), -np.sort(normal), np.round(normal), misled, -misled):
        expected = np.percentile(values.astype(np.float64), percentile)
        assert upper_percentile(values, percentile) == pytest.approx(expected, rel=1e-6)
