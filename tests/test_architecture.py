"""The import order, and who may use what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tfsaliency"

# Each row imports only rows above it.
ROWS = [
    ["errors", "version"],
    ["arrays", "nodes"],
    [
        "scores",
        "rules",
        "patterns",
        "endpoints",
        "problems",
        "photos",
        "models",
        "draws",
    ],
    ["similarity", "verdicts", "randomization", "compositions", "structures"],
    ["census", "controls", "methods"],
    ["injection"],
    ["precision", "taps"],
    ["tracing"],
    ["gradients"],
    ["composing"],
    ["engines"],
    ["prepared"],
    ["maps"],
    ["measuring", "streams"],
    ["tables"],
    ["results"],
    ["checks"],
    ["data_randomization", "sanity"],
    ["worlds"],
    ["reports"],
    ["demo"],
    ["cli"],
    ["__init__", "__main__"],
]
ROW = {name: number for number, row in enumerate(ROWS) for name in row}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _part(path):
    """The name in ROWS of a module, or of the folder it is in."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _imported_parts(path):
    """The parts that a module imports, relatively or absolutely, wherever in the file."""
    package = ("tfsaliency", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [*base, *(node.module.split(".") if node.module else [])]
            for full in [names] if len(names) > 1 else [[*names, a.name] for a in node.names]:
                if full[0] == "tfsaliency":
                    yield full[1] if full[1] in ROW else "__init__"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tfsaliency":
                    yield alias.name.split(".")[1] if "." in alias.name else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = _part(path)
    assert own in ROW, f"{own} has no row in the import order"
    for part in _imported_parts(path):
        assert part == own or ROW[part] < ROW[own], f"{own} imports {part}"


def test_the_order_would_notice_an_import_that_goes_up(tmp_path, monkeypatch):
    module = tmp_path / "rules.py"
    module.write_text(
        "from .maps import gradient_map\nfrom . import cli\nimport tfsaliency.reports\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert sorted(_imported_parts(module)) == ["cli", "maps", "reports"]


def _users(*words):
    return {word: {_part(p) for p in MODULES if word in p.read_text()} for word in words}


def test_who_may_use_what():
    users = _users(
        "GradientTape(", "clone_model(", "import matplotlib", "from matplotlib", "pyplot("
    )
    # injection's tape is the derivative of one ReLU; its docstring has the word, too.
    assert users["GradientTape("] == {"gradients", "injection"}
    assert users["clone_model("] == {"injection"}
    assert users["import matplotlib"] | users["from matplotlib"] == {"reports"}
    assert users["pyplot("] == set()


def test_no_assert_and_no_unfinished_mark():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path
        assert not any(mark in path.read_text() for mark in ("TODO", "FIXME", "XXX")), path


def test_importing_the_package_does_not_import_matplotlib():
    code = (
        "import sys, tensorflow, keras; before = set(sys.modules); import tfsaliency;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print('matplotlib' in new, tfsaliency.RED.name)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == ["False", "tfsaliency_red"]


def test_another_backend_is_refused_in_one_sentence():
    # The other backends need packages of their own to get as far as this.
    code = "import keras; keras.backend.backend = lambda: 'jax'; import tfsaliency"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1
    assert last.startswith("ImportError: tfsaliency needs Keras on the TensorFlow backend")
    assert "'jax'" in last and "KERAS_BACKEND=tensorflow" in last
