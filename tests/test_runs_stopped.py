"""Runs over 300 photos that are killed at random moments, on both engines; all slow."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tfsaliency as tfs

pytestmark = pytest.mark.slow

PHOTOS, BROKEN, KILLS, PART = 300, 5, 10, 16


@pytest.fixture(scope="module")
def photos(data, tmp_path_factory):
    """300 files: those of images/ and the ImageNet photos under many names, 5 of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    root = Path(__file__).resolve().parent.parent
    files = sorted((data / "imagenet").iterdir()) + sorted((root / "images").glob("*.jpg"))
    for i in range(PHOTOS - BROKEN):
        shutil.copy(files[i % len(files)], folder / f"photo {i:03d}.jpg")
    for i in range(BROKEN):
        source = files[i].read_bytes()
        (folder / f"photo {i:03d} broken.jpg").write_bytes(source[: len(source) // 3])
    return folder


def _command(photos, out, data, *options):
    program = "import sys; from tfsaliency.cli import main; sys.exit(main(sys.argv[1:]))"
    weights = str(data / "squeezenet_v1.1.bin")
    return [
        *(sys.executable, "-c", program, "run", str(photos), "--weights", weights),
        *("--methods", "gradient", "--out", str(out), "--part-size", str(PART)),
        *("--batch-size", "8", *options),
    ]


def _digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("part-*.parquet")}


def _children(pid):
    """The processes below a process, with those of Ray's daemons."""
    text = subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True)
    rows = [line.split(None, 2) for line in text.splitlines()[1:]]
    found, below = [], {pid}
    for _ in range(6):
        below = {int(p) for p, parent, _ in rows if int(parent) in below}
        found += [(int(p), args) for p, _, args in rows if int(p) in below]
    return found


def _kill(process, worker):
    """Kill the driver and all below it, or one of Ray's workers alone."""
    below = _children(process.pid)
    if worker:
        actors = [pid for pid, args in below if args.startswith("ray::_Worker")]
        if actors:
            os.kill(random.choice(actors), signal.SIGKILL)
            return False
    process.kill()
    process.wait()
    for pid, _ in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_that_is_killed_ten_times_is_the_same(engine, photos, data, keras_home, tmp_path):
    """keras_home has the class names, which are not downloaded."""
    if engine == "ray":
        pytest.importorskip("ray")
    random.seed(0)
    environment = {**os.environ, "KERAS_HOME": str(keras_home)}
    options = ["--engine", engine] + (["--workers", "2"] if engine == "ray" else [])
    whole = tmp_path / "whole"
    subprocess.run(
        _command(photos, whole, data, *options), check=True, env=environment, capture_output=True
    )
    expected = _digests(whole)

    out, kills, finished, seen = tmp_path / "killed", 0, False, {}
    workers_killed = 0
    while not finished:
        process = subprocess.Popen(
            _command(photos, out, data, *options),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        before = len(_digests(out)) if out.exists() else 0
        # At a random moment after the next part has been written, or while it is being computed.
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            written = len(_digests(out)) if out.exists() else 0
            if kills < KILLS and (written > before or random.random() < 0.003):
                time.sleep(random.random() * 0.2)
                worker = engine == "ray" and workers_killed < KILLS // 2
                kills += 1
                if _kill(process, worker):
                    break
                workers_killed += 1
                before = written + 1
            time.sleep(0.02)
        assert process.poll() is not None or process.wait(240) is not None
        finished = process.returncode == 0
        if not finished and process.returncode > 0:
            pytest.fail(process.stderr.read().decode()[-2000:])
        process.stderr.close()
        now = _digests(out)
        assert seen.items() <= now.items(), "a finished part was touched"
        seen = now

    assert kills == KILLS
    assert seen == expected
    maps = tfs.open_dataset(out)
    ids = maps.table(["id"]).column("id").to_pylist()
    assert sorted(ids) == sorted(p.name for p in photos.iterdir()) and len(set(ids)) == PHOTOS
    failed = maps.table(["id", "error"]).filter(_failed())
    assert sorted(failed.column("id").to_pylist()) == [
        f"photo {i:03d} broken.jpg" for i in range(BROKEN)
    ]
    assert not list(out.glob(".tfsaliency-*"))


def _failed():
    import pyarrow.compute as pc

    return pc.is_valid(pc.field("error"))


def test_workers_that_do_not_fit_are_refused_before_the_start(tmp_path):
    """Ray itself would wait for CPUs in silence."""
    ray = pytest.importorskip("ray")
    model, images = tfs.synthetic.shapes_model(), tfs.synthetic.make_shapes(3, seed=0).images
    start = time.monotonic()
    with pytest.raises(tfs.OptionError, match="99 need 99 CPUs, 1 each. Received: a cluster of"):
        tfs.explain_dataset(model, images, tmp_path, engine=tfs.RayEngine(99), verbose=0)
    assert not list(tmp_path.glob("part-*")) and not ray.is_initialized()
    with pytest.raises(tfs.OptionError, match="1 need 1 GPUs"):
        tfs.explain_dataset(model, images, tmp_path, engine=tfs.RayEngine(num_gpus=1), verbose=0)
    assert time.monotonic() - start < 120
    # A prepared model with compiled functions, and functions of the caller, travel.
    prepared = tfs.prepare(model, preprocess=lambda x: x / 2, score=lambda y, t: y[:, 0])
    tfs.saliency_map(prepared, images, verbose=0)
    data = tfs.explain_dataset(prepared, images, tmp_path / "out", engine="ray", verbose=0)
    own = tfs.saliency_map(prepared, images, verbose=0)["gradient"]
    got = data.maps(["0", "1", "2"])["gradient"]
    assert abs(got - own).max() <= 1.02 / 255 * own.max()
