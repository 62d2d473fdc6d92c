"""Runs of the command line that are stopped, repeated, or cannot write."""

import errno
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import zoo
from PIL import Image
from setups import without_progress

import tfsaliency as tfs
from tfsaliency import cli
from tfsaliency.cli import map as map_command


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.keras"
    zoo.SPELLINGS["ReLU layer"].build("float32").save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    paths = []
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (zoo.SIZE, zoo.SIZE, 3), dtype="uint8")
        paths.append(tmp_path / f"p{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def in_twos(monkeypatch):
    monkeypatch.setattr(map_command, "_BATCH", 2)


def _run(capsys, *arguments):
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out.splitlines(), without_progress(err)


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def _stop_at(monkeypatch, name, call, error):
    """Raise an error at one of the calls of a function of the command."""
    function, calls = getattr(map_command, name), []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(map_command, name, stopping)


def test_an_interrupt_keeps_what_is_done(
    photos, model_file, tmp_path, capsys, monkeypatch, in_twos
):
    out = tmp_path / "o"
    _stop_at(monkeypatch, "_explain", 3, KeyboardInterrupt())
    code, lines, errors = _run(capsys, "map", *photos, "--model", model_file, "--out", out)
    assert code == 130
    assert errors == [f"tfsaliency: interrupted; 4 of 5 photos are done, in {out}"]
    assert lines[-1] == f"Wrote 4 of 5 pictures, and maps.npz, to {out}"
    assert _files(out) == ["maps.npz", "p0.png", "p1.png", "p2.png", "p3.png", "run.json"]
    maps = tfs.SaliencyMaps.load(out / "maps.npz")
    assert maps.names == tuple(map(str, photos[:4]))
    model = keras.saving.load_model(model_file)
    direct = tfs.saliency_map(model, tfs.load_images(photos[:4], model))
    np.testing.assert_allclose(maps["gradient"], direct["gradient"], rtol=1e-5, atol=1e-7)


def test_an_interrupt_while_the_maps_are_joined_keeps_them(
    photos, model_file, tmp_path, capsys, monkeypatch, in_twos
):
    out = tmp_path / "o"
    _stop_at(monkeypatch, "join_files", 1, KeyboardInterrupt())
    code, _, _ = _run(capsys, "map", *photos, "--model", model_file, "--out", out)
    assert code == 130
    assert len(tfs.SaliencyMaps.load(out / "maps.npz").names) == 5


def test_a_full_disk_leaves_the_maps_of_earlier_batches(
    photos, model_file, tmp_path, capsys, monkeypatch, in_twos
):
    out = tmp_path / "o"
    _stop_at(monkeypatch, "_explain", 3, OSError(errno.ENOSPC, "No space left on device"))
    code, _, errors = _run(capsys, "map", *photos, "--model", model_file, "--out", out)
    assert code == 2
    assert errors == [
        f"tfsaliency: The maps of 4 photos are in {out}: maps-0001.npz, maps-0002.npz.",
        f"tfsaliency: Cannot write to {out}: No space left on device.",
    ]
    parts = [tfs.SaliencyMaps.load(out / f"maps-000{k}.npz") for k in (1, 2)]
    assert [name for part in parts for name in part.names] == list(map(str, photos[:4]))
    monkeypatch.undo()
    monkeypatch.setattr(map_command, "_BATCH", 2)
    code, *_ = _run(capsys, "map", *photos, "--model", model_file, "--out", out)
    assert code == 0 and not [name for name in _files(out) if name.startswith("maps-")]


def test_joined_files_equal_one_run(photos, model_file, tmp_path, capsys, monkeypatch):
    arguments = ["map", *photos, "--model", model_file, "--methods", "gradient", "grad_cam"]
    _run(capsys, *arguments, "--out", tmp_path / "one")
    monkeypatch.setattr(map_command, "_BATCH", 2)
    _run(capsys, *arguments, "--out", tmp_path / "parts")
    one, parts = (tfs.SaliencyMaps.load(tmp_path / name / "maps.npz") for name in ("one", "parts"))
    for name in one:
        np.testing.assert_allclose(parts[name], one[name], rtol=1e-5, atol=1e-7)
    for name in ("images", "targets", "names", "coverage", "score", "meaning"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(one, name))
    assert parts.details["grad_cam"]["layer"].tolist() == one.details["grad_cam"]["layer"].tolist()
    assert str(parts.problems) == str(one.problems)


def test_problems_name_the_photos_of_every_batch(photos, model_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(map_command, "_BATCH", 2)
    model = keras.saving.load_model(model_file)
    model.set_weights([w * 0 for w in model.get_weights()])
    model.save(tmp_path / "dead.keras")
    _, _, (error,) = _run(
        capsys, "map", *photos[:3], "--model", tmp_path / "dead.keras", "--out", tmp_path / "o"
    )
    assert f"{photos[0]}, {photos[1]}, {photos[2]}): a map is zero" in error


def test_another_run_does_not_replace_files_unasked(photos, model_file, tmp_path, capsys):
    out = tmp_path / "o"
    arguments = ["map", photos[0], "--model", model_file, "--out", out, "--target"]
    assert _run(capsys, *arguments, 1)[0] == 0
    before = {name: (out / name).read_bytes() for name in _files(out)}
    code, lines, (error,) = _run(capsys, *arguments, 2)
    assert (code, lines) == (2, [])
    assert "would replace: p0.png, maps.npz." in error and "--overwrite" in error
    assert {name: (out / name).read_bytes() for name in _files(out)} == before
    # The same run again, and another one that is asked to.
    assert _run(capsys, *arguments, 1)[0] == 0
    assert _run(capsys, *arguments, 2, "--overwrite")[0] == 0
    assert tfs.SaliencyMaps.load(out / "maps.npz").targets.tolist() == [2]
    assert json.loads((out / "run.json").read_text())["map"]["target"] == "2"
    # Other photos would replace the numbers of the first.
    code, _, (error,) = _run(capsys, "map", photos[1], "--model", model_file, "--out", out)
    assert code == 2 and "would replace: maps.npz." in error


def test_a_record_of_somebody_else_stays(photos, model_file, tmp_path, capsys):
    out = tmp_path / "o"
    out.mkdir()
    (out / "run.json").write_text("mine")
    arguments = ["map", photos[0], "--model", model_file, "--out", out]
    code, _, (error,) = _run(capsys, *arguments)
    assert code == 2 and "has a file run.json that no run wrote" in error
    assert (out / "run.json").read_text() == "mine"
    assert _run(capsys, *arguments, "--overwrite", "--target", 99)[0] == 2
    assert (out / "run.json").read_text() == "mine"
    assert _run(capsys, *arguments, "--overwrite")[0] == 0


def test_the_same_name_elsewhere_is_another_photo(
    photos, model_file, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "o"
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(photos[0].read_bytes())
    monkeypatch.chdir(tmp_path / "a")
    assert _run(capsys, "map", "x.png", "--model", model_file, "--out", out)[0] == 0
    assert _run(capsys, "map", "./x.png", "--model", model_file, "--out", out)[0] == 0
    monkeypatch.chdir(tmp_path / "b")
    code, _, (error,) = _run(capsys, "map", "x.png", "--model", model_file, "--out", out)
    assert code == 2 and "would replace: x.png, maps.npz" in error


def test_a_mistake_in_an_option_leaves_no_folder(photos, model_file, tmp_path, capsys):
    out = tmp_path / "o"
    arguments = ["map", photos[0], "--model", model_file, "--out", out]
    assert _run(capsys, *arguments, "--target", 99)[0] == 2
    assert not out.exists()
    assert _run(capsys, *arguments)[0] == 0


def test_nothing_is_written_through_a_link(photos, model_file, tmp_path, capsys):
    out, precious = tmp_path / "o", tmp_path / "precious.txt"
    out.mkdir()
    precious.write_text("mine")
    for name in ("p0.png", "maps.npz", "maps-0001.npz"):
        (out / name).symlink_to(precious)
        code, _, (error,) = _run(
            capsys, "map", photos[0], "--model", model_file, "--out", out, "--overwrite"
        )
        assert code == 2 and f"symbolic links {name}." in error
        (out / name).unlink()
    (out / "run.json").symlink_to(precious)
    assert _run(capsys, "map", photos[0], "--model", model_file, "--out", out)[0] == 2
    assert precious.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    photos, model_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli.commands, "complain", lambda error: print(error) or 2)
    started = []
    monkeypatch.setattr("tfsaliency.cli.check.sanity_check", lambda *a, **k: started.append(1))
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "o"
    code, lines, _ = _run(capsys, "check", *photos, "--model", model_file, "--out", out)
    assert code == 2 and not started
    assert lines == [f"Cannot write to {out}: {out} Not a directory."]


def test_check_prints_its_verdict_even_if_it_cannot_write(
    photos, model_file, tmp_path, capsys, monkeypatch
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tfsaliency.cli.check._write", full)
    arguments = ["--methods", "gradient", "--seeds", 2, "--plan", "all", "--similarities"]
    code, lines, errors = _run(
        capsys, "check", *photos, "--model", model_file, *arguments, "spearman",
        "--out", tmp_path / "o",
    )  # fmt: skip
    assert code == 2 and errors[-1].endswith("No space left on device.")
    assert any(line.startswith("gradient  ") for line in lines)


def test_long_names_and_names_with_dollar_signs(photos, model_file, tmp_path, capsys):
    long = tmp_path / f"{'x' * 240}.png"
    long.write_bytes(photos[0].read_bytes())
    names = tmp_path / "names.txt"
    names.write_text("$a^$\n$\\frac{$\nc_1\n\\d\n\n")
    out = tmp_path / "o"
    for target in range(4):
        code, lines, errors = _run(
            capsys, "map", long, "--model", model_file, "--class-names", names,
            "--target", target, "--out", out, "--overwrite",
        )  # fmt: skip
        assert (code, errors) == (0, [])
    assert _files(out) == ["maps.npz", "run.json", f"{'x' * 200}.png"]
    assert "; explained: \\d (" in lines[0]


def test_methods_and_photos_in_any_order(photos, model_file, tmp_path, capsys):
    out = tmp_path / "o"
    code, _, _ = _run(
        capsys, "map", "--model", model_file, "--out", out,
        "--methods", "gradient,grad_cam", "zeiler_fergus", photos[0],
    )  # fmt: skip
    assert code == 0
    assert list(tfs.SaliencyMaps.load(out / "maps.npz")) == [
        "gradient",
        "grad_cam",
        "zeiler_fergus",
    ]
    code, _, (error,) = _run(capsys, "map", photos[0], "--methods", "gradient,grad_cma", "--out", 1)
    assert code == 2 and "Unknown method: 'grad_cma'. Did you mean 'grad_cam'?" in error
    code, _, (error,) = _run(capsys, "map", "--methods", "gradient", "--out", out)
    assert code == 2 and "the following arguments are required: PHOTO" in error
    code, _, (error,) = _run(capsys, "map", photos[0], "--out", "")
    assert code == 2 and "expected a folder, received an empty name" in error


def _process(*arguments, **environment):
    """The command line in a process of its own, without TensorFlow's variables."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tfsaliency", *map(str, arguments)],
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_help_is_printed_without_tensorflow():
    code = (
        "import sys, contextlib, io\n"
        "from tfsaliency.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['map', '--help'])\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")


@pytest.mark.parametrize(("own", "expected"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_onednn_is_on_unless_the_user_says_otherwise(own, expected):
    code = (
        "import os; from tfsaliency.cli import commands; commands._import_command('map')\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")} | own
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (run.stdout.strip(), without_progress(run.stderr)) == (expected, [])


def test_a_reader_that_leaves_is_no_error_of_the_run(photos, model_file, tmp_path):
    out = tmp_path / "o"
    run = _process("map", *photos, "--model", model_file, "--out", out)
    run.stdout.close()
    _, errors = run.communicate(timeout=120)
    # TensorFlow's log is quiet too.
    assert (run.returncode, without_progress(errors.decode())) == (0, [])
    assert len(tfs.SaliencyMaps.load(out / "maps.npz").names) == 5


def test_what_a_terminal_cannot_encode_is_escaped(photos, model_file, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("höhle\nbee\ncat\ndog\n", encoding="utf-8")
    run = _process(
        "map", photos[0], "--model", model_file, "--class-names", names, "--top", 4,
        "--out", tmp_path / "o", PYTHONIOENCODING="ascii",
    )  # fmt: skip
    lines, errors = run.communicate(timeout=120)
    assert (run.returncode, without_progress(errors.decode())) == (0, [])
    assert b"h\\xf6hle (" in lines
