"""What the documents say is checked against the code."""

import configparser
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import tfsaliency as tfs
from tfsaliency.cli.commands import make_parser

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ADDRESS = SETUP["metadata"]["url"]
README = (ROOT / "README.md").read_text()

TEXT_SUFFIXES = {".py", ".md", ".cfg", ".ipynb", ".toml", ".sh", ""}
IGNORED = {".git", "build", "maps", "demo", "check"}
OTHERS = {"nihui/ncnn-assets"}  # where SqueezeNet's weights are

# github.com/OWNER/NAME, raw.githubusercontent.com/OWNER/NAME, colab.../github/OWNER/NAME
REPOSITORY = re.compile(
    r"(?:github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com/github)"
    r"/([\w.-]+/[\w-]+)"
)


def _texts():
    for path in sorted(ROOT.rglob("*")):
        parts = set(path.relative_to(ROOT).parts)
        cached = any(
            p.endswith(("cache", ".egg-info", "__pycache__")) or p.startswith(".venv")
            for p in parts
        )
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not cached and not parts & IGNORED:
            yield path, path.read_text(errors="ignore")


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


def test_the_version_is_the_changelogs():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first.group(1) == tfs.__version__


def test_the_table_of_methods_names_methods():
    table = README.split("| method |")[1].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert len(named) >= 16 and named == [name for name in tfs.METHODS if name in named]
    assert "print(tfs.METHODS)" in README  # lists all, those added later too
    for score in tfs.SCORES:
        assert f"`{score}`" in README


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "tfsaliency" / "py.typed").read_bytes() == b""
    assert "py.typed" in SETUP["options.package_data"]["tfsaliency"]


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).is_file(), link


def _commands():
    return re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


def test_the_readmes_commands_set_up_everything_and_parse():
    demo, photo, tests, check = _commands()
    for command in (demo, tests):
        assert command.count("\n") == 1 and command.startswith("python3 -m venv .venv")
    for command, name in ((demo.split("&&")[-1], "demo"), (photo, "map"), (check, "check")):
        arguments = shlex.split(command)
        assert arguments[0] == ".venv/bin/tfsaliency"
        parsed = make_parser().parse_args(arguments[1:])
        assert parsed.command == name
        assert all((ROOT / photo).is_file() for photo in getattr(parsed, "photos", []))


def _printed(notebook):
    cells = json.loads((ROOT / "notebooks" / notebook).read_text())["cells"]
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return "".join(line for output in outputs for line in output.get("text", []))


def test_the_readmes_scores_are_those_that_the_notebook_prints():
    (table,) = re.findall(r"```\n( +pointing_game.*?)```", README, flags=re.DOTALL)
    printed = _printed("03_known_answers.ipynb")
    assert table in printed
    verdicts = re.findall(r"invariance (\S+) \[(\S+), (\S+)\]", printed)
    upper, labels = verdicts[::2], verdicts[1::2]
    text = " ".join(README.split())
    assert "(invariance {}, 95 % {} to {})".format(*upper[1]) in text
    assert "(permuted labels: {}, {} and {})".format(*(v[0] for v in labels)) in text
    for name in tfs.METRICS:
        assert name in table


def test_the_readmes_verdicts_are_those_that_the_notebook_prints():
    (table,) = re.findall(r"```\n(With new weights.*?)```", README, flags=re.DOTALL)
    assert table in _printed("02_sanity_checks.ipynb")
    for name in tfs.RANDOMIZERS:
        assert f"`{name}`" in README


@pytest.mark.slow
def test_the_readmes_python_runs(keras_home, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
    assert names["maps"]["gradient"].shape == (1, 227, 227)
    assert names["maps"].targets.tolist() == [285]  # Egyptian cat
    (table,) = re.findall(r"```\n( +pointing_game.*?)```", README, flags=re.DOTALL)
    assert table in capsys.readouterr().out


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
    assert found.stdout.strip() == _commands()[2].strip()
    assert 'bash -euo pipefail -c "$command"' in script


@pytest.mark.parametrize("photo", sorted((ROOT / "images").glob("*.*g")), ids=lambda p: p.name)
def test_every_picture_has_a_source(photo):
    assert photo.name in (ROOT / "images" / "README.md").read_text()
