"""load_images: sizes, orientation, modes, and files that are not photos."""

import keras
import numpy as np
import pytest
from PIL import Image

import tfsaliency as tfs


@pytest.fixture
def stripes(tmp_path):
    """A photo 20 x 40 (h, w): left half red, right half blue."""
    pixels = np.zeros((20, 40, 3), "uint8")
    pixels[:, :20, 0] = 255
    pixels[:, 20:, 2] = 255
    path = tmp_path / "stripes.png"
    Image.fromarray(pixels).save(path)
    return path


def test_crop_keeps_proportions_and_squash_does_not(stripes):
    cropped = tfs.load_images(stripes, size=(20, 20))[0]
    assert np.array_equal(cropped[:, :, 0], 255 * (np.arange(20) < 10) * np.ones((20, 1)))
    squashed = tfs.load_images(stripes, size=(20, 10), fit="squash")[0]
    assert squashed[10, 0].tolist() == [255, 0, 0] and squashed[10, -1].tolist() == [0, 0, 255]
    tall = tfs.load_images(stripes, size=(20, 10), fit="crop")[0]  # the center, 10 of 40 wide
    assert np.array_equal(tall[:, :, 0], 255 * (np.arange(10) < 5) * np.ones((20, 1)))


def test_size_and_channels_come_from_the_model(stripes):
    gray = keras.Sequential([keras.Input((8, 12, 1)), keras.layers.Flatten()])
    images = tfs.load_images([stripes, stripes], gray)
    assert images.shape == (2, 8, 12, 1) and images.dtype == np.float32
    luma = {round(v) for v in np.unique(images[0, :, [0, -1]])}
    assert luma == {76, 29}  # ITU-R 601: .299 and .114 of 255
    prepared = tfs.prepare(keras.Sequential([keras.Input((8, 12, 3)), keras.layers.Flatten()]))
    assert tfs.load_images(stripes, prepared).shape == (1, 8, 12, 3)


def test_a_phones_photo_is_turned_upright(tmp_path, stripes):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    with Image.open(stripes) as image:
        image.save(tmp_path / "turned.png", exif=exif)
    upright = tfs.load_images(tmp_path / "turned.png", size=(40, 20))[0]
    assert upright[0, 10].tolist() == [255, 0, 0] and upright[-1, 10].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode).save(path)
    assert np.array_equal(tfs.load_images(path, size=(8, 8)), np.full((1, 8, 8, 3), 255.0))


def test_files_that_are_no_photos(tmp_path, stripes):
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(stripes.read_bytes()[:-30])
    text = tmp_path / "text.jpg"
    text.write_text("no photo")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    wide = tmp_path / "wide.png"
    Image.fromarray(np.full((4, 4), 40000, "uint16")).save(wide)
    for path, message in [
        (truncated, "cannot be read to the end"),
        (text, "not an image that Pillow can read"),
        (empty, "not an image"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.jpg", "no such file"),
        (wide, "8 bits a channel"),
    ]:
        with pytest.raises(tfs.ImageError, match=message) as caught:
            tfs.load_images([stripes, path], size=(8, 8))
        assert str(caught.value).startswith(str(path))


def test_a_photo_one_pixel_high(tmp_path):
    path = tmp_path / "line.png"
    Image.new("RGB", (40, 1), (10, 20, 30)).save(path)
    for channels, fit in ((3, "crop"), (3, "squash"), (1, "squash")):
        model = keras.Sequential([keras.Input((8, 8, channels)), keras.layers.Flatten()])
        images = tfs.load_images(path, model, fit=fit)
        assert images.shape == (1, 8, 8, channels) and len(np.unique(images[..., 0])) == 1


def test_bad_options(stripes):
    with pytest.raises(tfs.OptionError, match=r"size=\(h, w\)"):
        tfs.load_images(stripes, size=32)
    with pytest.raises(tfs.ImageError, match="Received: ndarray"):
        tfs.load_images([np.zeros((8, 8, 3))], size=(8, 8))

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(tfs.OptionError, match="fixed input size, or size"):
        tfs.load_images(stripes, Subclassed())
    assert tfs.load_images(stripes, Subclassed(), size=(8, 8)).shape == (1, 8, 8, 3)
    with pytest.raises(tfs.OptionError, match="Known: crop, squash"):
        tfs.load_images(stripes, size=(8, 8), fit="stretch")
    with pytest.raises(tfs.OptionError, match="fixed input size, or size"):
        tfs.load_images(stripes)
    any_size = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1)])
    with pytest.raises(tfs.OptionError, match="fixed input size, or size"):
        tfs.load_images(stripes, any_size)
    flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(1)])
    with pytest.raises(tfs.OptionError, match="a model of images"):
        tfs.load_images(stripes, flat)
    with pytest.raises(tfs.ImageError, match="Received: none"):
        tfs.load_images([], size=(8, 8))
