"""Runs that are stopped at random moments, on a full disk, or whose folder is removed.

No earlier result is lost, and no half file is taken for a whole one. docs/reliability.md has the
counts.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zoo
from PIL import Image

import tfsaliency as tfs

pytestmark = pytest.mark.slow
MOMENTS = 20
SAVING = """
import sys, numpy as np, tfsaliency as tfs
maps = tfs.SaliencyMaps.load(sys.argv[1])
print("ready", flush=True)
while True:
    maps.save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, 40 photos and a result, in files."""
    folder = tmp_path_factory.mktemp("files")
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    model.save(folder / "model.keras")
    photos = []
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (zoo.SIZE, zoo.SIZE, 3), dtype="uint8")
        photos.append(folder / f"p{i}.png")
        Image.fromarray(pixels).save(photos[-1])
    maps = tfs.saliency_map(model, tfs.load_images(photos, model), ["gradient", "smooth_grad"])
    maps.save(folder / "maps.npz")
    return folder


def _start(files, what, out):
    photos = sorted(map(str, files.glob("p*.png")))
    model = ["--model", str(files / "model.keras"), "--out", str(out), "--overwrite"]
    tool = [sys.executable, "-m", "tfsaliency"]
    commands = {
        "map": [*tool, "map", *photos, *model, "--methods", "gradient"],
        "check": [
            *tool, "check", *photos[:8], *model, "--methods", "gradient", "--seeds", "2",
            "--similarities", "pearson",
        ],
        "save": [sys.executable, "-c", SAVING, str(files / "maps.npz"), str(out / "maps.npz")],
    }  # fmt: skip
    if what == "save":
        out.mkdir(exist_ok=True)
    return subprocess.Popen(commands[what], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _check_files(out):
    """Load every file of a run, and return their number."""
    found = 0
    for path in out.glob("*") if out.exists() else ():
        if path.name.startswith("."):  # of a file that was being written
            assert path.name.startswith(".tfsaliency-") and path.name.endswith(".part")
            continue
        found += 1
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.name == "result.npz":
            assert tfs.SanityResult.load(path).verdicts
        elif path.suffix == ".npz":
            assert len(tfs.SaliencyMaps.load(path)["gradient"])
        else:
            assert path.read_text().endswith("}\n") or path.suffix == ".json"
    return found


def _duration(files, what, out):
    """Run to the end once, and return the seconds it took."""
    start = time.monotonic()
    run = _start(files, what, out)
    if what == "save":
        run.stdout.readline()
        begun = time.monotonic() - start
        run.kill()
        return begun + 1.0
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    return time.monotonic() - start


@pytest.mark.parametrize("what", ["map", "check", "save"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_is_stopped_at_random_moments(how, what, files, tmp_path):
    whole = _duration(files, what, tmp_path / "whole")
    kept = _check_files(tmp_path / "whole")
    lengths = np.random.default_rng(0).uniform(0.3, 1.0, MOMENTS) * whole
    for k, moment in enumerate(lengths):
        # Half of the runs would replace the files of an earlier one.
        out = tmp_path / ("whole" if k % 2 else f"new-{k}")
        run = _start(files, what, out)
        time.sleep(moment)
        run.send_signal(how)
        _, errors = run.communicate(timeout=120)
        found = _check_files(out)
        if out.name == "whole":
            assert found >= kept, (k, moment)
        if how is signal.SIGINT and what == "map":
            assert run.returncode in (0, 130, 1, -signal.SIGINT), errors


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted without the right to do so")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("what", ["map", "check"])
def test_a_full_disk(what, files, small_disk):
    """It runs full at another moment each time."""
    full = 0
    for k in range(MOMENTS):
        for path in small_disk.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (290_000 - 14_000 * k))
        run = _start(files, what, small_disk / "out")
        lines, errors = run.communicate(timeout=120)
        assert run.returncode in (0, 2) and b"Traceback" not in errors, (k, errors)
        _check_files(small_disk / "out")
        if run.returncode:
            full += 1
            assert b"No space left on device" in errors
        if what == "check":
            assert b"gradient  " in lines or b"Cannot write" in errors
        filler.unlink()
    print(f"full in {full} of {MOMENTS} runs")
    assert full > MOMENTS // 4


@pytest.mark.parametrize("what", ["map", "check"])
def test_a_folder_that_is_removed(what, files, tmp_path):
    whole = _duration(files, what, tmp_path / "whole")
    for moment in np.random.default_rng(1).uniform(0.5, 1.0, MOMENTS) * whole:
        out = tmp_path / "gone"
        run = _start(files, what, out)
        time.sleep(moment)
        shutil.rmtree(out, ignore_errors=True)
        _, errors = run.communicate(timeout=120)
        assert b"Traceback" not in errors
        assert run.returncode in (0, 2)
        _check_files(out)
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs the memory of a process")
def test_the_memory_of_a_map_does_not_grow_with_its_photos(files, tmp_path):
    """1,000 photos take no more than 40, up to the memory of lists of names."""
    photos = sorted(map(str, files.glob("p*.png")))
    peaks = []
    for copies in (1, 25):
        many = []
        for k in range(copies):
            for path in photos:
                link = tmp_path / f"{k}-{os.path.basename(path)}"
                if not link.exists():
                    os.link(path, link)
                many.append(str(link))
        process = subprocess.Popen(
            [sys.executable, "-m", "tfsaliency", "map", *many, "--model",
             str(files / "model.keras"), "--methods", "gradient",
             "--out", str(tmp_path / f"o{copies}")],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        peak = 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
                    (line,) = [each for each in status if each.startswith("VmHWM")]
                peak = int(line.split()[1])
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        assert process.returncode == 0
        peaks.append(peak)
    print(f"{peaks} kB for 40 and 1,000 photos")
    assert len(tfs.SaliencyMaps.load(tmp_path / "o25" / "maps.npz").names) == 1000
    assert peaks[1] < 1.25 * peaks[0]


def test_saving_on_a_full_disk(files, small_disk):
    maps = tfs.SaliencyMaps.load(files / "maps.npz")
    path, filler, full = small_disk / "maps.npz", small_disk / "filler", 0
    maps.save(path)
    earlier = path.read_bytes()
    for k in range(MOMENTS):
        room = 2 * len(earlier) * k // MOMENTS  # for twice the file at most
        filler.write_bytes(b"x" * (300_000 - 4_096 - len(earlier) - room))
        try:
            maps.save(path)
        except OSError:
            full += 1
        assert tfs.SaliencyMaps.load(path).names == maps.names
        assert [p.name for p in small_disk.iterdir() if p.name.startswith(".")] == []
        filler.unlink()
    assert full > MOMENTS // 4


def test_saving_into_a_folder_that_is_removed(files, tmp_path):
    maps = tfs.SaliencyMaps.load(files / "maps.npz")
    for moment in np.random.default_rng(2).uniform(0.0, 0.2, MOMENTS):
        folder = tmp_path / "gone"
        folder.mkdir()
        remover = threading.Timer(moment, shutil.rmtree, [folder], {"ignore_errors": True})
        remover.start()
        try:
            while remover.is_alive():
                maps.save(folder / "maps.npz")
        except OSError as error:
            assert str(folder) in str(error) or error.errno
        remover.join()
        shutil.rmtree(folder, ignore_errors=True)
    maps.save(tmp_path / "maps.npz")
    assert len(tfs.SaliencyMaps.load(tmp_path / "maps.npz")["gradient"]) == 40
