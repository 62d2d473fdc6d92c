"""load_images: sizes, orientation, modes, and files that are not photos."""

import struct

import keras
import numpy as np
import pytest
from PIL import Image, ImageOps

import tfsaliency as tfs
from tfsaliency import image_io


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


# Photos of the real world: tags, transparency, sizes and damage.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype="uint8")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    size = upright.shape[:2]
    assert size == ((24, 40) if orientation < 5 else (40, 24))
    np.testing.assert_array_equal(tfs.load_images(tmp_path / "photo.png", size=size)[0], upright)


def _with_tag(path, tag, kind, value):
    """Write a JPEG turned by orientation 6, and one other EXIF tag of any type."""
    tags = sorted({0x0112: (3, 1, b"\x06\x00\x00\x00"), tag: (kind, 1, value)}.items())
    entries = b"".join(
        struct.pack("<HHI", number, k, count) + data for number, (k, count, data) in tags
    )
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + ifd + b"\x00" * 16
    pixels = np.zeros((16, 32, 3), "uint8")
    pixels[:, :16, 0] = 255
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


TAGS = [  # of TIFF and EXIF, and some unknown ones
    *range(0x0100, 0x011C), *range(0x0128, 0x0140), *range(0x0140, 0x0154), 0x0211, 0x0213,
    0x8298, 0x829A, 0x829D, 0x8769, 0x8822, 0x8825, 0x8827, *range(0x9000, 0x9010),
    *range(0x9200, 0x9216), 0xA000, 0xA001, 0xA002, 0xA003, 0xA005, 0xA20E, 0xC000, 0xFFFF,
]  # fmt: skip


def test_odd_tags_neither_stop_a_photo_nor_its_orientation(tmp_path):
    """264 of 1,568 such tags made Pillow's exif_transpose raise an error."""
    path, done = tmp_path / "photo.jpg", 0
    for tag in TAGS:
        for kind in range(1, 15):
            if tag == 0x0112:
                continue
            _with_tag(path, tag, kind, b"\x01\x00\x00\x00")
            upright = tfs.load_images(path, size=(32, 16))[0]
            assert upright[2, 8, 0] > 200 and upright[-2, 8, 0] < 50, (tag, kind)
            done += 1
    assert done > 1500


def test_transparent_pixels_are_white(tmp_path):
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    red.putpixel((0, 0), (255, 0, 0, 255))
    red.putpixel((1, 0), (0, 0, 0, 127))
    red.save(tmp_path / "a.png")
    array = tfs.load_images(tmp_path / "a.png", size=(8, 8))[0]
    assert array[0, 0].tolist() == [255, 0, 0] and array[4, 4].tolist() == [255, 255, 255]
    assert array[0, 1].tolist() == [128, 128, 128]
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9, 0, 200, 0])
    palette.putpixel((0, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    array = tfs.load_images(tmp_path / "p.png", size=(8, 8))[0]
    assert array[0, 0].tolist() == [0, 200, 0] and array[4, 4].tolist() == [255, 255, 255]
    four = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Flatten()])
    assert tfs.load_images(tmp_path / "a.png", four)[0, 4, 4].tolist() == [255, 0, 0, 0]


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (13000, 13000)).save(path)
    with pytest.raises(tfs.ImageError, match="13000 x 13000 pixels. Expected at most 89,478,485"):
        tfs.load_images(path, size=(8, 8))
    monkeypatch.setattr(image_io, "MAX_PIXELS", 3000)
    pixels = np.repeat(np.random.default_rng(0).integers(0, 255, (8, 16, 3), "uint8"), 16, 0)
    Image.fromarray(np.repeat(pixels, 16, 1)).save(tmp_path / "large.jpg", quality=95)
    with Image.open(tmp_path / "large.jpg") as image:  # the caller's own image is not redrawn
        with pytest.raises(tfs.ImageError, match="image 0: has 256 x 128 pixels"):
            tfs.load_images(image, size=(8, 16))
        assert image.size == (256, 128)
    # A JPEG is decoded at a fraction, here of a quarter, of its sides.
    array = tfs.load_images(tmp_path / "large.jpg", size=(8, 16))[0]
    monkeypatch.undo()
    whole = tfs.load_images(tmp_path / "large.jpg", size=(8, 16))[0]
    assert np.abs(array - whole).mean() < 8 and np.abs(array - whole).max() > 0


def test_whatever_a_decoder_raises_is_an_error_of_the_file(tmp_path, monkeypatch, stripes):
    for error in (RuntimeError("avif"), NotImplementedError("dds"), RecursionError(), KeyError(1)):

        def load(self, error=error):
            raise error

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
        with pytest.raises(tfs.ImageError, match="stripes.png: cannot be read to the end"):
            tfs.load_images(stripes, size=(8, 8))
        monkeypatch.undo()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(tfs.ImageError, match="loop.png: (no such file|cannot be read)"):
        tfs.load_images(tmp_path / "loop.png", size=(8, 8))


@pytest.mark.parametrize(
    ("paths", "size", "message"),
    [
        (5, (8, 8), "Expected the path of a photo.*Received: int"),
        (None, (8, 8), "Received: NoneType"),
        ([None], (8, 8), "image 0: Expected the path of a photo.*Received: NoneType"),
        ("photo.png", (16,), r"Expected size=\(h, w\).*Received: \(16,\)"),
        ("photo.png", (-1, 5), r"Received: \(-1, 5\)"),
        ("photo.png", ("a", "b"), r"Received: \('a', 'b'\)"),
        ("photo.png", (2.5, 3), "two ints"),
        ("photo.png", (True, 3), "two ints"),
        ("photo.png", (0, 3), "two ints"),
        ("x" * 5000, (8, 8), "x: (no such file|cannot be read)"),
        ("a\0.jpg", (8, 8), "no such file|cannot be read"),
    ],
)
def test_what_is_no_photo_or_size_is_refused(paths, size, message):
    with pytest.raises((tfs.ImageError, tfs.OptionError), match=message):
        tfs.load_images(paths, size=size)
