"""The generated pictures: their contents, and the absence of other clues."""

import hashlib

import keras
import numpy as np
import pytest
from scipy import ndimage

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.synthetic import shapes as pictures
from tfsaliency.synthetic.networks import build_shapes_model
from tfsaliency.synthetic.outlines import OUTLINES, REACH, cover

# sha256 of images, labels and masks of shapes(20, seed=0, variant): the same under every NumPy.
DIGESTS = {
    "plain": "83bdf41666748b175c7e5a2f3cd924658940199c7a4030258e637dfa65bc2953",
    "colored_distractor": "3a3ac7db4ecdec4991038cd994eea9458f61b21687b44f7b833da24d5d98d5a0",
    "two_objects": "a6a164b81d6c2f1a32835487d80e6b2d2ec84187e225ee7d0c4461faf52f3f5e",
    "null_patch": "bb4794b3f6de257731efb3f7448b2216a481a3820d323611b575ee3fe8d6a6b6",
}


def _digest(world):
    arrays = (world.images.astype(np.uint8), world.labels.astype(np.uint8), world.masks)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("variant", synthetic.VARIANTS)
def test_a_seed_gives_the_same_pictures_everywhere(variant):
    world = synthetic.make_shapes(20, seed=0, variant=variant)
    assert _digest(world) == DIGESTS[variant]
    assert np.array_equal(world.images, np.round(world.images))
    assert world.images.dtype == np.float32 and world.images.min() >= 0
    assert world.images.max() <= 255 and world.masks.dtype == bool
    assert _digest(synthetic.make_shapes(20, seed=1, variant=variant)) != DIGESTS[variant]


def test_fewer_pictures_are_the_first_ones_of_more():
    few, many = (
        synthetic.make_shapes(3, seed=5, size=32),
        synthetic.make_shapes(130, seed=5, size=32),
    )
    for name in ("images", "labels", "masks"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:3])
    assert not np.array_equal(many.images[:64], many.images[64:128])  # chunks of their own


def test_no_random_state_is_touched():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    synthetic.make_shapes(2, seed=0, size=32)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(("name", "outline"), OUTLINES.items())
def test_areas_of_outlines_are_those_of_counting(name, outline):
    u, v = np.random.default_rng(0).uniform(-3, 3, (2, 2_000_000))
    inside = outline.inside(u, v)
    assert 36 * inside.mean() == pytest.approx(outline.area, rel=0.01)
    assert np.hypot(u, v)[inside].max() < REACH * np.sqrt(outline.area)


def test_an_object_covers_the_pixels_that_it_was_told_to():
    """Against a slow rendering of one square, pixel by pixel."""
    center, area, angle, size = np.array([20.0, 14.5]), 200.0, 0.5, 40
    alpha = cover(np.array([2]), center[None], np.array([area]), np.array([angle]), size)[0]
    half = np.sqrt(area) / 2
    slow = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            for i in range(3):
                for j in range(3):
                    y, x = row + (i + 0.5) / 3 - center[0], column + (j + 0.5) / 3 - center[1]
                    a = np.cos(angle) * x + np.sin(angle) * y
                    b = -np.sin(angle) * x + np.cos(angle) * y
                    slow[row, column] += max(abs(a), abs(b)) < half
    assert np.allclose(alpha, slow / 9, atol=1e-12)
    assert alpha.sum() == pytest.approx(area, rel=0.01)


@pytest.fixture(scope="module")
def world():
    return synthetic.make_shapes(1000, seed=4)


def test_objects_are_of_every_class_and_anywhere(world):
    counts = np.bincount(world.labels, minlength=len(synthetic.CLASSES))
    assert len(counts) == 8
    assert np.abs(counts - 125).max() < 4 * np.sqrt(1000 / 8 * 7 / 8)
    covered = world.masks.mean(axis=(1, 2))
    assert covered.min() >= 0.04 and covered.max() <= 0.15
    where = world.masks.mean(axis=0)
    assert (where[8:-8, 8:-8] > 0).all()
    assert all((where.max(axis=axis)[2:-2] > 0).all() for axis in (0, 1))  # up to the border
    assert where.max() < 4 * world.masks.mean()
    # Area, position and color of the objects are the same for every class.
    for values in (covered, *_centers(world.masks).T, *_colors(world).T):
        means = [values[world.labels == k].mean() for k in range(8)]
        assert np.ptp(means) < 6 * values.std() / np.sqrt(125)


def _centers(masks):
    return np.array([ndimage.center_of_mass(mask) for mask in masks])


def _colors(world):
    return np.array([i[m].mean(axis=0) for i, m in zip(world.images, world.masks, strict=True)])


def test_distractors_have_stronger_edges_than_objects(world):
    inside, outside = [], []
    for image, mask in zip(world.images, world.masks, strict=True):
        edges = sum(np.hypot(*(ndimage.sobel(image[..., c], a) for a in (0, 1))) for c in range(3))
        near = ndimage.binary_dilation(mask, iterations=2)
        inside.append(np.sort(edges[near])[-50:].mean())
        outside.append(np.sort(edges[~near])[-50:].mean())
    assert np.mean(outside) > 1.2 * np.mean(inside)
    assert np.mean(np.array(outside) > inside) > 0.9


