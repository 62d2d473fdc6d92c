"""Runs over data sets: sources, parts, errors, stops, and what reads them."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.datasets import codes, parts, pipeline, run
from tfsaliency.datasets.folder import locked

METHODS = ["gradient", "grad_cam"]
N = 10


@pytest.fixture(scope="module")
def shapes():
    return synthetic.make_shapes(N, seed=4)


@pytest.fixture(scope="module")
def model():
    return synthetic.shapes_model()


@pytest.fixture
def folder(shapes, tmp_path):
    """PNG files in folders of their classes."""
    for i, image in enumerate(shapes.images):
        inside = tmp_path / "photos" / synthetic.CLASSES[shapes.labels[i]]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(inside / f"{i:02d}.png")
    return tmp_path / "photos"


def explain(model, source, out, methods=METHODS, **options):
    return tfs.explain_dataset(
        model, source, out, methods, **{"batch_size": 3, "part_size": 4, "verbose": 0, **options}
    )


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("part-*")}


def by_number(data):
    """The ids of the rows by the number in the name of their file."""
    ids = data.table(["id"]).column("id").to_pylist()
    return {int(name[-6:-4]): name for name in ids}


def test_rows_and_maps_are_those_of_saliency_map(model, folder, shapes, tmp_path):
    names = list(synthetic.CLASSES)
    data = explain(model, folder, tmp_path / "out", class_names=names)
    maps = tfs.saliency_map(model, shapes.images, METHODS, class_names=names, verbose=0)
    assert len(data) == N and data.complete and data.errors == 0 and len(data.log) == 3
    rows = {row["id"]: row for row in data.table().to_pylist()}
    for i, name in by_number(data).items():
        row, file = rows[name], folder / name
        assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert row["label"] == name.split("/")[0] and row["path"] == str(file)
        assert row["target"] == maps.targets[i] == maps.outputs[i].argmax()
        assert row["class_name"] == names[maps.targets[i]]
        np.testing.assert_allclose(row["score"], maps.scores[i], rtol=1e-5)
        np.testing.assert_allclose(row["confidence"], maps.outputs[i].max(), rtol=1e-5)
        assert row["error"] is None and row["problems"] == []
        for method in METHODS:
            got = data.maps(name)[method][0]
            peak = maps[method][i].max()
            assert np.abs(got - maps[method][i]).max() <= 1.02 * peak / 255
    assert [row["id"] for row in data] == data.table(["id"]).column("id").to_pylist()


def test_the_documented_line_decodes_without_this_package(model, shapes, tmp_path):
    """By DuckDB and pandas, with the line of the manifest."""
    import duckdb
    import pandas as pd

    methods = ["gradient", tfs.Method("signed", composition=tfs.InputXGradient(), reduction="sum")]
    for dtype in ("uint8", "float16"):
        out = tmp_path / dtype
        data = explain(model, list(shapes.images), out, methods, dtype=dtype)
        manifest = json.loads((out / "manifest.json").read_text())
        frame = pd.concat(pd.read_parquet(p) for p in sorted(out.glob("part-*.parquet")))
        query = f"select id, signed.peak as peak from '{out}/*.parquet' order by id"
        peaks = dict(duckdb.sql(query).fetchall())
        for _, row in frame.iterrows():
            for method, code in manifest["codes"].items():
                scope = {"numpy": np, **row[method]}
                decoded = eval(manifest["decoding"][code], scope)
                np.testing.assert_allclose(decoded, data.maps(row["id"])[method][0], rtol=1e-6)
            assert peaks[row["id"]] == row["signed"]["peak"] > 0
        assert (data.maps(data.table(["id"]).column("id").to_pylist())["signed"] < 0).any()


@pytest.mark.parametrize(
    ("code", "bound"), [("sqrt_uint8", 1 / 255), ("signed_sqrt_int8", 1 / 127), ("float16", 5e-4)]
)
def test_a_code_is_within_its_error_and_keeps_zero_and_the_peak(code, bound):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 30, 40)).astype(np.float32) ** 3
    if code != "signed_sqrt_int8":
        maps = np.abs(maps)
    maps[1] = 0
    maps[2, 3, 4] = np.nan
    maps[3] *= 1e-30
    encoded, peaks = codes.encode_maps(maps, code)
    for i in (0, 3, 4):
        got = codes.decode_map(encoded[i], peaks[i], (30, 40), code)
        peak = np.abs(maps[i]).max()
        assert peaks[i] == peak
        assert (
            np.abs(got - maps[i]).max()
            <= bound * peak * 1.01
            <= codes.largest_error(code) * 1.1 * peak
        )
        assert (got[np.abs(maps[i]) == peak] == maps[i][np.abs(maps[i]) == peak]).all()
    assert not codes.decode_map(encoded[1], peaks[1], (30, 40), code).any()
    assert np.isnan(codes.decode_map(encoded[2], peaks[2], (30, 40), code)).all()


def test_codes_are_signed_only_where_maps_may_be():
    methods = {
        "gradient": (None, "sqrt_uint8"),
        "grad_cam": (None, "sqrt_uint8"),
        "var_grad": (None, "sqrt_uint8"),
        "input_x_gradient": ("sum", "signed_sqrt_int8"),
        "smooth_grad": ("sum", "signed_sqrt_int8"),
    }
    for name, (reduction, code) in methods.items():
        assert codes.choose_code(tfs.METHODS[name], reduction, "uint8") == code
    signed = tfs.Method("signed", composition=tfs.CAM(relu=False))
    assert codes.choose_code(signed, None, "uint8") == "signed_sqrt_int8"


def _sources(folder, shapes, tmp_path):
    """Sources of the same pictures in the same order, by kind."""
    files = sorted(str(p) for p in folder.rglob("*.png"))
    order = [int(p[-6:-4]) for p in files]
    images, labels = shapes.images[order].astype(np.uint8), shapes.labels[order]
    (tmp_path / "list.txt").write_text("\n".join(files) + "\n")
    with open(tmp_path / "table.csv", "w", newline="") as file:
        rows = [[i, p, labels[k]] for k, (i, p) in enumerate(zip(order, files, strict=True))]
        csv.writer(file).writerows([["id", "path", "label"], *rows])
    table = pa.table(
        {"id": list(map(str, order)), "label": labels,
         "image": [{"bytes": Path(p).read_bytes(), "path": p} for p in files]}
    )  # fmt: skip
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=3)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            part = slice(3 * i, 3 * i + 3)
            return images[part], labels[part], np.ones(len(labels[part]))

    return {
        "folder": folder,
        "pattern": str(folder / "*" / "*.png"),
        "text": tmp_path / "list.txt",
        "CSV": tmp_path / "table.csv",
        "Parquet": tmp_path / "images.parquet",
        "paths": files,
        "PIL": [Image.fromarray(each) for each in images],
        "array": images,
        "generator": ((f"number {i}", x) for i, x in zip(order, images, strict=True)),
        "tf.data": pairs,
        "tf.data in batches": pairs.batch(3),
        "tf.data of mappings": pairs.map(lambda x, y: {"image": x, "label": y}).batch(4),
        "triples": [(str(i), x, y) for i, x, y in zip(order, images, labels, strict=True)],
        "PyDataset": Batches(workers=1),
    }


KINDS = [
    *("folder", "pattern", "text", "CSV", "Parquet", "paths", "PIL", "array", "generator"),
    *("tf.data", "tf.data in batches", "tf.data of mappings", "triples", "PyDataset"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_all_sources_give_the_same_maps(kind, model, folder, shapes, tmp_path):
    sources = _sources(folder, shapes, tmp_path)
    assert list(sources) == KINDS
    data = explain(model, sources[kind], tmp_path / "out", "gradient", batch_size=4)
    order = [int(p.name[:2]) for p in sorted(folder.rglob("*.png"))]
    expected = tfs.saliency_map(model, shapes.images[order], verbose=0, batch_size=4)["gradient"]
    got = np.stack([row["maps"]["gradient"] for row in data])
    assert np.abs(got - expected).max() <= 1.02 / 255 * expected.max()
    ids = data.table(["id"]).column("id").to_pylist()
    assert len(set(ids)) == N
    if kind in ("CSV", "Parquet", "triples"):
        assert ids == list(map(str, order))
    labels = data.table(["label"]).column("label").to_pylist()
    if kind.startswith("tf.data") or kind in ("CSV", "Parquet", "triples", "PyDataset"):
        assert labels == [str(shapes.labels[i]) for i in order]
    # What is there is not computed again.
    if kind != "generator":
        before = digests(tmp_path / "out")
        again = _sources(folder, shapes, tmp_path)[kind]
        assert explain(model, again, tmp_path / "out", "gradient", batch_size=4).complete
        assert digests(tmp_path / "out") == before


@pytest.mark.filterwarnings("ignore:Maps mean little")  # of an image whose evidence is negative
def test_labels_are_targets_by_number_and_by_name(model, folder, shapes, tmp_path):
    names = list(synthetic.CLASSES)
    by_name = explain(model, folder, tmp_path / "a", targets="labels", class_names=names)
    wanted = {n: shapes.labels[i] for i, n in by_number(by_name).items()}
    table = by_name.table(["id", "target"]).to_pydict()
    assert dict(zip(table["id"], table["target"], strict=True)) == wanted
    # Without names, classes are numbered as in image_dataset_from_directory.
    fewer = shutil.copytree(folder, tmp_path / "fewer")
    shutil.rmtree(fewer / names[shapes.labels[0]])
    with pytest.raises(tfs.OptionError, match="Expected 8 names of labels"):
        explain(model, fewer, tmp_path / "b", targets="labels")
    for name in names:  # also of a class without pictures
        (folder / name).mkdir(exist_ok=True)
    sorted_names = sorted(names)
    table = explain(model, folder, tmp_path / "d", targets="labels").table(["label", "target"])
    for label, target in zip(*table.to_pydict().values(), strict=True):
        assert sorted_names[target] == label
    other = [(str(i), image, 2 if i else 99) for i, image in enumerate(shapes.images)]
    data = explain(model, other, tmp_path / "c", targets="labels")
    rows = data.table(["target", "error"]).to_pylist()
    assert [row["target"] for row in rows] == [None] + [2] * (N - 1)
    assert "below 8" in rows[0]["error"] and "99" in rows[0]["error"]


def test_a_bad_image_is_a_row_and_is_tried_again(model, folder, shapes, tmp_path):
    out = tmp_path / "out"
    files = sorted(folder.rglob("*.png"))
    good = explain(model, folder, tmp_path / "good")
    whole = [files[1].read_bytes(), files[6].read_bytes()]
    files[1].write_bytes(whole[0][:200])
    files[6].write_bytes(b"no image")
    with pytest.raises(tfs.ErrorLimitError, match="at most 1 images with errors. Received: 2"):
        explain(model, folder, out, max_errors=1)
    assert explain(model, folder, tmp_path / "exact", max_errors=2).errors == 2
    data = explain(model, folder, out, max_errors=2)
    rows = data.table().to_pylist()
    assert len(rows) == N and data.errors == 2
    assert [i for i, row in enumerate(rows) if row["error"] is not None] == [1, 6]
    assert str(files[1]) in rows[1]["error"] and rows[1]["target"] is None
    assert rows[6]["sha256"] == hashlib.sha256(b"no image").hexdigest()
    with pytest.raises(tfs.OptionError, match="which has the error"):
        data.maps(rows[6]["id"])

    files[1].write_bytes(whole[0])
    before = {i: parts.read_rows(out, i) for i in range(3)}
    last = digests(out)["part-000002.parquet"]
    again = explain(model, folder, out, retry_errors=True)
    assert again.errors == 1 and digests(out)["part-000002.parquet"] == last
    after = {i: parts.read_rows(out, i) for i in range(3)}
    for number in (0, 1):
        for method in METHODS:
            same = [
                a == b
                for a, b in zip(
                    before[number].maps[method], after[number].maps[method], strict=True
                )
            ]
            assert same == [(number, i) != (0, 1) for i in range(len(same))]
    np.testing.assert_allclose(
        again.maps(rows[1]["id"])["gradient"], good.maps(rows[1]["id"])["gradient"], atol=1e-4
    )
    files[6].write_bytes(whole[1])
    assert explain(model, folder, out, retry_errors=True).errors == 0
    assert tfs.verify(out, model, sample=None, verbose=0).confirmed


def test_the_rows_that_were_tried_again_are_in_the_log(model, folder, tmp_path):
    """verify needs them: their batches were others."""
    files = sorted(folder.rglob("*.png"))
    whole = files[1].read_bytes()
    files[1].write_bytes(b"no image")
    explain(model, folder, tmp_path / "out")
    files[1].write_bytes(whole)
    data = explain(model, folder, tmp_path / "out", retry_errors=True)
    batches = [list(map(list, entry.batches)) for entry in data.log.values()]
    assert batches == [[[0, 2, 3], [1]], [[0, 1, 2], [3]], [[0, 1]]]
    assert data.errors == 0 and tfs.verify(data, model, sample=None, verbose=0).confirmed


def test_an_array_that_the_model_refuses_is_a_row(model, shapes, tmp_path):
    images = [np.array(image) for image in shapes.images]
    images[2][0, 0, 0] = np.nan
    images[5] = images[5][:30]
    images[7] = "no image"
    data = explain(model, [{"image": image} for image in images], tmp_path / "out")
    errors = data.table(["error"]).column("error").to_pylist()
    assert [i for i, error in enumerate(errors) if error] == [2, 5, 7]
    assert "NaN" in errors[2] and "(64, 64, 3)" in errors[5] and "no such file" in errors[7]


class _Stops:
    """A source of pictures that ends the process's work at one of them."""

    def __init__(self, images, at):
        self.images, self.at, self.fetched = images, at, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i == self.at:
            raise KeyboardInterrupt
        self.fetched.append(i)
        return f"picture {i}", self.images[i]


