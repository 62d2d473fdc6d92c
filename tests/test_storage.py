"""One file format for all results: saved files load, damaged files raise ResultError."""

import json
import os
import resource
import signal
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

import tfsaliency as tfs
from tfsaliency import storage, synthetic

KINDS = ("maps", "check", "evaluation")


@pytest.fixture(scope="module")
def results():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(3, 3, activation="relu", name="conv"),
         layers.Flatten(), layers.Dense(3, activation="softmax", name="top")]
    )  # fmt: skip
    photos = np.random.default_rng(0).normal(size=(3, 12, 12, 3))
    methods = ["gradient", tfs.IntegratedGradients(steps=1, max_steps=1)]
    maps = tfs.saliency_map(model, photos, methods, on_problem="ignore")
    known = synthetic.closed_form_model("linear", size=9)
    return {
        "maps": replace(maps, names=("a", "bé", "c")),
        "check": tfs.sanity_check(model, photos, randomizer="matched", seeds=2, verbose=0),
        "evaluation": tfs.evaluate(known.model, known.ground_truth(8, seed=0), "gradient"),
    }


def _parts(result):
    """All contents of a result, with arrays as bytes."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tobytes()
    if hasattr(result, "__dataclass_fields__"):
        return {name: _parts(getattr(result, name)) for name in result.__dataclass_fields__}
    if isinstance(result, dict):
        return {key: _parts(value) for key, value in result.items()}
    if isinstance(result, tuple):
        return [_parts(value) for value in result]
    return repr(result)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_read_as_it_was_written(kind, results, tmp_path):
    result, path = results[kind], tmp_path / "résultat 1"  # taken as it is: no suffix is added
    result.save(path)
    loaded = type(result).load(path)
    assert _parts(loaded) == _parts(result)
    assert str(loaded) == str(result) and repr(loaded) == repr(result)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    header = json.loads(np.load(path)["header"].item())
    assert header["kind"] == type(result).__name__
    assert (header["format"], header["version"]) == (storage.FORMAT, tfs.__version__)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_harmless(kind, results, tmp_path):
    """After a change of one byte, loading raises ResultError or returns the same contents."""
    result, path = results[kind], tmp_path / "result.npz"
    result.save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert _parts(type(result).load(path)) == _parts(result)
        except tfs.ResultError as error:
            assert f"Expected a file that {type(result).__name__}.save wrote." in str(error)
            refused += 1
    assert refused > 100
    for length in [*rng.integers(0, len(whole), 30), 0, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(tfs.ResultError):
            type(result).load(path)


def _rewritten(path, change_header=None, **arrays):
    """A file with another header or other arrays, and correct checksums."""
    with np.load(path) as file:
        stored = dict(file)
    header = json.loads(stored.pop("header").item())
    for name, value in (change_header or {}).items():
        header[name] = value
    stored.update(arrays)
    kept = {name: array for name, array in stored.items() if array is not None}
    np.savez_compressed(path.open("wb"), header=np.array(json.dumps(header)), **kept)


@pytest.mark.parametrize(
    ("kind", "header", "arrays"),
    [
        ("maps", {"kind": "SanityResult"}, {}),
        ("maps", {"format": 2}, {}),
        ("maps", {"score": 3}, {}),
        ("maps", {"methods": ["gradient"]}, {}),
        ("maps", {"methods": []}, {}),
        ("maps", {"names": ["a"]}, {}),
        ("maps", {"coverage": {}}, {}),
        ("maps", {"problems": [{"cause": "zero_map", "images": [9]}]}, {}),
        ("maps", {"problems": [{"cause": "zero_map", "images": "x"}]}, {}),
        ("maps", {}, {"targets": np.zeros(2, np.int32)}),
        ("maps", {}, {"targets": np.zeros(3)}),
        ("maps", {}, {"scores": np.zeros((3, 1))}),
        ("maps", {}, {"outputs": np.zeros((2, 3))}),
        ("maps", {}, {"images": np.zeros((3, 9, 12, 3))}),
        ("maps", {}, {"map:gradient": np.zeros((3, 12, 13))}),
        ("maps", {}, {"map:gradient": np.zeros((3, 12, 12), complex)}),
        ("maps", {}, {"map:another": np.zeros((3, 12, 12))}),
        ("maps", {}, {"map:gradient": None}),
        ("maps", {}, {"detail:gap:another": np.zeros(3)}),
        ("check", {"settings": "x"}, {}),
        ("check", {"settings": {"check": 1}}, {}),
        ("check", {"seeds": [0]}, {}),
        ("check", {"headline": 7}, {}),
        ("check", {"headline": "0"}, {}),
        ("check", {"verdicts": {}}, {}),
        ("check", {"verdicts": {"gradient": []}}, {}),
        ("check", {"explained_by": {"gradient": {"edges": 1}}}, {}),
        ("check", {"steps": [{"name": "conv"}]}, {}),
        ("check", {"shown_steps": [9, 9]}, {}),
        ("check", {}, {"values": np.zeros((1, 2, 6, 3, 1))}),
        ("check", {}, {"chance": None}),
        ("check", {}, {"shown_maps": np.zeros((1, 1, 12, 12))}),
        ("evaluation", {"metrics": ["pointing_game"]}, {}),
        ("evaluation", {"coverage": {"other": {"rule": "other", "relus": 1, "reached": 1}}}, {}),
        ("evaluation", {}, {"chance": np.zeros((4, 7))}),
        ("evaluation", {}, {"values": np.zeros((5, 4, 8), int)}),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(kind, header, arrays, results, tmp_path):
    path = tmp_path / "result.npz"
    results[kind].save(path)
    _rewritten(path, header, **arrays)
    with pytest.raises(tfs.ResultError, match="Expected a file that"):
        type(results[kind]).load(path)


ODD = [
    None,
    True,
    3,
    -1,
    0.5,
    "x",
    "",
    [],
    [1],
    ["x"],
    [[]],
    [None],
    {},
    {"a": 1},
    {"gradient": {}},
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_of_other_values_is_refused_or_prints(kind, results, tmp_path, monkeypatch):
    """A result that loads can be printed, inspected and saved again."""
    result, path = results[kind], tmp_path / "result.npz"
    result.save(path)
    arrays, header = storage._read(path, type(result).__name__)
    places = [(name,) for name in header if name not in ("kind", "format", "version")]
    for name, value in header.items():
        if isinstance(value, (dict, list)):
            keys = value if isinstance(value, dict) else range(len(value))
            places += [(name, key) for key in keys]
    refused = 0
    for place in places:
        for odd in ODD:
            changed = json.loads(json.dumps(header))
            target = changed if len(place) == 1 else changed[place[0]]
            target[place[-1]] = odd
            monkeypatch.setattr(storage, "_read", lambda *_, h=changed: (dict(arrays), h))
            try:
                loaded = type(result).load(path)
            except tfs.ResultError:
                refused += 1
                continue
            assert str(loaded) and repr(loaded)
            assert storage.to_plain(loaded)
    assert refused > 5 * len(places)


def _bomb(path):
    """An array whose header promises a terabyte."""
    with zipfile.ZipFile(path, "w") as archive:
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472,), }"
        head += b" " * (117 - len(head)) + b"\n"
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00v\x00" + head)


def _pickle(path):
    np.savez(path.open("wb"), header=np.array([{"kind": "SaliencyMaps"}], dtype=object))


def _deep(path):
    np.savez(path.open("wb"), header=np.array("[" * 100_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text('{"kind": "SaliencyMaps"}'),
        lambda path: path.write_bytes(b"\x93NUMPY" + b"\x00" * 40),
        lambda path: path.write_bytes(b"PK\x03\x04" + b"\xff" * 60),
        lambda path: path.mkdir(),
        lambda path: np.savez(path.open("wb"), images=np.zeros(3)),
        lambda path: np.savez(path.open("wb"), header=np.array("3")),
        lambda path: np.savez(path.open("wb"), header=np.zeros(3)),
        _bomb,
        _pickle,
        _deep,
    ],
)
def test_foreign_files_are_refused(write, tmp_path):
    path = tmp_path / "maps.npz"
    write(path)
    for kind in (tfs.SaliencyMaps, tfs.SanityResult, tfs.Evaluation):
        with pytest.raises(tfs.ResultError, match=f"Expected a file that {kind.__name__}.save"):
            kind.load(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        tfs.Evaluation.load(tmp_path / "none.npz")


@contextmanager
def _full_disk():
    """Let no file of this process grow beyond 3000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("export", ["save", "to_json", "to_csv"])
