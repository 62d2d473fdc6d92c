"""Folders of runs that were damaged, mixed up, or begun with wrong options."""

import json
import shutil

import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.datasets import parts

METHODS = ["gradient", "grad_cam"]
N = 10


@pytest.fixture(scope="module")
def shapes():
    return synthetic.make_shapes(N, seed=4)


@pytest.fixture(scope="module")
def model():
    return synthetic.shapes_model()


def explain(model, source, out, **options):
    return tfs.explain_dataset(
        model, source, out, METHODS, **{"batch_size": 3, "part_size": 4, "verbose": 0, **options}
    )


def test_the_log_is_mended(model, shapes, tmp_path):
    """A torn line, and a part whose line is missing."""
    out = tmp_path / "out"
    explain(model, list(shapes.images), out)
    lines = (out / parts.LOG).read_text().splitlines()
    (out / parts.LOG).write_text(lines[0] + "\n" + lines[1][:30])
    (out / "part-000002.parquet").unlink()
    (out / ".tfsaliency-1234.part").write_text("left by a process that was killed")
    data = explain(model, list(shapes.images), out)
    assert len(data) == N and not list(out.glob(".tfsaliency-*"))
    log = tfs.open_dataset(out).log
    written = [parts.PartEntry(**json.loads(line)) for line in lines]
    for number, entry in enumerate(written):
        assert (
            log[number].sha256 == entry.sha256 == parts.digest_file(out / parts.part_name(number))
        )
        assert log[number].ids == entry.ids
    assert tfs.verify(out, model, list(shapes.images), verbose=0).confirmed


def test_a_damaged_folder_says_so(model, shapes, tmp_path):
    out = tmp_path / "out"
    explain(model, list(shapes.images), out)
    part = out / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(tfs.ResultError, match="part-000001.parquet"):
        list(tfs.open_dataset(out))
    (out / "manifest.json").write_text('{"tfsaliency": "manifest.json", "format": 1}')
    with pytest.raises(tfs.ResultError, match="manifest"):
        tfs.open_dataset(out)
    (out / "manifest.json").unlink()
    for where in (out, tmp_path / "nothing", out / "part-000000.parquet", 3):
        with pytest.raises(tfs.ResultError, match="without manifest.json"):
            tfs.open_dataset(where)
    with pytest.raises(tfs.OptionError, match="parts without manifest.json"):
        explain(model, list(shapes.images), out)


def test_a_part_of_another_run_is_refused(model, shapes, tmp_path):
    explain(model, list(shapes.images), tmp_path / "out")
    part = tmp_path / "out" / "part-000001.parquet"
    shutil.copy(part, part.with_name("part-000099.parquet"))
    for call in (
        lambda: tfs.open_dataset(tmp_path / "out"),
        lambda: explain(model, list(shapes.images), tmp_path / "out"),
    ):
        with pytest.raises(tfs.ResultError, match=r"part-000099.parquet, which is none of them"):
            call()


@pytest.mark.parametrize("place", [-1, -40, -400, -1500, 3, 5000])
def test_no_damage_of_a_part_raises_an_error_of_another_library(place, model, shapes, tmp_path):
    out = tmp_path / "out"
    explain(model, list(shapes.images), out)
    part = out / "part-000001.parquet"
    data = part.read_bytes()
    for bit in range(8):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        part.write_bytes(changed)
        found = tfs.verify(out, model, list(shapes.images), sample=1, verbose=0)
        assert not found.confirmed
        (out / parts.LOG).unlink()
        try:  # the line is made from the file
            tfs.open_dataset(out).table()
        except tfs.ResultError as error:
            assert "Delete the file" in str(error)
        (out / parts.LOG).write_text("")
        part.write_bytes(data)
        explain(model, list(shapes.images), out)


@pytest.mark.filterwarnings("ignore:Maps mean little")
def test_a_start_that_came_to_nothing_does_not_block_the_folder(model, shapes, tmp_path):
    wrong = [np.zeros((3, 3, 3))] * 2
    with pytest.raises(tfs.ErrorLimitError, match="Received: 2, of which all have errors"):
        explain(model, wrong, tmp_path / "a")
    with pytest.raises(tfs.OptionError, match="has a run that differs"):  # its rows are there
        explain(model, list(shapes.images), tmp_path / "a")
    with pytest.raises(tfs.OptionError, match="class"):
        explain(model, list(shapes.images), tmp_path / "b", targets=99)
    data = explain(model, list(shapes.images), tmp_path / "b", targets=1)
    assert set(data.table(["target"]).column(0).to_pylist()) == {1}


def test_problems_are_counted_at_the_end(model, shapes, tmp_path):
    with pytest.warns(tfs.SaliencyWarning, match=r"for some images: negative_evidence of \d"):
        data = explain(model, list(shapes.images), tmp_path / "out", targets=1)
    listed = data.table(["problems"]).column(0).to_pylist()
    with pytest.warns(tfs.SaliencyWarning) as caught:
        explain(model, list(shapes.images), tmp_path / "again", targets=1)
    count = sum(any(p.startswith("negative_evidence") for p in each) for each in listed)
    assert f"negative_evidence of {count}." in str(caught[0].message)
