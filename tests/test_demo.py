"""The demonstration: no network connection, all files, and true contents."""

import csv
import re
import socket

import numpy as np
import pytest
from PIL import Image

import tfsaliency as tfs
from tfsaliency import cli, synthetic
from tfsaliency.cli import demo

PICTURES = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder and the output of a demonstration with fewer pictures."""
    out = tmp_path_factory.mktemp("demo") / "out"
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it needs a network"))
        patch.setattr(demo, "_PICTURES", PICTURES)
        demo.demonstrate(out, printed.append, verbose=0)
    return out, printed


def test_everything_is_written(run):
    out, printed = run
    assert sorted(path.name for path in out.iterdir()) == [
        "cascade.npz",
        "cascade.png",
        "maps.npz",
        "metrics.csv",
        "metrics.npz",
        "metrics.png",
        "permuted.npz",
        "pictures.png",
        "report.txt",
        "similarities.png",
    ]
    assert (out / "report.txt").read_text() == "\n".join(printed)
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_the_maps_are_those_of_the_labels(run):
    out, _ = run
    maps, world = tfs.SaliencyMaps.load(out / "maps.npz"), synthetic.make_shapes(4, seed=3)
    assert np.array_equal(maps.images, world.images)
    direct = tfs.saliency_map(synthetic.shapes_model(), world.images, targets=world.labels)
    np.testing.assert_allclose(maps["gradient"], direct["gradient"], rtol=1e-3, atol=1e-6)


def test_the_report_has_the_verdicts_and_the_table(run):
    out, printed = run
    said, cascade, permuted, scores, summary, files = printed
    written = {path.name for path in out.iterdir()}
    assert written == set(re.findall(r"^\w+\.\w+|(?<=, )\w+\.npz", files, flags=re.MULTILINE))
    assert "guided_backprop: 19 of 19 ReLUs (clone)" in said
    for label in synthetic.make_shapes(4, seed=3).labels:
        assert synthetic.CLASSES[label] in said
    assert str(tfs.SanityResult.load(out / "cascade.npz")) in cascade
    assert str(tfs.SanityResult.load(out / "permuted.npz")) in permuted
    assert str(tfs.Evaluation.load(out / "metrics.npz")) in scores
    with open(out / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "gradient"]
    assert len(rows) == 4 * PICTURES
    mass = np.mean([float(row["value"]) for row in rows if row["metric"] == "relevance_mass"])
    line, _ = (line for line in scores.splitlines() if line.startswith("gradient  "))
    (short,) = (line for line in summary.splitlines() if line.startswith("guided_backprop"))
    assert "does not depend" in short and "by 4 of 4 metrics" in short and "no control" in short
    (short,) = (line for line in summary.splitlines() if line.startswith("zeiler_fergus"))
    assert short.endswith("center_blob by 1")
    cells = line.split()  # mean, low, "to" and high of each metric
    assert cells[5] == f"{mass:.2f}".lstrip("0")


def test_the_command(tmp_path, monkeypatch, capsys):
    def short(out, say, verbose):
        out.mkdir(exist_ok=True)
        say(f"verbose {verbose}")

    monkeypatch.setattr(demo, "demonstrate", short)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "verbose auto"
    assert printed.out.splitlines()[-1].endswith("and the numbers to demo")
    assert printed.err == ""
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", "file"]) == 2
    assert "Expected a folder as --out. Received: the file file" in capsys.readouterr().err