def test_a_full_disk_leaves_the_earlier_file(export, results, tmp_path):
    path = tmp_path / "result.npz"
    path.write_bytes(b"earlier")
    with _full_disk(), pytest.raises(OSError, match="File too large"):
        getattr(results["check"], export)(path)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("export", ["to_json", "to_csv"])
@pytest.mark.parametrize("kind", ["check", "evaluation"])
def test_an_export_that_fails_leaves_the_earlier_file(kind, export, results, tmp_path, monkeypatch):
    path = tmp_path / "result"
    path.write_text("earlier")

    def full(*_args, **_options):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            getattr(results[kind], export)(path)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]
    path.chmod(0o640)
    getattr(results[kind], export)(path)
    assert path.read_text() != "earlier" and path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link_and_a_pipe_is_written_to(results, tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    link.symlink_to(target)
    results["check"].to_csv(link)
    assert link.is_symlink() and target.read_text().startswith("method,step,similarity")
    results["check"].to_csv("/dev/null")


def test_json_holds_the_numbers(results, tmp_path):
    for kind in ("check", "evaluation"):
        results[kind].to_json(tmp_path / "result.json")
        stored = json.loads((tmp_path / "result.json").read_text())
        values = np.array(stored["values"], float)  # null becomes NaN
        np.testing.assert_array_equal(values, results[kind].values)
        assert stored["methods"] == list(results[kind].methods)
