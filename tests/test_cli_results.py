"""The commands evaluate and report, and photos given as folders and patterns."""

import json
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from setups import without_progress

import tfsaliency as tfs
from tfsaliency import cli, synthetic

DATA = synthetic.make_shapes(9, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, photos with masks, and a photo in a folder below."""
    path = tmp_path_factory.mktemp("photos")
    synthetic.shapes_model().save(path / "model.keras")
    (path / "photos" / "more").mkdir(parents=True)
    (path / "masks").mkdir()
    for i, (image, mask) in enumerate(zip(DATA.images, DATA.masks, strict=True)):
        below = "more" if i == 8 else "."
        Image.fromarray(image.astype("uint8")).save(path / "photos" / below / f"p{i}.png")
        Image.fromarray(mask.astype("uint8")).save(path / "masks" / f"p{i}.png")
    (path / "photos" / "notes.txt").write_text("no photo")
    (path / "photos" / ".hidden").mkdir()
    for name in (".hidden.png", ".hidden/p.png", "table.h5", "paper.pdf"):
        (path / "photos" / name).write_bytes(b"")
    return path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a command in the folder."""
    monkeypatch.chdir(folder)

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, without_progress(err)

    return run


def test_folders_and_patterns_name_photos(run, tmp_path):
    common = ["--model", "model.keras", "--methods", "gradient", "--out"]
    for k, (word, expected) in enumerate(
        [
            ("photos", [8, *range(8)]),  # "more" comes first in the alphabet
            ("photos/p[0-2].png", [0, 1, 2]),
            ("photos/**/p*.png", [8, *range(8)]),
        ]
    ):
        code, out, errors = run("map", word, *common, tmp_path / str(k))
        assert (code, errors) == (0, [])
        maps = tfs.SaliencyMaps.load(tmp_path / str(k) / "maps.npz")
        np.testing.assert_array_equal(maps.images, DATA.images[expected])
        assert out.count(" (") >= len(expected)
    (tmp_path / "empty").mkdir()
    for word, what in (
        ("masks/*.gif", "Expected files that match the pattern"),
        (tmp_path / "empty", "Expected images in the folder"),
    ):
        code, _, (error,) = run("map", word, *common, tmp_path / "no")
        assert code == 2 and what in error
    assert not (tmp_path / "no").exists()


def test_a_typo_in_an_option_gets_a_suggestion(run, tmp_path):
    code, _, (error,) = run("map", "photos/p1.png", "--methds", "grad_cam", "--out", tmp_path / "o")
    assert code == 2 and "Did you mean '--methods'" in error and "tfsaliency map --help" in error


def test_overlays_are_those_of_plot(run, tmp_path):
    out = tmp_path / "o"
    common = ["--model", "model.keras", "--methods", "grad_cam", "--layer", "fire5-concat"]
    code, _, errors = run("map", "photos/p1.png", *common, "--overlay", "--out", out)
    assert (code, errors) == (0, [])
    maps = tfs.saliency_map(
        synthetic.shapes_model(), DATA.images[1:2], "grad_cam", layer="fire5-concat"
    )
    title = f"Maps of the {maps.score}"
    figure = replace(maps, names=("photos/p1.png",)).plot(overlay=True, title=title)
    figure.savefig(tmp_path / "own.png", dpi=150, bbox_inches="tight")
    ours, theirs = (np.asarray(Image.open(p)) for p in (tmp_path / "own.png", out / "p1.png"))
    np.testing.assert_array_equal(ours, theirs)


def test_evaluate_measures_against_the_masks(run, tmp_path):
    out = tmp_path / "o"
    words = ["photos/p*.png", "--masks", "masks", "--model", "model.keras", "--methods", "gradient"]
    code, printed, errors = run("evaluate", *words, "grad_cam", "--target", 3, "--out", out)
    assert (code, errors) == (0, [])
    labels = np.full(8, 3)
    known = tfs.GroundTruth(DATA.images[:8], labels, DATA.masks[:8])
    expected = tfs.evaluate(synthetic.shapes_model(), known, ["gradient", "grad_cam"])
    found = tfs.Evaluation.load(out / "metrics.npz")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-6)
    assert str(found).splitlines()[-1] in printed
    assert [name.rpartition("/")[2] for name in found.images] == [f"p{i}.png" for i in range(8)]
    assert "gradient,pointing_game,photos/p3.png," in (out / "metrics.csv").read_text()
    assert {p.name for p in out.iterdir()} == {
        "metrics.csv", "metrics.npz", "metrics.png", "pictures.png", "run.json"
    }  # fmt: skip


