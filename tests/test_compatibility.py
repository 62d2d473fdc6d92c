"""The fast tests on the oldest versions that setup.cfg allows, and on those of Colab. Slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PINS = {
    "oldest": [
        "tensorflow-cpu==2.18.1", "keras==3.8.0", "numpy==1.26.4", "matplotlib==3.9.0",
        "pillow==10.3.0",
    ],
    "colab": [
        "tensorflow-cpu==2.20.0", "keras==3.13.2", "numpy==2.1.3", "matplotlib==3.10.0",
        "pillow==11.3.0",
    ],
}  # fmt: skip
TEST_TOOLS = [
    "pytest>=8",
    "pytest-xdist",
    "nbclient",
    "nbformat",
    "ipykernel",
    "scipy",
    "scikit-image",
]


@pytest.mark.slow
@pytest.mark.parametrize("versions", PINS)
def test_the_suite_passes_on_other_versions(versions, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*install, *PINS[versions], *TEST_TOOLS], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        [python, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", ROOT / "tests"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )
    print(run.stdout[-3000:])
    assert run.returncode == 0
