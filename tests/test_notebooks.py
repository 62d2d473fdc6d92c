"""Every notebook runs, and prints its committed output."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from setups import printed_alike, slow_but

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def _run(path, keras_home, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # or TensorFlow says that it is on
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return notebook


def _text(notebook):
    """The printed and displayed text of a notebook, with the word "picture" for pictures."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield output.name, output.text
            elif "image/png" in output.data:
                yield "picture", ""
            elif output.data["text/plain"]:  # else progress, which was removed at the end
                yield output.output_type, output.data["text/plain"]


def _assert_alike(fresh, committed):
    assert [kind for kind, _ in fresh] == [kind for kind, _ in committed]
    for (_, text), (_, shown) in zip(fresh, committed, strict=True):
        # .125 is printed as .13 on one processor, and as .12 on another
        assert printed_alike(text, shown, tolerance=0.011), f"{text}\nCommitted:\n{shown}"


def test_a_notebook_is_compared_word_by_word():
    _assert_alike([("stream", "occlusion  0.13 yes")], [("stream", "occlusion 0.12 yes")])
    for other in ("occlusion 0.14 yes", "occlusion 0.12 in part"):
        with pytest.raises(AssertionError):
            _assert_alike([("stream", other)], [("stream", "occlusion 0.12 yes")])


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == [
        "01_compare_maps.ipynb",
        "02_sanity_checks.ipynb",
        "03_known_answers.ipynb",
        "04_your_own_model.ipynb",
        "05_transfer_learning.ipynb",
        "06_vision_transformer.ipynb",
        "07_segmentation.ipynb",
        "08_signals.ipynb",
        "09_watching_training.ipynb",
        "10_reading_a_verdict.ipynb",
        "11_gallery.ipynb",
        "12_which_map.ipynb",
    ]


@pytest.mark.parametrize("path", slow_but(NOTEBOOKS), ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_what_is_committed(path, keras_home, monkeypatch):
    fresh = list(_text(_run(path, keras_home, monkeypatch)))
    _assert_alike(fresh, list(_text(nbformat.read(path, as_version=4))))
    assert sum(kind == "picture" for kind, _ in fresh) >= 2
    assert not any(kind == "stderr" for kind, _ in fresh)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_has_a_badge_an_install_cell_and_no_path_of_a_machine(path):
    # The letters of a picture may spell anything.
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert "colab-badge.svg" in text and "%pip install" in text
    for folder in (str(Path.home()), os.path.realpath(path.parent), "/tmp/"):
        assert folder not in text