def test_evaluate_without_masks_asks_the_network(run, tmp_path):
    out = tmp_path / "o"
    words = ["photos/p*.png", "--model", "model.keras", "--methods", "gradient", "--out", out]
    code, printed, errors = run("evaluate", *words, "--metrics", "deletion_mean", "sparseness")
    assert code == 0 and "top class" in errors[0]
    expected = tfs.evaluate(
        synthetic.shapes_model(),
        DATA.images[:8],
        "gradient",
        metrics=["deletion_mean", "sparseness"],
    )
    found = tfs.Evaluation.load(out / "metrics.npz")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-6)
    assert "deletion_mean" in "".join(printed) and (out / "pictures.png").exists()
    assert run("verify", out / "metrics.npz", "--model", "model.keras")[0] == 0
    words[-1] = tmp_path / "new"
    code, _, errors = run("evaluate", *words, "--metrics", "pointing_game")
    assert code == 2 and "masks for pointing_game" in errors[-1]


def test_masks_are_cut_as_photos_are_and_problems_are_those_of_a_photo(run, tmp_path):
    (tmp_path / "masks").mkdir()
    wide, mask = Image.new("RGB", (160, 80), "white"), np.zeros((80, 160), "uint8")
    mask[:, 100:] = 7
    Image.fromarray(mask).save(tmp_path / "masks" / "wide.png")
    Image.fromarray(mask[:, :100]).save(tmp_path / "masks" / "short.png")
    Image.fromarray(0 * mask).save(tmp_path / "masks" / "none.png")
    (tmp_path / "masks" / "torn.png").write_bytes(b"no image")
    photos = []
    for name in ("wide", "short", "torn", "alone", "none"):
        photos.append(tmp_path / f"{name}.png")
        wide.save(photos[-1])
    out = tmp_path / "o"
    words = ["--masks", tmp_path / "masks", "--model", "model.keras", "--methods", "gradient"]
    code, _, errors = run("evaluate", *photos, *words, "--target", 0, "--out", out)
    assert code == 2
    for name, what in (
        ("short", "160 x 80"),
        ("torn", "not an image"),
        ("alone", "no mask"),
        ("none", "no relevant"),
    ):
        assert sum(f"{name}.png" in error and what in error for error in errors) == 1
    # Of the middle 80 columns, the last 20 are relevant; so is a quarter of a shuffled map.
    result = tfs.Evaluation.load(out / "metrics.npz")
    assert result.values.shape[-1] == 1
    assert result.mean("chance", "relevance_mass") == pytest.approx(0.25)
    new = tmp_path / "new"
    code, _, (error,) = run("evaluate", photos[0], *words, "--masks", "nowhere", "--out", new)
    assert code == 2 and "--masks as a folder" in error


def test_transparent_pixels_of_a_mask_do_not_count(run, tmp_path):
    photo, mask = tmp_path / "p.png", tmp_path / "masks" / "p.png"
    mask.parent.mkdir()
    Image.new("RGB", (64, 64), "white").save(photo)
    pixels = np.full((64, 64, 4), 255, "uint8")
    pixels[:, 16:, 3] = 0  # a quarter is opaque
    numbers = Image.fromarray(np.repeat(np.arange(4, dtype="uint8"), 16)[np.newaxis].repeat(64, 0))
    numbers.putpalette([255, 255, 255] * 256)  # the number counts, not the color
    for made, share in ((Image.fromarray(pixels), 0.25), (numbers.convert("P"), 0.75)):
        made.save(mask)
        words = ["--masks", mask.parent, "--model", "model.keras", "--methods", "gradient"]
        out = tmp_path / f"{share}"
        assert run("evaluate", photo, *words, "--out", out)[0] == 0
        result = tfs.Evaluation.load(out / "metrics.npz")
        assert result.mean("chance", "relevance_mass") == pytest.approx(share)
        assert result.correct is None  # nobody said what is right