def test_a_run_continues_with_what_is_missing(model, shapes, tmp_path):
    whole = explain(model, _Stops(shapes.images, None), tmp_path / "whole")
    out = tmp_path / "out"
    source = _Stops(shapes.images, 9)
    with pytest.raises(KeyboardInterrupt):
        explain(model, source, out)
    done = digests(out)
    assert 0 < len(done) < 3
    source.at, source.fetched = None, []
    data = explain(model, source, out)
    numbers = sorted(int(name[5:11]) for name in done)
    samples = [4 * number for number in {numbers[0], numbers[-1]}]  # compared with their rows
    missing = [i for i in range(N) if i // 4 not in numbers]
    assert sorted(source.fetched) == sorted(samples + missing)
    assert digests(out) == digests(tmp_path / "whole") and len(data) == len(whole) == N


def test_a_stream_must_yield_the_same_images_again(model, shapes, tmp_path):
    pairs = [(f"picture {i}", image) for i, image in enumerate(shapes.images)]
    explain(model, iter(pairs), tmp_path / "out")
    (tmp_path / "out" / "part-000001.parquet").unlink()
    with pytest.raises(tfs.ResultError, match="part-000000.parquet.*Received: 4 others"):
        explain(model, iter(pairs[::-1]), tmp_path / "out")
    assert len(explain(model, iter(pairs), tmp_path / "out")) == N


def test_other_images_are_not_mixed_in(model, shapes, tmp_path):
    """Of a source without a digest, the first images of two parts are compared."""
    out = tmp_path / "out"
    explain(model, shapes.images, out)
    (out / "part-000001.parquet").unlink()
    before = digests(out)
    with pytest.raises(tfs.ResultError, match="'0' as the first image of part-000000.parquet"):
        explain(model, shapes.images[::-1], out)
    assert digests(out) == before
    assert explain(model, shapes.images, out).complete
    pairs = [(f"picture {i}", image) for i, image in enumerate(shapes.images)]
    explain(model, iter(pairs), tmp_path / "stream")
    with pytest.raises(tfs.ResultError, match="part-000002.parquet.*ends before"):
        explain(model, iter(pairs[:8]), tmp_path / "stream")
    with pytest.raises(tfs.ResultError, match="1 repeated ids"):
        explain(model, [*pairs, pairs[0]], tmp_path / "twice")


def test_elements_that_cannot_be_read_are_rows(model, shapes, tmp_path):
    """No image under its key, a label that is NaN, and names that are no text."""
    rows = [
        {"id": "none", "image": None, "label": 1},
        {"id": "nan", "image": shapes.images[0], "label": float("nan")},
        {"id": "caf\udce9", "image": shapes.images[1], "label": "caf\udce9"},
        {"id": "file", "image": "caf\udce9.png"},
    ]
    data = explain(model, rows, tmp_path / "out")
    table = data.table(["id", "label", "error"]).to_pylist()
    assert [row["id"] for row in table] == ["none", "nan", "caf\\udce9", "file"]
    assert [row["label"] for row in table] == ["1", None, "caf\\udce9", None]
    assert [row["error"] is None for row in table] == [False, True, True, False]
    assert "caf\\udce9.png: no such file" in table[3]["error"]
    assert tfs.verify(data, model, rows, sample=None, verbose=0).confirmed


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"methods": ["gradient"]},
            r"methods: \['gradient'\], recorded \['gradient', ",
        ),
        ({"methods": ["gradient", tfs.CAM(relu=False)]}, "methods.grad_cam.relu: False, recorded"),
        ({"batch_size": 5}, "parameters.batch_size: 5, recorded 3"),
        ({"part_size": 5}, "part_size: 5, recorded 4"),
        ({"dtype": "float16"}, "codes"),
        ({"score": "margin"}, "parameters.score: margin, recorded None"),
        ({"preprocess": lambda x: x + 1}, "parameters.preprocess"),
        ({"targets": 3}, "parameters.targets: 3, recorded None"),
        ({"reduction": "max_abs"}, "parameters.reduction"),
    ],
)
def test_another_runs_options_are_refused_by_name(options, named, model, shapes, tmp_path):
    images = list(shapes.images)
    explain(model, images, tmp_path / "out")
    before = digests(tmp_path / "out")
    with pytest.raises(tfs.OptionError, match=named):
        explain(model, images, tmp_path / "out", **options)
    assert digests(tmp_path / "out") == before


