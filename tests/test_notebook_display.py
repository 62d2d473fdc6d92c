"""Figures, results and progress in a real kernel: each is shown once, wherever it is made."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.slow

SETUP = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.display import progress
model, data = synthetic.shapes_model(), synthetic.make_shapes(4, seed=3)
maps = tfs.saliency_map(model, data.images, verbose=0)
"""
CELLS = {
    "the value of a cell": ("maps.plot()", 1),
    "not the last line": ("figure = maps.plot(); 1 + 1", 1),
    "a loop": ("for i in range(3): maps.select(i).plot()", 3),
    "in a later cell": ("figure", 1),
    "with pyplot": ("import matplotlib.pyplot as plt; maps.plot(); plt.show()", 1),
    "with a figure of pyplot": ("plt.plot([1, 2]); maps.plot()", 2),
    "a row of the original": ("tfs.tile_input_and_maps(data.images[0], maps[:1], ['a', 'b'])", 1),
    "a row that is not shown": (
        "tfs.tile_input_and_maps(data.images[0], maps[:1], ['a', 'b']); 0",
        0,
    ),
    "saved only": ("tfs.write_report('report.html', maps, verbose=0)", 0),
    "maps": ("maps", 0),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell, in a kernel of its own."""
    progress = "progress._PATIENCE = 0\nfound = tfs.sanity_check(model, data.images, verbose={})"
    cells = [SETUP, *(code for code, _ in CELLS.values())]
    cells += [progress.format('"auto"'), progress.format(1), progress.format(2)]
    notebook = new_notebook(cells=[new_code_cell(code) for code in cells])
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    nbformat.validate(notebook)
    return [cell.outputs for cell in notebook.cells[1:]]


def _data(outputs, kind):
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


@pytest.mark.parametrize("where", CELLS)
def test_a_figure_is_shown_once(outputs, where):
    found = outputs[list(CELLS).index(where)]
    assert len(_data(found, "image/png")) == CELLS[where][1]


def test_maps_are_html(outputs):
    (page,) = _data(outputs[list(CELLS).index("maps")], "text/html")
    assert page.count("<img ") == 8


def test_progress_is_an_output_of_the_cell(outputs):
    removed, stays, lines = outputs[len(CELLS) :]
    assert _data(removed, "text/html")[-1] == ""
    bars = _data(stays, "text/html")
    assert all("<progress max=1" in bar for bar in bars)
    assert "80 of 80 networks" in bars[-1]
    text = "".join(output.text for output in lines if output.get("name") == "stderr")
    assert text.splitlines()[-1].startswith("randomized networks: 80 of 80 networks")
