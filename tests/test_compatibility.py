"""The fast tests on the oldest versions that setup.cfg allows, and on those of Colab. Slow."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PINS = {path.stem: path.read_text().split() for path in (ROOT / "tests" / "pins").glob("*.txt")}
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def _requirements(extra):
    """Return the requirements of an extra, each on a line of setup.cfg."""
    listed = SETUP["options.extras_require"][extra].split("\n")
    return [line for line in listed if line and not line.startswith("#")]


def test_the_oldest_versions_are_the_bounds_of_setup_cfg():
    bounds = SETUP["options"]["install_requires"].split() + _requirements("store")
    oldest = dict(pin.split("==") for pin in PINS["oldest"])
    assert {bound.split(">=")[0] for bound in bounds} == set(oldest)
    for bound in bounds:
        name, least = bound.split(">=")
        assert f"{oldest[name]}.".startswith(f"{least}."), bound


@pytest.mark.slow
@pytest.mark.parametrize("versions", PINS)
def test_the_suite_passes_on_other_versions(versions, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q"]
    pins = [pin.replace("tensorflow=", "tensorflow-cpu=") for pin in PINS[versions]]
    subprocess.run([*install, *pins, *_requirements("test")], check=True)
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
