"""Metrics of maps against slow versions of their definitions."""

import numpy as np
import pytest

import tfsaliency as tfs

SCORES = {name: metric for name, metric in tfs.METRICS.items() if metric.needs_masks}


def _pointing_game(values, mask):
    largest = values == values.max()
    return mask[largest].mean()


def _relevance_mass(values, mask):
    inside = sum(max(v, 0.0) for v, m in zip(values.flat, mask.flat, strict=True) if m)
    return inside / sum(max(v, 0.0) for v in values.flat)


def _relevance_rank(values, mask):
    """The mean over many random orders of equal values."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((rng.uniform(size=values.size), -values.ravel()))
        found.append(mask.ravel()[order[: mask.sum()]].mean())
    return np.mean(found)


def _localization_auc(values, mask):
    pairs = [(a > b) + 0.5 * (a == b) for a in values[mask] for b in values[~mask]]
    return np.mean(pairs)


SLOW = {
    "pointing_game": _pointing_game,
    "relevance_mass": _relevance_mass,
    "relevance_rank": _relevance_rank,
    "localization_auc": _localization_auc,
}


@pytest.fixture(scope="module")
def pairs():
    """Maps that agree partly with their masks, with floats and with few distinct values."""
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(12, 8, 9)) < rng.uniform(0.1, 0.7, (12, 1, 1))
    maps = rng.normal(size=masks.shape) + masks
    maps[6:] = np.round(maps[6:])
    return maps.astype(np.float32), masks


@pytest.mark.parametrize("name", SCORES)
def test_a_score_equals_its_definition(name, pairs):
    maps, masks = pairs
    expected = [SLOW[name](m, mask) for m, mask in zip(maps, masks, strict=True)]
    tolerance = {"rel": 0.03} if name == "relevance_rank" else {"rel": 1e-6}
    assert SCORES[name](maps, masks) == pytest.approx(expected, **tolerance)
    if name == "relevance_rank":  # without equal values there is one order
        assert SCORES[name](maps[:6], masks[:6]) == pytest.approx(expected[:6], rel=1e-9)


def test_scores_by_hand():
    maps = np.array([[[4.0, 3.0], [-2.0, 1.0]]])
    masks = np.array([[[True, False], [True, False]]])
    found = {name: float(score(maps, masks)[0]) for name, score in SCORES.items()}
    assert found == {
        "pointing_game": 1.0,
        "relevance_mass": 0.5,  # 4 of 4 + 3 + 1
        "relevance_rank": 0.5,  # of the two largest, 4 and 3, one
        "localization_auc": 0.5,  # 4 beats both, -2 none
    }


@pytest.mark.parametrize("name", SCORES)
def test_chance_is_the_mean_of_shuffled_maps(name, pairs):
    maps, masks = pairs
    rng = np.random.default_rng(1)
    flat = maps.reshape(len(maps), -1)
    shuffled = [
        SCORES[name](rng.permuted(flat, axis=1).reshape(maps.shape), masks) for _ in range(3000)
    ]
    chance = SCORES[name].chance_of(masks)
    error = np.std(shuffled, axis=0) / np.sqrt(3000)
    assert (np.abs(np.mean(shuffled, axis=0) - chance) < 4 * error).all()


@pytest.mark.parametrize("name", SCORES)
def test_what_is_undefined_is_nan(name):
    maps = np.random.default_rng(0).normal(size=(6, 4, 4))
    masks = np.zeros((6, 4, 4), bool)
    masks[1:, :2] = True
    maps[2], maps[3, 0, 0], maps[4, 3, 3] = 7.0, np.nan, np.inf
    found = np.isnan(SCORES[name](maps, masks))
    assert found.tolist() == [True, False, True, True, True, False]
    assert np.isnan(SCORES[name].chance_of(masks)).tolist() == [True] + [False] * 5


def test_a_full_mask_and_a_negative_map():
    maps, full = np.arange(4.0).reshape(1, 2, 2), np.ones((1, 2, 2), bool)
    found = {name: score(maps, full)[0] for name, score in SCORES.items()}
    assert np.isnan(found.pop("localization_auc"))
    assert np.isnan(SCORES["localization_auc"].chance_of(full)[0])
    assert set(found.values()) == {1.0}
    assert np.isnan(SCORES["relevance_mass"](-1 - maps, full)[0])


def test_a_map_of_true_and_false_is_one_of_1_and_0():
    masks = np.array([[[True, True, False, False]]])
    maps = np.array([[[True, False, False, True]]])
    for score in SCORES.values():
        assert score(maps, masks) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("maps", "masks", "match"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), "masks .n, h, w. of bool. Received: float64"),
        (np.zeros((1, 2, 2)), np.zeros((2, 2), bool), "Received: bool of shape .2, 2."),
        (np.full((1, 2, 2), "a"), np.zeros((1, 2, 2), bool), "maps .n, h, w. of numbers. Rec.*U1"),
        (np.zeros((1, 3, 2)), np.zeros((1, 2, 2), bool), "masks' shape .1, 2, 2.. Received: .1, 3"),
    ],
)
def test_other_arrays_are_refused(maps, masks, match):
    with pytest.raises(tfs.ImageError, match=match):
        SCORES["pointing_game"](maps, masks)
