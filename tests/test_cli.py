"""The command line, on real weights and on a small saved model."""

import argparse
import configparser
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import zoo
from PIL import Image
from setups import without_progress

import tfsaliency as tfs
from tfsaliency import cli
from tfsaliency.cli import map as map_command
from tfsaliency.cli import options
from tfsaliency.sanity.units import list_units
from tfsaliency.tables import DEFAULT_METHODS


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (zoo.SIZE, zoo.SIZE, 3), dtype="uint8")
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.keras"
    zoo.SPELLINGS["nested"].build("float32").save(path)
    return path


def _run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), without_progress(err)


def test_the_dog_of_the_original(data, keras_home, tmp_path, capsys):
    out = tmp_path / "maps"
    dog = data / "seed" / "anansi.jpg"
    arguments = ["map", dog, "--fit", "squash", "--score", "probability", "--top", 3, "--out", out]
    code, lines, errors = _run(capsys, *arguments)
    assert (code, errors) == (0, [])
    named = "English setter (64%), miniature schnauzer (14%), Tibetan terrier (5%)"
    assert f"{dog}: {named}" in lines
    assert "guided_backprop: 26 of 26 ReLUs (clone)" in lines
    maps = tfs.SaliencyMaps.load(out / "maps.npz")
    assert maps.names == (str(dog),) and maps.targets.tolist() == [212]
    np.testing.assert_allclose(maps.scores, [0.640], atol=0.001)
    model = tfs.models.SqueezeNet(data / "squeezenet_v1.1.bin")
    direct = tfs.saliency_map(
        model,
        tfs.load_images(dog, model, fit="squash"),
        list(DEFAULT_METHODS),
        score="probability",
        preprocess=tfs.models.squeezenet.preprocess_input,
    )
    for name in DEFAULT_METHODS:
        np.testing.assert_allclose(maps[name], direct[name], rtol=1e-4, atol=1e-9)
    with Image.open(out / "anansi.png") as picture:
        assert picture.width > 3 * picture.height


def test_good_photos_are_done_beside_bad_ones(photo, model_file, tmp_path, capsys):
    other = tmp_path / "other" / "photo.png"  # of the same name, elsewhere
    other.parent.mkdir()
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(other)
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    out = tmp_path / "maps"
    code, lines, errors = _run(
        capsys,
        "map",
        photo,
        broken,
        tmp_path / "none.jpg",
        other,
        "--model",
        model_file,
        "--out",
        out,
    )
    assert code == 2
    assert [line.split(": ")[1] for line in errors] == [str(broken), str(tmp_path / "none.jpg")]
    assert lines[-1] == f"Wrote 2 of 4 pictures, and maps.npz, to {out}"
    assert sorted(p.name for p in out.iterdir()) == [
        "maps.npz",
        "photo-2.png",
        "photo.png",
        "run.json",
    ]
    maps = tfs.SaliencyMaps.load(out / "maps.npz")
    assert maps.names == (str(photo), str(other))
    model = keras.saving.load_model(model_file)
    direct = tfs.saliency_map(model, tfs.load_images([photo, other], model), list(DEFAULT_METHODS))
    for name in DEFAULT_METHODS:
        np.testing.assert_allclose(maps[name], direct[name], rtol=1e-4, atol=1e-6)


