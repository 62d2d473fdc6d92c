"""Runs over data sets: overhead, memory, bytes of a map, and a million images.

    python benchmarks/datasets.py overhead PHOTOS   # a folder of photos; SqueezeNet
    python benchmarks/datasets.py memory PHOTOS
    python benchmarks/datasets.py codes PHOTOS
    python benchmarks/datasets.py million

Photos are used under as many names as needed. The weights of SqueezeNet are read from the file
SQUEEZENET_WEIGHTS, or downloaded.
"""

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import pyarrow.parquet as pq

import tfsaliency as tfs
from tfsaliency.datasets import codes
from tfsaliency.models import squeezenet
from tfsaliency.records import name_device
from tfsaliency.similarity import SIMILARITIES

METHODS = ["gradient", "guided_backprop", "zeiler_fergus"]
ROUNDS = 9
MILLION = 1_000_000


def prepared():
    weights = os.environ.get("SQUEEZENET_WEIGHTS", "imagenet")
    model = tfs.models.SqueezeNet(weights)
    return tfs.prepare(model, preprocess=squeezenet.preprocess_input)


def many(photos, folder, n):
    """Link photos under n names."""
    files = sorted(p for p in Path(photos).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    folder.mkdir()
    for i in range(n):
        (folder / f"{i:06d}.jpg").symlink_to(files[i % len(files)].resolve())
    return folder


def overhead(photos, n=192):
    """Time a run over a folder, and over arrays, beside saliency_map on the same arrays."""
    model = prepared()
    with tempfile.TemporaryDirectory() as work:
        folder = many(photos, Path(work) / "photos", n)
        images = tfs.load_images(sorted(folder.iterdir()), model, verbose=0)
        for methods in (METHODS[:1], METHODS):
            rows = {"arrays in memory": [], "photos": []}
            rates = []
            for r in range(1 + ROUNDS):
                times = []
                for source in (None, images, folder):
                    gc.collect()
                    start = time.perf_counter()
                    if source is None:
                        for i in range(0, n, 32):
                            part = images[i : i + 32]
                            tfs.saliency_map(model, part, methods, verbose=0)
                    else:
                        out = Path(work) / f"{len(methods)}-{r}-{len(times)}"
                        tfs.explain_dataset(model, source, out, methods, verbose=0)
                    times.append(time.perf_counter() - start)
                if r:  # the first compiles
                    rows["arrays in memory"].append(times[1] / times[0])
                    rows["photos"].append(times[2] / times[0])
                    rates.append(n / times[2])
            for name, ratios in rows.items():
                print(
                    f"{', '.join(methods)}; {name}: {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f})"
                )
            print(f"  {statistics.median(rates):.1f} photos/s")


def memory(photos, *counts):
    """Print the peak memory of a run, in a process of its own for each number of photos."""
    if counts:
        model = prepared()
        with tempfile.TemporaryDirectory() as work:
            folder = many(photos, Path(work) / "photos", int(counts[0]))
            tfs.explain_dataset(model, folder, Path(work) / "out", "gradient", verbose=0)
        text = Path("/proc/self/status").read_text()
        print(text.split("VmHWM:")[1].split()[0])
        return
    peaks = []
    for n in (200, 20_000):
        command = [sys.executable, __file__, "memory", photos, str(n)]
        peak = int(subprocess.check_output(command, text=True).split()[-1]) / 1024
        peaks.append(peak)
        print(f"{n} photos: {peak:.0f} MB", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def sizes(photos):
    """Print the bytes of a map and its distance from float32, by code."""
    model = prepared()
    files = sorted(p for p in Path(photos).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    images = tfs.load_images(files, model, verbose=0)
    methods = [*METHODS, tfs.Method("signed", composition=tfs.InputXGradient(), reduction="sum")]
    maps = tfs.saliency_map(model, images, methods, verbose=0)
    spearman = SIMILARITIES["spearman"]
    for dtype in ("uint8", "float16"):
        with tempfile.TemporaryDirectory() as work:
            for method in methods:
                name = method if isinstance(method, str) else method.name
                code = codes.choose_code(maps_method(method), None, dtype)
                out = Path(work) / name
                data = tfs.explain_dataset(
                    model, files, out, method, dtype=dtype, part_size=len(files), verbose=0
                )
                about = pq.ParquetFile(out / "part-000000.parquet").metadata.row_group(0)
                columns = [about.column(i) for i in range(about.num_columns)]
                size = sum(
                    c.total_compressed_size for c in columns if f"{name}." in c.path_in_schema
                )
                got = data.maps(list(map(str, files)))[name]
                true = maps[name]
                peaks = np.abs(true).max(axis=(1, 2))
                error = (np.abs(got - true).max(axis=(1, 2)) / peaks).max()
                rank = spearman(true, got)
                print(
                    f"{name}, {code}: {size:.1f} kB a map, Spearman {rank.mean():.5f}, worst "
                    f"{rank.min():.5f}, largest error {error:.4f} of the peak"
                )
    print(f"float32: {maps['gradient'][0].nbytes / 1000:.1f} kB")


def maps_method(method):
    return method if isinstance(method, tfs.Method) else tfs.METHODS[method]


class Numbers:
    """A million small images, made when they are asked for."""

    def __init__(self, stop=None):
        self.stop, self.fetched = stop, 0

    def __len__(self):
        return MILLION

    def __getitem__(self, i):
        self.fetched += 1
        if self.stop is not None and self.fetched > self.stop:
            raise KeyboardInterrupt
        return f"image {i:07d}", np.full((4, 4, 1), i % 251, np.float32)


def million():
    """Start, stop, continue and open a run of a million images, by a trivial model."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    options = {"batch_size": 256, "targets": 0, "score": "logit", "verbose": 0}
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"

        def run(stop):
            start = time.perf_counter()
            with contextlib.suppress(KeyboardInterrupt):
                tfs.explain_dataset(model, Numbers(stop), out, **options)
            return time.perf_counter() - start

        def parts():
            return len(list(out.glob("part-*.parquet")))

        print(f"start, to the first parts: {run(2000):.1f} s, {parts()} parts", flush=True)
        seconds = run(500_000)
        print(f"500,000 images: {seconds:.0f} s, {500_000 / seconds:.0f} images/s", flush=True)
        before = parts()
        print(
            f"continue behind {before} parts: {run(2000):.1f} s, {parts() - before} parts",
            flush=True,
        )
        seconds = run(None)
        print(f"the rest: {seconds:.0f} s, {parts()} parts in all", flush=True)
        print(f"continue, nothing missing: {run(None):.1f} s")
        start = time.perf_counter()
        data = tfs.open_dataset(out)
        print(f"open: {time.perf_counter() - start:.2f} s, {len(data)} images")
        start = time.perf_counter()
        data.maps(["image 0777777"])
        print(f"a map by id: {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        ids = data.table(["id"]).column("id")
        print(f"all ids: {time.perf_counter() - start:.1f} s, {len(ids.unique())} different")


if __name__ == "__main__":
    print(name_device())
    commands = {"overhead": overhead, "memory": memory, "codes": sizes, "million": million}
    commands[sys.argv[1]](*sys.argv[2:])