def test_photos_and_masks_that_cannot_be_told_apart(run, tmp_path):
    masks = tmp_path / "masks"
    for folder in (masks, tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        Image.new("L", (64, 64), 255).save(folder / "p.png")
    words = ["--masks", masks, "--model", "model.keras", "--out", tmp_path / "o"]
    code, _, (error,) = run("evaluate", tmp_path / "a", tmp_path / "b", *words)
    assert code == 2 and "different names" in error and "a/p.png" in error
    code, _, errors = run("evaluate", masks / "p.png", *words)
    assert code == 2 and any("no mask" in error for error in errors)
    Image.new("L", (64, 64), 255).save(masks / "p.gif")
    code, _, (error,) = run("evaluate", tmp_path / "a", *words)
    assert code == 2 and "p.gif" in error


def test_the_masks_of_a_run_are_noted_from_the_root(run, tmp_path, folder):
    words = ["--masks", "masks", "--model", "model.keras", "--methods", "gradient"]
    assert run("evaluate", "photos/p1.png", *words, "--out", tmp_path / "o")[0] == 0
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["evaluate"]["masks"] == str(folder / "masks")


def test_a_report_that_cannot_be_written_is_refused_at_once(run, tmp_path, monkeypatch):
    words = ["photos/p0.png", "--model", "no model", "--out"]
    code, _, (error,) = run("report", *words, tmp_path / "none" / "report.html")
    assert code == 2 and "a folder that exists" in error
    (tmp_path / "link.html").symlink_to(tmp_path / "elsewhere.html")
    code, _, (error,) = run("report", *words, tmp_path / "link.html", "--overwrite")
    assert code == 2 and "a symbolic link" in error
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, (error,) = run("report", *words, tmp_path / "report.html")
    assert code == 2 and "tfsaliency[report]" in error


def test_a_photo_on_its_side_with_a_name_that_is_no_text(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the photo lies on its side
    photo = tmp_path / os.fsdecode(b"side\xff.jpg")
    Image.new("RGB", (64, 32), "white").save(photo, exif=exif)
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (32, 64), 255).save(masks / os.fsdecode(b"side\xff.png"))
    words = [photo, "--model", "model.keras", "--methods", "gradient", "--out"]
    assert run("evaluate", *words, tmp_path / "e", "--masks", masks)[0] == 0
    assert run("map", *words, tmp_path / "o", "--overlay")[0] == 0
    assert run("report", tmp_path / "o", "--out", tmp_path / "r.html")[0] == 0


def test_a_report_of_what_the_commands_wrote(run, tmp_path):
    out, page = tmp_path / "o", tmp_path / "report.html"
    common = ["photos", "--model", "model.keras", "--methods", "gradient", "--out", out]
    assert run("map", *common)[0] == 0
    assert run("check", *common, "--plan", "conv8", "--seeds", 2)[0] == 0
    assert run("evaluate", *common, "--masks", "masks")[0] == 0
    code, printed, errors = run("report", out, "--out", page, "--title", "<i>Shapes</i>")
    assert (code, errors) == (0, []) and "report.html" in printed
    text = page.read_text()
    assert "<title>&lt;i&gt;Shapes&lt;/i&gt;</title>" in text
    assert text.count("<article") == 9
    assert all(f'id="{part}"' in text for part in ("verdicts", "maps", "evaluation"))
    code, _, (error,) = run("report", out, "--out", page)
    assert code == 2 and "--overwrite" in error
    assert run("report", out / "maps.npz", "--out", page, "--overwrite")[0] == 0
    assert 'id="verdicts"' not in page.read_text()
    before = page.read_bytes()
    (tmp_path / "torn.npz").write_bytes(b"no result")
    (tmp_path / "copy.npz").write_bytes((out / "maps.npz").read_bytes())
    for words, what in (
        ([tmp_path / "torn.npz"], "a damaged file"),
        ([tmp_path / "none.npz"], "no file"),
        ([tmp_path / "none"], "no file"),
        ([out, "photos/p0.png"], "Received: both"),
        ([out, tmp_path / "copy.npz"], "at most one file of SaliencyMaps"),
    ):
        code, _, (error,) = run("report", *words, "--out", page, "--overwrite")
        assert code == 2 and what in error
    assert page.read_bytes() == before


def test_a_report_of_photos(run, tmp_path):
    page = tmp_path / "report.html"
    words = ["--model", "model.keras", "--methods", "gradient", "--out", page, "--overwrite"]
    assert run("report", "photos/p[0-3].png", *words, "--plan", "conv8", "--seeds", 2)[0] == 0
    text = page.read_text()
    assert text.count("<article") == 4 and 'id="verdicts"' in text
    assert re.search(r"weights</dt><dd>sha256 [0-9a-f]{64}", text)
    assert run("report", "photos/p0.png", *words, "--no-check")[0] == 0
    assert 'id="verdicts"' not in page.read_text()