def test_another_model_or_source_is_refused_by_name(model, folder, shapes, tmp_path):
    out = tmp_path / "out"
    explain(model, folder, out)
    other = keras.models.clone_model(model)
    weights = [each.copy() for each in model.get_weights()]
    weights[4][0, 0, 0, 1] += 1e-3
    other.set_weights(weights)
    path = model.weights[4].path
    with pytest.raises(tfs.OptionError, match=f"model.weights.{path}: "):
        explain(other, folder, out)
    other.set_weights(model.get_weights())
    assert explain(other, folder, out).complete
    shutil.copy(next(folder.rglob("*.png")), folder / "one more.png")
    with pytest.raises(tfs.OptionError, match=r"source.images: 11, recorded 10; source.digest"):
        explain(model, folder, out)


def test_only_one_run_at_a_time(model, shapes, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(tfs.OptionError, match="no other run"):
        explain(model, list(shapes.images), tmp_path / "out")
    assert len(explain(model, list(shapes.images), tmp_path / "out")) == N


def test_an_option_that_fails_for_all_images_ends_the_run(folder, shapes, tmp_path):
    image = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    any_size = keras.Model(image, keras.layers.Dense(3)(pooled))
    options = {"targets": 0, "score": "logit"}
    with pytest.raises(tfs.OptionError, match="fixed input size"):
        explain(any_size, folder, tmp_path / "a", "gradient", **options)
    sized = explain(any_size, folder, tmp_path / "b", "gradient", size=(20, 30), **options)
    assert sized.errors == 0
    assert next(iter(sized))["maps"]["gradient"].shape == (20, 30)
    sizes = [shapes.images[0], shapes.images[1][:40], shapes.images[2][:40], shapes.images[3]]
    data = explain(any_size, sizes, tmp_path / "c", "gradient", **options)
    for row, each in zip(data, sizes, strict=True):
        own = tfs.saliency_map(any_size, each, verbose=0, **options)["gradient"][0]
        assert np.abs(row["maps"]["gradient"] - own).max() <= 1.02 / 255 * own.max()
    with pytest.raises(tfs.OptionError, match="under one of the keys"):
        explain(any_size, [{"picture": shapes.images[0]}], tmp_path / "d", "gradient", **options)
    with pytest.raises(tfs.OptionError, match="Expected images in the iterable"):
        explain(any_size, iter([]), tmp_path / "e", "gradient", **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere, no such file"),
        ("*.tiff", "Expected images in the pattern"),
        (["a.png", "b.png", "a.png"], "1 repeated ids, such as a.png"),
        ([], "Expected images"),
        (7, "Received: int"),
        (b"bytes", "Received: bytes"),
        (np.zeros((64, 64, 3)), "Received: ndarray"),
        ("model.keras", "Received: the file"),
        ("columns.csv", "Expected a column path"),
        ("ragged.csv", "Expected 2 cells in each row"),
        ("empty", "Expected images in the folder"),
        ("other.parquet", "Expected a column of image bytes"),
    ],
)
def test_what_is_no_source_is_refused(source, message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").write_text("")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "ragged.csv").write_text("path,label\nx.png\n")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(tfs.OptionError, match=message):
        explain(model, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_refused_before_the_start(model, shapes, tmp_path):
    images = list(shapes.images)
    for options, message in (
        ({"part_size": 0}, "part_size"),
        ({"workers": 0}, "workers"),
        ({"max_errors": -1}, "max_errors"),
        ({"engine": "spark"}, "Unknown engine: 'spark'"),
        ({"dtype": "float32"}, "Unknown dtype"),
        ({"methods": [tfs.Method("score")]}, "those of columns"),
        ({"retry_errors": "yes"}, "retry_errors"),
        ({"targets": [1, 0]}, "one class for all images"),
    ):
        with pytest.raises(tfs.OptionError, match=message):
            explain(model, images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(tfs.OptionError, match="Received: the file"):
        explain(model, images, tmp_path / "file")


def test_reading_and_decoding_are_ahead_but_not_far(model, shapes, tmp_path, monkeypatch):
    """At most two batches are decoded before they are needed, however large the source."""
    held = {"now": 0, "most": 0}
    decode, explained = run.Explainer.decode, run.Explainer.explain

    def counted(self, fetch, number):
        held["now"] += 1
        held["most"] = max(held["most"], held["now"])
        return decode(self, fetch, number)

    def released(self, checked):
        held["now"] -= len(checked.batch)
        return explained(self, checked)

    monkeypatch.setattr(run.Explainer, "decode", counted)
    monkeypatch.setattr(run.Explainer, "explain", released)
    images = np.repeat(shapes.images, 10, axis=0)
    explain(model, images, tmp_path / "out", "gradient", batch_size=4, part_size=32)
    assert held["now"] == 0
    assert 4 < held["most"] <= (pipeline._AHEAD + 3) * 4


def test_without_pyarrow_the_extra_is_named(model, shapes, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    from tfsaliency.datasets.arrow import import_pyarrow

    import_pyarrow.cache_clear()
    for call in (
        lambda: explain(model, list(shapes.images), tmp_path / "out"),
        lambda: tfs.open_dataset(tmp_path),
    ):
        with pytest.raises(ImportError, match="pip install pyarrow"):
            call()
    import_pyarrow.cache_clear()


@pytest.mark.slow
def test_a_hugging_face_data_set_is_read_as_bytes(model, folder, shapes, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = sorted(str(p) for p in folder.rglob("*.png"))
    source = datasets.Dataset.from_dict({"image": files, "label": list(range(N))}).cast_column(
        "image", datasets.Image()
    )
    data = explain(model, source, tmp_path / "out", "gradient")
    table = data.table(["sha256", "label", "path"]).to_pydict()
    assert table["sha256"] == [parts.digest_file(p) for p in files]
    assert table["label"] == list(map(str, range(N)))
    read = datasets.load_dataset("parquet", data_files=str(tmp_path / "out" / "*.parquet"))
    assert read["train"]["sha256"] == table["sha256"]
