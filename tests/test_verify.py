"""verify: a result that is computed again, and every kind of change, found and named."""

import shutil
from dataclasses import replace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.datasets import verification
from tfsaliency.records import digest_model, record
from tfsaliency.synthetic import GroundTruth

METHODS = ["gradient", tfs.SmoothGrad(samples=3), "grad_cam"]
N = 12


def halve(images):
    return images / 2


@pytest.fixture(scope="module")
def model():
    return synthetic.shapes_model()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(synthetic.make_shapes(N, seed=9).images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def recorded(model, photos, tmp_path_factory):
    """A run of 12 photos in batches of 4, in 2 parts."""
    out = tmp_path_factory.mktemp("run") / "out"
    options = {"preprocess": halve, "batch_size": 4, "part_size": 8, "verbose": 0}
    tfs.explain_dataset(model, photos, out, METHODS, **options)
    return out


def verify(result, model, data=None, **options):
    return tfs.verify(result, model, data, **{"verbose": 0, "preprocess": halve, **options})


def names(verification):
    return [difference.name for difference in verification.differences]


def changed(model, place=4, by=1e-3):
    """The model with one weight changed."""
    other = keras.models.clone_model(model)
    weights = [each.copy() for each in model.get_weights()]
    weights[place].flat[0] += by
    other.set_weights(weights)
    return other


def test_the_same_computation_is_confirmed(model, recorded):
    found = verify(recorded, model, sample=None)
    assert found.confirmed and str(found).startswith("confirmed: ")
    assert "12 images computed again, bit by bit" in found.compared and found.notes == ()
    some = verify(recorded, model, sample=5)
    assert some.confirmed and "8 images computed again" in some.compared


def test_one_weight_is_named(model, recorded):
    found = verify(recorded, changed(model), sample=None)
    assert names(found)[0] == f"model.weights.{model.weights[4].path}"
    assert not any(name.startswith("model.weights") for name in names(found)[1:])
    assert "map gradient of 00.png" in names(found)


def test_one_pixel_of_one_photo_is_named(model, recorded, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    image = Image.open(tmp_path / "photos" / "06.png")
    red, green, blue = image.getpixel((30, 30))
    image.putpixel((30, 30), (red ^ 1, green, blue))
    image.save(tmp_path / "photos" / "06.png")
    found = verify(recorded, model, tmp_path / "photos", sample=None)
    assert names(found)[0] == "bytes of 06.png"
    assert {name.split(" of ")[1] for name in names(found)} == {"06.png"}
    assert "map gradient of 06.png" in names(found)


def test_another_method_parameter_is_named(model, recorded):
    found = verify(recorded, model, methods=["gradient", tfs.SmoothGrad(samples=4), "grad_cam"])
    assert names(found)[0] == "methods.smooth_grad.samples"
    assert str(found.differences[0]).endswith(": 4, recorded 3")
    assert {name.split(" of ")[0] for name in names(found)[1:]} == {"map smooth_grad"}


@pytest.mark.parametrize("field", ["codes", "peak", "target", "score", "id"])
def test_what_was_tampered_with_is_named(field, model, recorded, tmp_path):
    """It is found in any sample: a part whose bytes differ is computed again completely."""
    shutil.copytree(recorded, tmp_path / "out")
    path = tmp_path / "out" / "part-000001.parquet"
    table = pq.read_table(path)
    columns = table.to_pydict()
    if field in ("codes", "peak"):
        row = columns["grad_cam"][2]
        data = bytearray(row["codes"])
        data[2000] ^= 16
        row.update({"codes": bytes(data)} if field == "codes" else {"peak": row["peak"] * 1.001})
    elif field == "id":
        columns["id"][2] = "another.png"
    else:
        columns[field][2] += 1
    pq.write_table(pa.table(columns, schema=table.schema), path)
    found = verify(tmp_path / "out", model, sample=1)
    what = {"codes": "map grad_cam", "peak": "map grad_cam", "id": "image"}.get(field, field)
    name = "another.png" if field == "id" else "10.png"
    second = f"image {name}" if field == "id" else f"{what} of {name}"
    assert names(found) == ["bytes of part-000001.parquet", second]


def test_parts_without_a_line_in_the_log_are_not_confirmed(model, recorded, tmp_path):
    """Their digest would be compared with itself."""
    shutil.copytree(recorded, tmp_path / "out")
    log = tmp_path / "out" / "parts.jsonl"
    _, *others = log.read_text().splitlines(keepends=True)
    log.write_text("".join(others))
    assert names(verify(tmp_path / "out", model)) == ["digest of part-000000.parquet"]


def test_missing_parts_and_other_preprocessing_are_named(model, recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "out")
    (tmp_path / "out" / "part-000000.parquet").unlink()
    found = verify(tmp_path / "out", model)
    assert names(found) == ["rows"] and "4, the run is not finished" in str(found)
    other = verify(recorded, model, preprocess=lambda x: x / 2)
    assert names(other)[0] == "parameters.preprocess.function"
    prepared = tfs.prepare(model, score="margin", preprocess=halve)
    assert names(verify(recorded, prepared, preprocess=None))[0] == "parameters.score"
    with pytest.raises(tfs.OptionError, match="in prepare"):
        verify(recorded, prepared)
    with pytest.raises(tfs.OptionError, match=r"preprocess, as recorded: .*halve"):
        tfs.verify(recorded, model)


def test_a_folder_may_move_and_a_pattern_be_relative(model, photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "a")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    options = {"batch_size": 4, "part_size": 8, "verbose": 0}
    tfs.explain_dataset(model, tmp_path / "a", tmp_path / "run", **options)
    monkeypatch.chdir(tmp_path)
    tfs.explain_dataset(model, "a/*.png", "pattern", **options)
    monkeypatch.chdir(photos)
    assert verify(tmp_path / "pattern", model, sample=None, preprocess=None).confirmed
    (tmp_path / "a").rename(tmp_path / "b")
    moved = verify(tmp_path / "run", model, tmp_path / "b", sample=None, preprocess=None)
    assert moved.confirmed, str(moved)


def test_a_batch_without_the_images_that_the_model_refuses(model, tmp_path):
    """They take no place in it, so the others are computed again in the same batches."""
    images = list(synthetic.make_shapes(12, seed=3).images)
    images[1], images[2] = images[1] * np.nan, images[2][:30]
    out = tmp_path / "out"
    tfs.explain_dataset(model, images, out, "smooth_grad", batch_size=4, verbose=0)
    assert tfs.open_dataset(out).errors == 2
    assert verify(out, model, images, sample=None, preprocess=None).confirmed


def test_sizes_errors_and_ends_of_a_source_are_seen(shapes_of_two_sizes, tmp_path):
    model, images, options = shapes_of_two_sizes
    out = tmp_path / "out"
    tfs.explain_dataset(model, images, out, "gradient", **options)
    assert verify(out, model, images, sample=None, preprocess=None).confirmed
    good = list(images)
    good[3] = good[2]
    found = verify(out, model, good, sample=None, preprocess=None)
    assert names(found) == ["bytes of 3", "error of 3"]
    stream = verify(out, model, iter(images[:8]), sample=None, preprocess=None)
    assert names(stream)[-1] == "rows of part-000001.parquet"
    assert str(stream.differences[-1]).endswith("none in the source, recorded 4")
    (out / "part-000001.parquet").write_bytes(b"damaged")
    damaged = verify(out, model, images, sample=None, preprocess=None)
    assert names(damaged) == ["bytes of part-000001.parquet", "rows of part-000001.parquet"]


@pytest.fixture
def shapes_of_two_sizes():
    """A model of any size, images of two sizes and one that is damaged, and options."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(image)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(hidden))
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 1, (20 + 4 * (i in (1, 2, 6, 7, 8)), 24, 3)) for i in range(12)]
    images[3] = b"no image"
    options = {"targets": 0, "score": "logit", "batch_size": 2, "part_size": 8, "verbose": 0,
               "size": (8, 8)}  # fmt: skip
    return keras.Model(image, outputs), images, options


def test_with_another_version_there_is_a_tolerance(model, recorded, tmp_path, monkeypatch):
    shutil.copytree(recorded, tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert '"tensorflow": "' in text
    monkeypatch.setattr(
        verification, "describe_versions", lambda: {**verify_versions, "tensorflow": "9.9"}
    )
    verify_versions = tfs.open_dataset(recorded).record.versions
    found = verify(tmp_path / "out", model, sample=None)
    assert found.confirmed and "of their norm" in found.compared
    assert found.notes[0].startswith("tensorflow 9.9, recorded ")
    # A change of a weight that moves maps by less than the tolerance is still found in the digest.
    assert names(verify(tmp_path / "out", changed(model, by=1e-6), sample=None)) == [
        f"model.weights.{model.weights[4].path}"
    ]
    assert len(names(verify(tmp_path / "out", changed(model, by=0.3), sample=None))) > 20


def test_saliency_maps_are_computed_again_from_their_file(model, tmp_path):
    images = synthetic.make_shapes(5, seed=3).images
    prepared = tfs.prepare(model, preprocess=halve, score="margin", digest=True)
    for function in (tfs.saliency_map, tfs.attributions):
        maps = function(prepared, images, METHODS, targets=[1, 2, 3, 4, 5], batch_size=2, verbose=0)
        maps.save(tmp_path / "maps.npz")
        found = verify(tmp_path / "maps.npz", model)
        assert found.confirmed and found.notes == ()
        other = {**maps.maps, "gradient": maps["gradient"] * 1.0001}
        assert names(verify(replace(maps, maps=other), prepared, preprocess=None)) == [
            f"map gradient of image {i}" for i in range(5)
        ]
        assert names(verify(maps, changed(model)))[0].startswith("model.weights.")
    reduced = tfs.saliency_map(model, images, reduction="max_abs", verbose=0)
    assert verify(reduced, model, preprocess=None).confirmed
    pair = replace(reduced, record=replace(reduced.record, parameters={"region": "1234"}))
    with pytest.raises(tfs.OptionError, match="depends on its images alone.*region"):
        verify(pair, model, preprocess=None)
    with pytest.raises(tfs.ResultError, match="earlier version"):
        verify(replace(reduced, record=None), model)


def test_a_check_and_its_verdicts_are_computed_again(model, tmp_path):
    images = synthetic.make_shapes(8, seed=3).images
    result = tfs.sanity_check(
        model, images, ["gradient", "guided_backprop"], plan=["conv8", ("conv8", "conv1")],
        seeds=[3, 5], randomizer="he", similarities=["pearson"], baseline=0.5, verbose=0,
    )  # fmt: skip
    result.save(tmp_path / "result.npz")
    found = verify(tmp_path / "result.npz", model, images, preprocess=None)
    assert found.confirmed and "all verdicts" in found.compared
    other = images.copy()
    other[3, 10, 10, 0] = 255 - other[3, 10, 10, 0]
    assert names(verify(result, model, other, preprocess=None))[0] == "pixels of image 3"
    seeds = {**result.record.parameters, "seeds": [3, 6]}
    assert "values" in names(
        verify(replace(result, record=replace(result.record, parameters=seeds)), model, images,
               preprocess=None)
    )  # fmt: skip
    first = result.verdicts["gradient"]
    wrong = {
        **result.verdicts,
        "gradient": (replace(first[0], verdict="does not depend"), first[1]),
    }
    assert names(verify(replace(result, verdicts=wrong), model, images, preprocess=None)) == [
        "verdict on gradient at conv8"
    ]
    logit = tfs.random_logit_check(model, images, seeds=2, verbose=0)
    assert verify(logit, model, images, preprocess=None).confirmed
    with pytest.raises(tfs.OptionError, match="Expected data, the 8 images"):
        verify(result, model, preprocess=None)


def test_an_evaluation_is_computed_again(model, tmp_path):
    data = synthetic.make_shapes(8, seed=3)
    result = tfs.evaluate(model, data, "gradient", seed=4, verbose=0)
    result.save(tmp_path / "metrics.npz")
    assert verify(tmp_path / "metrics.npz", model, data, preprocess=None).confirmed
    masks = data.masks.copy()
    masks[0, 0, 0] ^= True
    moved = GroundTruth(data.images, data.labels, masks)
    found = names(verify(result, model, moved, preprocess=None))
    assert found[0] == "masks" and "values" in found


def test_what_is_no_result_is_refused(model, recorded, tmp_path):
    (tmp_path / "file.npz").write_bytes(b"damaged")
    with pytest.raises(tfs.ResultError, match="damaged"):
        verify(tmp_path / "file.npz", model)
    with pytest.raises(tfs.OptionError, match="which is none"):
        verify(tmp_path / "nothing", model)
    with pytest.raises(tfs.OptionError, match="Received: 7"):
        verify(7, model)
    with pytest.raises(tfs.OptionError, match="sample"):
        verify(recorded, model, sample=0)
    own = tfs.saliency_map(
        model, np.zeros((1, 64, 64, 3)), tfs.Method("own", lambda u, site: u), verbose=0
    )
    with pytest.raises(
        tfs.OptionError, match="the function .*of which only the name.*Pass the methods"
    ):
        verify(own, model, preprocess=None)
    again = verify(own, model, preprocess=None, methods=tfs.Method("own", lambda u, site: u))
    assert again.confirmed


def test_digests_do_not_depend_on_names_and_seeds():
    def build():
        return keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Dropout(0.5),
             keras.layers.Flatten(), keras.layers.Dense(2)]
        )  # fmt: skip

    first, second = build(), build()
    second.set_weights(first.get_weights())
    assert [a.name for a in first.layers] != [b.name for b in second.layers]
    one, two = digest_model(first), digest_model(second)
    assert (one.architecture, one.weights) == (two.architecture, two.weights)
    weights = first.get_weights()
    second.set_weights([weights[0].transpose(1, 0, 2, 3), *weights[1:]])
    assert digest_model(second).weights != one.weights
    other = keras.Sequential([*first.layers[:2], keras.layers.ReLU(), *first.layers[2:]])
    assert digest_model(other).architecture != one.architecture
    assert digest_model(other).weights == one.weights
    assert digest_model(lambda x: x).weights == ""


def test_an_evaluation_without_masks_is_computed_again(model, tmp_path):
    images = synthetic.make_shapes(8, seed=3).images
    own = tfs.Metric("short", tfs.Deletion("mean", steps=4))
    metrics = ["insertion", own, "sensitivity_n", "sparseness"]
    result = tfs.evaluate(model, images, "gradient", metrics=metrics, targets=2, verbose=0)
    result.save(tmp_path / "metrics.npz")
    assert verify(tmp_path / "metrics.npz", model, images, preprocess=None).confirmed
    other = replace(result, values=result.values * 1.01)
    assert names(verify(other, model, images, preprocess=None)) == ["values"]
    with pytest.raises(tfs.OptionError, match="the images of the evaluation"):
        verify(result, model, synthetic.make_shapes(8, seed=3), preprocess=None)

    def of_ones_own(maps, context):
        return maps.sum(axis=(1, 2))

    unknown = tfs.evaluate(model, images, "gradient", metrics=of_ones_own, verbose=0)
    with pytest.raises(tfs.OptionError, match="'of_ones_own' as a part of this version"):
        verify(unknown, model, images, preprocess=None)


@pytest.mark.parametrize(("rest", "confirmed"), [(3e-7, True), (3e-6, False)])
def test_onednn_may_round_otherwise_in_each_trace(rest, confirmed, monkeypatch):
    monkeypatch.setattr(verification, "uses_onednn", lambda: True)
    model, images = synthetic.shapes_model(), synthetic.make_shapes(2, seed=0).images
    maps = tfs.saliency_map(model, images, verbose=0)
    other = replace(maps, maps={"gradient": maps["gradient"] * np.float32(1 + rest)})
    found = tfs.verify(other, model, verbose=0)
    assert found.confirmed == confirmed
    assert "up to the rounding of oneDNN, 1e-06 of their norm" in found.compared
    monkeypatch.setattr(verification, "uses_onednn", lambda: False)
    assert not tfs.verify(other, model, verbose=0).confirmed


@pytest.mark.parametrize(
    ("told", "features", "used"),
    [("1", "avx2", True), ("0", "avx2 avx512_vnni", False), ("default", "avx2", False),
     ("default", "avx2 avx512_vnni", True)],
)  # fmt: skip
def test_onednn_is_on_as_told_or_by_the_processor(told, features, used, monkeypatch):
    monkeypatch.setattr(record, "describe_device", lambda: {"onednn": told, "features": features})
    assert record.uses_onednn() == used
