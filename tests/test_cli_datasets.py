"""The commands run, verify and compare."""

import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image
from setups import without_progress

import tfsaliency as tfs
from tfsaliency import cli, synthetic
from tfsaliency.cli import run as run_command

DATA = synthetic.make_shapes(9, seed=3)
MODEL = ["--model", "model.keras"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, photos with masks in folders of their classes, and two that are broken."""
    path = tmp_path_factory.mktemp("run")
    synthetic.shapes_model().save(path / "model.keras")
    synthetic.permuted_label_models()[0].save(path / "other.keras")
    (path / "names.txt").write_text("\n".join(synthetic.CLASSES))
    (path / "masks").mkdir()
    for i, image in enumerate(DATA.images):
        inside = path / "photos" / synthetic.CLASSES[DATA.labels[i]]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype("uint8")).save(inside / f"p{i}.png")
        Image.fromarray(DATA.masks[i].astype("uint8")).save(path / "masks" / f"p{i}.png")
    (path / "broken").mkdir()
    for i in range(2):
        (path / "broken" / f"b{i}.png").write_bytes(b"no image")
    Image.fromarray(DATA.images[0].astype("uint8")).save(path / "broken" / "good.png")
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


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("part-*")}


def test_a_run_is_made_continued_and_verified(run, folder, tmp_path):
    out = tmp_path / "out"
    words = ["run", "photos", *MODEL, "--methods", "gradient", "grad_cam", "--out", out]
    words += ["--class-names", "names.txt", "--target", "labels", "--part-size", "4"]
    code, text, err = run(*words)
    assert (code, err) == (0, [])
    assert text == f"{out} has the maps of 9 images, in 3 parts\n"
    maps = tfs.open_dataset(out)
    rows = maps.table(["id", "label", "class_name", "path"]).to_pylist()
    assert all(row["label"] == row["class_name"] == row["id"].split("/")[0] for row in rows)
    assert all(os.path.samefile(row["path"], folder / "photos" / row["id"]) for row in rows)
    before = digests(out)
    (out / "part-000001.parquet").unlink()
    assert run(*words)[0] == 0 and digests(out) == before
    code, text, err = run(*words, "--batch-size", "2")
    assert code == 2 and not text
    assert "parameters.batch_size: 2, recorded 32" in err[0]

    code, text, err = run("verify", out, *MODEL, "--all")
    assert (code, err) == (0, []) and text.startswith(f"confirmed: {out}, 9 images\n")
    code, text, err = run("verify", out, "--model", "other.keras")
    assert code == 1 and "differs: model.weights.conv1/kernel" in text and not err
    code, text, err = run("verify", tmp_path / "nowhere", *MODEL)
    assert code == 2 and "which is none" in err[0]


def test_errors_are_rows_up_to_a_limit(run, folder, tmp_path):
    words = ["run", "broken", *MODEL, "--methods", "gradient", "--out", tmp_path]
    code, text, err = run(*words, "--max-errors", "1")
    assert code == run_command.LIMIT_EXCEEDED == 3 and not text
    assert err[0].startswith("tfsaliency: Expected at most 1 images with errors. Received: 2.")
    assert err[1].startswith(f"tfsaliency: error: {folder}/broken/b0.png: not an image")
    code, text, err = run(*words, "--max-errors", "0")
    assert code == 0  # nothing was left to do
    assert text == f"{tmp_path} has the maps of 3 images, 2 with errors, in 1 part\n"
    code, text, err = run(*words, "--retry-errors", "--max-errors", "0")
    assert code == 3 and len(tfs.open_dataset(tmp_path)) == 3


def test_sources_may_stand_behind_methods_and_typos_are_named(run, tmp_path):
    code, text, _ = run("run", *MODEL, "--methods", "gradient", "photos", "--out", tmp_path / "a")
    assert code == 0 and "9 images" in text
    code, text, _ = run("run", "photos/*/p[0-2].png", *MODEL, "--out", tmp_path / "b")
    assert code == 0 and "3 images" in text
    code, _, err = run("run", *MODEL, "--out", tmp_path / "c")
    assert code == 2 and "required: SOURCE" in err[0]
    code, _, err = run("run", "photos", *MODEL, "--out", tmp_path / "c", "--enginee", "ray")
    assert code == 2 and "Did you mean '--engine'?" in err[0]
    code, _, err = run("run", "photos", *MODEL, "--out", "photos")
    assert code == 2 and "photos, that of the source" in err[0]
    code, _, err = run("report", tmp_path / "a", "--out", tmp_path / "report.html")
    assert code == 2 and "a data set of run" in err[0]
    code, _, err = run("run", "nowhere", *MODEL, "--out", tmp_path / "c")
    assert code == 2 and "nowhere, no such file or folder" in err[0]


def test_results_of_map_check_and_evaluate_are_verified(run, folder, tmp_path):
    common = [*MODEL, "--methods", "gradient", "guided_backprop", "--out", tmp_path]
    assert run("map", "photos", *common)[0] == 0
    code, text, err = run("verify", tmp_path / "maps.npz", *MODEL)
    assert (code, err) == (0, []) and "note" not in text, text
    assert "maps of gradient, guided_backprop" in text and "bit by bit" in text

    assert run("check", "photos", *common, "--plan", "conv8", "--seeds", "2")[0] == 0
    code, text, err = run("verify", tmp_path / "result.npz", *MODEL)
    assert (code, err) == (0, []) and "confirmed: SanityResult of 9 images" in text
    photos = sorted((folder / "photos").rglob("*.png"))
    (tmp_path / "moved").mkdir()
    for photo in photos:
        (tmp_path / "moved" / photo.name).write_bytes(photo.read_bytes())
    image = np.array(Image.open(photos[4]))
    image[5, 5] ^= 1
    Image.fromarray(image).save(tmp_path / "moved" / photos[4].name)
    source = ["--source", tmp_path / "moved"]
    code, text, _ = run("verify", tmp_path / "result.npz", *MODEL, *source)
    assert code == 1 and f"pixels of image {photos[4].relative_to(folder)}" in text

    read = tfs.load_images([*map(str, photos)], size=DATA.images.shape[1:3])
    tfs.input_invariance_check(synthetic.shapes_model(), read).save(tmp_path / "shifted.npz")
    code, text, err = run("verify", tmp_path / "shifted.npz", *MODEL, "--source", "photos")
    assert (code, err) == (0, []) and "confirmed: InputInvariance of 9 images" in text
    code, _, err = run("verify", tmp_path / "shifted.npz", *MODEL)
    assert code == 2 and "a folder of them as --source" in err[0]
    files = [tmp_path / "shifted.npz", tmp_path / "result.npz"]
    code, _, err = run("report", *files, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert (code, err) == (0, []) and "gradient: invariant." in page and "conv8" in page

    assert run("evaluate", "photos", *common, "--masks", "masks")[0] == 0
    code, text, err = run("verify", tmp_path / "metrics.npz", *MODEL, "--masks", "masks")
    assert (code, err) == (0, []) and "confirmed: Evaluation of 9 images" in text
    code, _, err = run("verify", tmp_path / "metrics.npz", *MODEL)
    assert code == 2 and "Expected --masks" in err[0]


def test_two_models_are_compared_and_reported(run, tmp_path):
    words = ["model.keras", "other.keras", "--images", "photos", "--methods", "gradient"]
    code, text, err = run("compare", *words, "--out", tmp_path)
    assert (code, err) == (0, [])
    assert (
        "gradient  different" in text
        and "Photos whose maps changed most (similarity): photos/" in text
    )
    result = tfs.ModelComparison.load(tmp_path / "comparison.npz")
    photos = sorted(result.images)
    images = tfs.load_images(photos, synthetic.shapes_model(), verbose=0)
    models = synthetic.shapes_model(), synthetic.permuted_label_models()[0]
    again = tfs.compare_models(*models, images, verbose=0)
    assert again.verdicts == result.verdicts
    picture = Image.open(tmp_path / "comparison.png")
    assert picture.width > 400
    assert json.loads((tmp_path / "run.json").read_text())["compare"]["old"].endswith("model.keras")
    code, text, _ = run("report", tmp_path, "--out", tmp_path / "report.html")
    assert code == 0
    assert "do two models look at the same things?" in (tmp_path / "report.html").read_text()
    code, _, err = run("compare", "model.keras", "other.keras", "--out", tmp_path)
    assert code == 2 and "required: PHOTO" in err[0]


def test_a_run_that_is_interrupted_says_how_to_continue(run, folder, tmp_path, monkeypatch):
    explain = run_command.explain_dataset

    def interrupted(*arguments, **options):
        explain(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "explain_dataset", interrupted)
    code, _, err = run("run", "photos", *MODEL, "--methods", "gradient", "--out", tmp_path)
    assert code == 130
    assert err[-1].endswith(f"the maps of 9 images are in {tmp_path}; the same command continues")