def test_batches_are_joined(photo, model_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(map_command, "_BATCH", 2)
    photos = []
    for k in range(5):
        with Image.open(photo) as image:
            photos.append(tmp_path / f"p{k}.png")
            image.point(lambda v, k=k: v // (k + 1)).save(photos[-1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, lines, _ = _run(capsys, "map", *photos, "--model", model_file, "--out", tmp_path / "o")
    assert code == 0 and lines[-1].startswith("Wrote 5 of 5")
    maps = tfs.SaliencyMaps.load(tmp_path / "o" / "maps.npz")
    assert maps.names == tuple(map(str, photos)) and len(maps["gradient"]) == 5


@pytest.mark.parametrize(
    ("suffix", "mode", "scale"),
    [(".keras", "tf", lambda x: x / 127.5 - 1), (".h5", "unit", lambda x: x / 255)],
)
def test_options_reach_the_maps(suffix, mode, scale, photo, tmp_path, capsys):
    path = tmp_path / f"model{suffix}"
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    keras.models.clone_model(model)
    model.save(path)
    arguments = ["--model", path, "--methods", "zeiler_fergus", "--score", "margin"]
    arguments += [
        "--target",
        2,
        "--reduction",
        "sum",
        "--preprocess",
        mode,
        "--out",
        tmp_path / "o",
    ]
    code, lines, _ = _run(capsys, "map", photo, *arguments)
    assert code == 0 and lines[1] == "zeiler_fergus: 2 of 2 ReLUs (clone)"
    ours = tfs.SaliencyMaps.load(tmp_path / "o" / "maps.npz")
    direct = tfs.saliency_map(
        model,
        scale(tfs.load_images(photo, model)),
        "zeiler_fergus",
        score="margin",
        targets=2,
        reduction="sum",
    )
    np.testing.assert_allclose(ours["zeiler_fergus"], direct["zeiler_fergus"], rtol=1e-4, atol=1e-6)
    assert ours.score == "margin (before the final softmax)"


def test_files_that_are_no_models_or_need_more_than_keras(photo, tmp_path, capsys):
    class Unknown(keras.layers.Layer):
        def call(self, x):
            return x * 2.0

    inputs = keras.Input((4, 4, 3))
    keras.Model(inputs, Unknown()(inputs)).save(tmp_path / "custom.keras")
    (tmp_path / "text.keras").write_text("no model")
    for name, message in (
        ("custom.keras", "needs 'Unknown', which is not part of Keras. Load the model in Python"),
        ("text.keras", "is not a .keras file"),
    ):
        out = tmp_path / "o"
        code, _, errors = _run(capsys, "map", photo, "--model", tmp_path / name, "--out", out)
        assert code == 2 and len(errors) == 1 and message in errors[0]


def test_maps_that_mean_nothing_are_said_by_the_names_of_the_photos(
    photo, model_file, tmp_path, capsys
):
    model = keras.saving.load_model(model_file)
    model.set_weights([w * 0 for w in model.get_weights()])
    dead = tmp_path / "dead.keras"
    model.save(dead)
    out = tmp_path / "o"
    code, lines, errors = _run(capsys, "map", photo, "--model", dead, "--out", out)
    assert code == 0 and lines[-1].startswith("Wrote 1 of 1 pictures")
    assert lines[1:4] == [
        "gradient: 2 of 2 ReLUs (clone)",
        "guided_backprop: 2 of 2 ReLUs (clone)",
        "zeiler_fergus: 2 of 2 ReLUs (clone)",
    ]
    (warning,) = errors
    assert warning.startswith("tfsaliency: warning: zero_map (gradient, guided_backprop, ")
    assert f"{photo}): a map is zero everywhere" in warning
    saved = tfs.SaliencyMaps.load(out / "maps.npz")
    assert [problem.cause for problem in saved.problems] == ["zero_map"]


@pytest.mark.slow
def test_a_model_of_keras_applications(photo, tmp_path, capsys, keras_home):
    weights = tmp_path / "mobilenet.weights.h5"
    model = keras.applications.MobileNetV2(weights=None)
    model.save_weights(weights)
    out = tmp_path / "o"
    arguments = ["--model", "mobilenetv2", "--weights", weights, "--methods", "guided_backprop"]
    code, lines, errors = _run(capsys, "map", photo, *arguments, "--out", out)
    assert (code, errors) == (0, [])
    assert lines[1] == "guided_backprop: 35 of 35 ReLUs (clone)"
    x = tfs.load_images(photo, model)
    direct = tfs.saliency_map(
        model, x, "guided_backprop", preprocess=keras.applications.mobilenet_v2.preprocess_input
    )
    ours = tfs.SaliencyMaps.load(out / "maps.npz")
    assert ours.targets.tolist() == direct.targets.tolist()
    a, b = ours["guided_backprop"], direct["guided_backprop"]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "squeezenett"], "Did you mean 'squeezenet'"),
        (["--model", "none.keras"], "none.keras: no such file"),
        (["--model", "MODEL", "--weights", "w.h5"], "contains its weights"),
        (["--model", "resnet50", "--weights", "none.h5"], "Cannot read the weights file none.h5"),
        (["--model", "PHOTO.h5"], "cannot be loaded as a Keras model"),
        (["--model", "MODEL", "--target", "4"], "a class index below 4"),
        (["--model", "MODEL", "--target", "cat"], "Expected class_names="),
        (["--model", "MODEL", "--score", "logits"], "Unknown score: 'logits'"),
        (["--model", "MODEL", "--top", "0"], "expected an integer of at least 1, received 0"),
        (["--model", "MODEL", "--methods", "guided"], "Unknown method: 'guided'"),
        (["--model", "MODEL", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["--model", "MODEL", "--out", "PHOTO"], "Expected a folder as --out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments, message, photo, model_file, tmp_path, capsys
):
    (tmp_path / "bad.h5").write_bytes(photo.read_bytes())
    names = {"MODEL": model_file, "PHOTO": photo, "PHOTO.h5": tmp_path / "bad.h5"}
    arguments = [names.get(a, a) for a in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "o"]
    try:
        code, lines, errors = _run(capsys, "map", photo, *arguments, *out)
    except SystemExit as stop:
        code, lines, errors = stop.code, [], capsys.readouterr().err.splitlines()
    assert (code, lines) == (2, [])
    (line,) = errors
    assert line.startswith("tfsaliency") and message in line


def test_a_photo_is_never_replaced(photo, model_file, capsys):
    before = photo.read_bytes()
    code, _, errors = _run(capsys, "map", photo, "--model", model_file, "--out", photo.parent)
    assert code == 2 and "would replace the photo" in errors[0]
    assert photo.read_bytes() == before


def test_labels_from_a_file(photo, model_file, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\n")
    arguments = ["--model", model_file, "--class-names", names, "--target", "Cat", "--top", 4]
    code, lines, _ = _run(capsys, "map", photo, *arguments, "--out", tmp_path / "o")
    assert code == 0 and {"ant", "bee", "cat", "dog"} <= set(lines[0].replace(",", "").split())
    assert tfs.SaliencyMaps.load(tmp_path / "o" / "maps.npz").targets.tolist() == [2]


@pytest.mark.parametrize(
    ("outputs", "meaning", "names", "caption"),
    [
        ([0.64, 0.36], "classes", True, "setter (64%)"),
        ([0.003, 0.997], "classes", True, "setter (<1%)"),
        ([2.5, -1.0], "classes", True, "setter (2.5)"),
        ([0.6, 0.6], "classes", True, "setter (0.6)"),
        ([0.6, 0.6], "labels", True, "setter (60%)"),
        ([0.25], "binary", True, "setter (75%)"),
        ([0.25], "binary", False, "class 0 (75%)"),
        ([-3.0], "binary_logit", True, "setter (95%)"),
        ([0.3], "binary_logit", True, "setter (43%)"),
        ([0.67], "outputs", False, "output 0.67"),
        ([1.0], "outputs", False, "output 1"),
        ([1.5, 2.0], "outputs", False, "output 0 (1.5)"),
    ],
)
def test_captions_claim_no_probability_that_is_none(outputs, meaning, names, caption):
    image = np.zeros((1, 2, 2, 3))
    known = ("setter", "terrier") if names else ()
    maps = tfs.SaliencyMaps(
        {}, image, [0], [0.0], "logit", np.array([outputs]), {}, meaning=meaning, class_names=known
    )
    assert maps.caption(0) == caption


def test_without_class_names_the_class_is_a_number(photo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        options,
        "imagenet_class_names",
        lambda: (_ for _ in ()).throw(tfs.WeightsError("no network")),
    )
    loaded = options.LoadedModel(tfs.models.SqueezeNet(weights=None), None, True)
    arguments = argparse.Namespace(class_names=None)
    assert options.load_class_names(arguments, loaded) is None
    assert "no network. Classes are printed as numbers." in capsys.readouterr().err


def test_the_layer_of_class_activation_maps(photo, model_file, tmp_path, capsys):
    backbone = keras.models.load_model(model_file).get_layer("backbone")
    path = f"backbone/{backbone.layers[-1].name}"
    arguments = ["map", photo, "--model", model_file, "--out", tmp_path / "o"]
    code, lines, _ = _run(capsys, *arguments, "--methods", "grad_cam", "--layer", path)
    assert code == 0
    (line,) = [line for line in lines if line.startswith("grad_cam")]
    assert f"; at {path}, 3 x 3 cells" in line
    arguments[-1] = tmp_path / "other"
    code, _, (error,) = _run(capsys, *arguments, "--methods", "grad_cam", "--layer", "lost")
    assert code == 2 and "Unknown layer: 'lost'" in error and path in error
    code, _, (error,) = _run(capsys, *arguments, "--layer", path)
    assert code == 2 and "Expected layer= beside a class activation map" in error


def _more_photos(photo, tmp_path, count=3):
    paths = [photo]
    for i in range(1, count):
        pixels = np.random.default_rng(i).integers(0, 256, (zoo.SIZE, zoo.SIZE, 3), dtype="uint8")
        paths.append(tmp_path / f"photo-{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_check_writes_what_python_computes(photo, model_file, tmp_path, capsys):
    photos, out = _more_photos(photo, tmp_path), tmp_path / "out"
    code, lines, errors = _run(
        capsys, "check", *photos, "--model", model_file, "--seeds", 2, "--randomizer", "matched",
        "--similarities", "spearman", "pearson", "--out", out,
    )  # fmt: skip
    assert code == 0
    assert all(error.startswith("tfsaliency: warning: alike_maps (") for error in errors)
    model = keras.models.load_model(model_file)
    direct = tfs.sanity_check(
        model, tfs.load_images(photos, model), list(DEFAULT_METHODS), randomizer="matched", seeds=2,
        similarities=("spearman", "pearson"), verbose=0, on_problem="ignore",
    )  # fmt: skip
    result = tfs.SanityResult.load(out / "result.npz")
    np.testing.assert_array_equal(result.values, direct.values)
    assert result.images == tuple(map(str, photos))
    assert lines[:-2] == str(result).splitlines()
    assert lines[-1] == f"Wrote result.npz, result.json, curves.png and maps.png to {out}"
    for name in ("curves", "maps"):
        with Image.open(out / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_check_of_chosen_layers_and_of_one_class(photo, model_file, tmp_path, capsys):
    photos = _more_photos(photo, tmp_path, 2)
    model = keras.models.load_model(model_file)
    first, *_, last = (unit.path for unit in list_units(model))
    code, _, errors = _run(
        capsys, "check", *photos, photo, "--model", model_file, "--plan", f"{first}+{last}", last,
        "--target", 1, "--seeds", 2, "--methods", "gradient", "--similarities", "pearson",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert errors == ["tfsaliency: warning: repeated photos are used once"]
    result = tfs.SanityResult.load(tmp_path / "out" / "result.npz")
    assert [step.name for step in result.steps] == [f"{first} + {last}", last]
    assert result.targets.tolist() == [1, 1] and result.headline is None


def test_check_says_in_a_line_what_is_wrong(photo, model_file, tmp_path, capsys):
    out = tmp_path / "out"
    for arguments, message in (
        (["--plan", "cascad"], "Unknown layer with weights: 'cascad'. Did you mean 'cascade'?"),
        (["--target", "7"], "Target out of range."),
    ):
        code, lines, errors = _run(
            capsys, "check", photo, "--model", model_file, *arguments, "--out", out
        )
        assert (code, lines) == (2, []) and len(errors) == 1
        assert errors[0].startswith(f"tfsaliency: {message}")
        assert not out.exists()


def test_check_goes_on_without_a_broken_photo(photo, model_file, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    code, lines, errors = _run(
        capsys, "check", photo, broken, "--model", model_file, "--seeds", 2, "--plan", "all",
        "--similarities", "spearman", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2 and any("broken.jpg" in error for error in errors)
    assert any("1 photo; at least 2 are needed" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["map", "p", "--methods", "GradCAM"],
            "Unknown method: 'GradCAM'. Did you mean 'grad_cam'?",
        ),
        (["map", "p", "--score", "Logits"], "Unknown score: 'Logits'. Did you mean 'logit'?"),
        (
            ["check", "p", "--similarities", "SSM"],
            "Unknown similarity: 'SSM'. Did you mean 'ssim'?",
        ),
        (["check", "p", "--randomizer", "match"], "'match'. Did you mean 'matched'?"),
        (["chek"], "Unknown command: 'chek'. Did you mean 'check'? Known: demo, map, check"),
    ],
)
def test_a_typing_error_is_answered_with_the_nearest_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--out", "o"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_model_file_does_not_run(suffix, photo, tmp_path, capsys):
    evil = tmp_path / f"evil{suffix}"
    touched = tmp_path / "touched"
    inputs = keras.Input((4, 4, 3))
    code = f"lambda x: (open({str(touched)!r}, 'w').close(), x)[1]"
    function = eval(code)  # as in a file of a stranger
    model = keras.Model(inputs, keras.layers.Lambda(function)(inputs))
    model.save(evil)
    touched.unlink(missing_ok=True)
    code, _, errors = _run(capsys, "map", photo, "--model", evil, "--out", tmp_path / "o")
    assert code == 2 and "cannot be loaded as a Keras model" in errors[0]
    assert not touched.exists()


def test_an_older_keras_is_not_accepted():
    """Before 3.11.3, code in .h5 files ran in spite of safe_mode (CVE-2025-9905)."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    (least,) = re.findall(r"^keras>=([\d.]+)$", setup["options"]["install_requires"], re.MULTILINE)
    assert tuple(map(int, least.split("."))) >= (3, 11, 3)
