"""The import order, the sizes of files and functions, and restrictions of use."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfsaliency as tfs

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tfsaliency"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The import order is written in docs/architecture.md, and nowhere else.
BLOCKS = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
ROW, ENGINE_ROW = (
    {name: number for number, line in enumerate(block.splitlines()) for name in line.split()}
    for block in BLOCKS
)


def _imported(path, package=PACKAGE):
    """The modules of the package that a module imports, as paths below it, wherever in the file."""
    own = ("tfsaliency", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else ()
            names = [*base, *(node.module.split(".") if node.module else [])]
            for full in [names] if len(names) > 1 else [[*names, a.name] for a in node.names]:
                if full[0] == "tfsaliency":
                    yield tuple(full[1:])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tfsaliency":
                    yield tuple(alias.name.split(".")[1:])


def _name(path):
    return path.relative_to(PACKAGE).with_suffix("").parts


def _row(parts):
    return ROW.get(parts[0] if parts else "__init__", ROW["__init__"])


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "/".join(_name(p)))
def test_imports_go_down(path):
    own = _name(path)
    assert own[0] in ROW, f"{own[0]} has no row in the import order"
    for imported in _imported(path):
        within = imported[:1] == own[:1] and len(own) > 1
        assert within or _row(imported) < _row(own), f"{own} imports {imported}"
        if own[0] == "engine" and within:
            assert ENGINE_ROW[imported[1]] < ENGINE_ROW[own[1]], f"{own} imports {imported}"


def test_every_folder_and_module_is_in_the_order():
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    names -= {"py", "__pycache__", "py.typed"}
    assert names == set(ROW)
    assert {p.stem for p in (PACKAGE / "engine").glob("*.py")} - {"__init__"} == set(ENGINE_ROW)


def test_there_is_no_import_cycle():
    graph = {}
    for path in MODULES:
        own = _name(path)
        own = own[:-1] if own[-1] == "__init__" else own
        graph[own] = set(_imported(path)) - {own}
    seen, done = [], set()

    def visit(module):
        assert module not in seen, f"cycle: {[*seen, module]}"
        if module in done:
            return
        seen.append(module)
        for imported in graph.get(module, ()):
            # A package imports its modules, and they do not import names of the package.
            if imported != module[: len(imported)]:
                visit(imported)
        done.add(seen.pop())

    for module in list(graph):
        visit(module)


def test_the_order_would_notice_an_import_that_goes_up(tmp_path):
    module = tmp_path / "rules.py"
    module.write_text(
        "from .maps import saliency_map\nfrom . import cli\nimport tfsaliency.visualization\n"
    )
    assert sorted(_imported(module, tmp_path)) == [("cli",), ("maps",), ("visualization",)]
    assert _row(("maps",)) > _row(("methods",))


def test_few_modules_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 15


@pytest.mark.parametrize(("folder", "most"), [(PACKAGE, 400), (ROOT / "tests", 600)])
def test_files_can_be_read_at_once(folder, most):
    long = {
        p.name: n for p in folder.rglob("*.py") if (n := len(p.read_text().splitlines())) > most
    }
    assert not long


def _functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def _body_lines(node):
    """The lines of a function from its first statement behind the docstring to its end."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


def test_functions_can_be_read_at_once():
    assert not {
        f"{p.name}: {n.name}": _body_lines(n) for p, n in _functions() if _body_lines(n) > 50
    }


def test_functions_have_few_parameters():
    """Except those of saliency_map, and sanity_check and SaliencyCallback with options of more."""
    counts = {n.name: len(n.args.args) + len(n.args.kwonlyargs) for _, n in _functions()}
    assert {name for name, count in counts.items() if count > 12} <= {
        "__init__",
        "saliency_map",
        "saliency_map_batches",
        "sanity_check",
        "random_logit_check",
        "explain_dataset",
    }


def _users(*words):
    texts = {
        p: re.sub(r"^if TYPE_CHECKING:\n( .*\n)+", "", p.read_text(), flags=re.M) for p in MODULES
    }
    return {word: {_name(p)[0] for p in MODULES if word in texts[p]} for word in words}


def test_who_may_use_what():
    users = _users(
        "GradientTape(", "clone_model(", "import matplotlib", "from matplotlib", "pyplot("
    )
    # The tape in clone differentiates one ReLU; its docstring contains the word too.
    tapes = {_name(p) for p in MODULES if "GradientTape(" in p.read_text()}
    assert tapes == {("engine", "gradients"), ("engine", "clone")}
    assert users["clone_model("] == {"engine"}
    assert users["import matplotlib"] | users["from matplotlib"] == {"visualization"}
    assert users["pyplot("] == set()


def test_no_assert_and_no_unfinished_mark():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path
        assert not any(mark in path.read_text() for mark in ("TODO", "FIXME", "XXX")), path


def test_public_records_are_frozen_dataclasses():
    for name in tfs.__all__:
        value = getattr(tfs, name)
        if inspect.isclass(value):
            assert not issubclass(value, tuple), name
            if hasattr(value, "__dataclass_fields__"):
                assert value.__dataclass_params__.frozen, name


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


@pytest.mark.slow
def test_another_backend_is_refused_in_one_sentence():
    # Real other backends need their own packages to get this far.
    code = "import keras; keras.backend.backend = lambda: 'jax'; import tfsaliency"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1
    assert last.startswith("ImportError: tfsaliency needs Keras on the TensorFlow backend")
    assert "'jax'" in last and "KERAS_BACKEND=tensorflow" in last
