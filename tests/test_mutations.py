"""Each mutation of the package makes the test that it names fail."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import DATA, ROOT
from mutations import MUTATIONS

IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "benchmarks")
FAILED = 1  # pytest's exit code for tests that ran and failed, and for nothing else


def test_there_are_many_mutations_and_each_has_a_test():
    assert len(MUTATIONS) >= 40
    assert len({(m.file, m.text, m.replacement) for m in MUTATIONS}) == len(MUTATIONS)
    for mutation in MUTATIONS:
        source = (ROOT / "tfsaliency" / mutation.file).read_text()
        assert source.count(mutation.text) == 1, mutation
        name = mutation.test.split("::")[1].split("[")[0]
        assert f"def {name}(" in (ROOT / "tests" / mutation.test.split("::")[0]).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.test}")
def test_a_mutation_is_noticed(mutation, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=IGNORED)
    file = copy / "tfsaliency" / mutation.file
    file.write_text(file.read_text().replace(mutation.text, mutation.replacement))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "",
         f"tests/{mutation.test}"],
        cwd=copy,
        env={**os.environ, "TFSALIENCY_TEST_DATA": str(DATA), "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == FAILED, run.stdout[-2000:]