def test_the_mask_is_where_the_object_changed_the_picture():
    rng = np.random.default_rng(0)
    drawn = pictures.scene(rng, 64, (0.045, 0.09))
    images, masks = pictures.finished(rng, drawn)
    difference = np.abs(images - drawn.images).max(axis=-1)
    loud = difference > 40  # far above the grain
    # Where the object has the color of its background, it changes nothing.
    assert (loud & ~ndimage.binary_dilation(masks[:, 0], np.ones((1, 3, 3)))).sum() == 0
    assert loud[ndimage.binary_erosion(masks[:, 0], np.ones((1, 3, 3)))].mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("cnn", 0.99), ("vit", 0.97)])
def test_networks_in_the_wheel_classify_unseen_pictures(name, least):
    world = synthetic.make_shapes(1000, seed=8)
    outputs = synthetic.shapes_model(name).predict(world.images, verbose=0)
    assert np.mean(outputs.argmax(axis=-1) == world.labels) > least
    with pytest.raises(tfs.OptionError, match="Unknown network: 'resnet'.*Known: cnn, vit"):
        synthetic.shapes_model("resnet")


def test_without_the_object_nothing_says_the_class():
    """A network that learns the classes in a few epochs learns nothing without the objects."""
    scenes, finals, labels = [], [], []
    for chunk in range(50):
        rng = np.random.default_rng([99, chunk])
        drawn = pictures.scene(rng, 64, (0.045, 0.09))
        finals.append(pictures.finished(rng, drawn)[0])
        scenes.append(pictures.pixels(rng, drawn.images))
        labels.append(drawn.labels[:, 0])
    labels = np.concatenate(labels)
    with_object = _accuracy_after_training(np.concatenate(finals), labels)
    without = _accuracy_after_training(np.concatenate(scenes), labels)
    assert with_object > 0.9
    # 1200 unseen pictures: four standard deviations around 1 of 8
    assert abs(without - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / 1200)


def _accuracy_after_training(images, labels):
    keras.utils.set_random_seed(0)
    trained, model = synthetic.shapes_model(), build_shapes_model()
    for layer in model.layers[:-8]:  # knows shapes, and has to learn the rest
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(images[:2000], labels[:2000], batch_size=50, epochs=4, verbose=0)
    outputs = model.predict(images[2000:], verbose=0)
    return np.mean(outputs.argmax(axis=-1) == labels[2000:])


def test_a_distractor_has_the_color_of_another_class():
    world = synthetic.make_shapes(64, seed=6, variant="colored_distractor")
    for image, label, mask in zip(world.images, world.labels, world.masks, strict=True):
        inner = ndimage.binary_erosion(mask)
        assert np.abs(image[inner].mean(axis=0) - pictures._COLORS[label]).max() < 5
        outside = image[~mask]
        near = [(np.abs(outside - other).max(axis=-1) < 12).sum() for other in pictures._COLORS]
        assert max(count for k, count in enumerate(near) if k != label) > 60


def test_a_mark_says_which_of_two_objects_counts():
    world = synthetic.make_shapes(200, seed=6, variant="two_objects")
    magenta = (world.images == (255, 0, 255)).all(axis=-1)
    left, right = (magenta[:, :7, part].all(axis=(1, 2)) for part in (slice(0, 7), slice(-7, None)))
    assert (left ^ right).all() and 70 < left.sum() < 130
    corners = np.zeros_like(world.masks)
    corners[left, :7, :7] = corners[right, :7, -7:] = True
    assert world.masks[corners].all()
    objects = world.masks & ~corners
    assert (objects.mean(axis=(1, 2)) > 0.03).all()
    columns = np.array([ndimage.center_of_mass(mask)[1] for mask in objects])
    assert (columns[left] < 32).all() and (columns[right] > 32).all()


def test_the_null_patch_is_the_same_in_every_picture_and_beside_the_object():
    world = synthetic.make_shapes(64, seed=6, variant="null_patch")
    patch = pictures._rings(16)
    places = []
    for image, mask in zip(world.images, world.masks, strict=True):
        distance = np.array(
            [
                [np.abs(image[r : r + 16, c : c + 16] - patch).mean() for c in range(49)]
                for r in range(49)
            ]
        )
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        assert distance.min() < 4  # the grain
        assert not mask[row : row + 16, column : column + 16].any()
        places.append((row, column))
    assert np.ptp(places, axis=0).min() > 30


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"variant": "plane"}, "Unknown variant: 'plane'. Did you mean 'plain'"),
        ({"variant": ["plain"]}, r"Unknown variant: \['plain'\]"),
        ({"n": 0}, "n as an int from 1 to 10000000. Received: 0"),
        ({"n": 2.5}, "n as an int"),
        ({"seed": -1}, "seed as an int of at least 0. Received: -1"),
        ({"size": 16}, "size as an int from 32 to 1024. Received: 16"),
    ],
)
def test_bad_options_are_refused(arguments, match):
    with pytest.raises(tfs.OptionError, match=match):
        synthetic.make_shapes(**{"n": 1, "seed": 0, **arguments})
