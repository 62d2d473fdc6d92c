"""Progress of 16 methods on 8 photos, in a pipe and in a pseudo-terminal.

Prints when the first sign of life came, and the time left that was printed halfway, beside the time
that was really left.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

CODE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tfsaliency as tfs
from tfsaliency import synthetic
model = {model}
images = {images}
methods = list(tfs.METHODS)[:16]
tfs.saliency_map(model, images[:1], on_problem="ignore", verbose=0)
print("CALL", file=sys.stderr, flush=True)
tfs.saliency_map(model, images, methods, on_problem="ignore")
print("DONE", file=sys.stderr, flush=True)
"""
SHAPES = ("synthetic.shapes_model()", "synthetic.make_shapes(8, seed=1).images")
PHOTOS = ("tfs.models.EfficientNetLite0()", "tfs.load_images(['images/cat.jpg'] * 8, model)")
LEFT = re.compile(r"(\d+)% of 8 images, .*?((?:\d+ h )?(?:\d+ min )?\d+ s) left")
STREAMS = ("pipe", "pseudo-terminal")
UNITS = {"h": 3600, "min": 60, "s": 1}


def main() -> None:
    """Print a line for each network and stream."""
    for name, (model, images) in {"shapes": SHAPES, "EfficientNet-Lite0": PHOTOS}.items():
        code = CODE.format(model=model, images=images)
        for stream in STREAMS:
            print(f"{name}, {stream}: {measure(code, stream)}")


def measure(code: str, stream: str) -> str:
    """Run the code, and return what its progress said beside what was true."""
    heard = listen(code, stream == "pseudo-terminal")
    call = next(t for t, text in heard if "CALL" in text)
    done = next(t for t, text in heard if "DONE" in text)
    life = next(t for t, text in heard if t > call and ("preparing" in text or "images" in text))
    told = []
    for t, text in heard:
        for share, left in LEFT.findall(text):
            told.append((int(share), t, seconds(left)))
    share, t, left = min(told, key=lambda each: abs(each[1] - (call + done) / 2))
    return (
        f"{done - call:.0f} s; first sign of life after {life - call:.1f} s; halfway ({share} %) "
        f"{left} s left, in truth {done - t:.0f} s"
    )


def listen(code: str, terminal: bool) -> list[tuple[float, str]]:
    """Return all that a process writes to standard error, with the time of each part."""
    if terminal:
        reader, writer = pty.openpty()
    else:
        reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=writer, stdout=subprocess.DEVNULL
    )
    os.close(writer)
    heard = []
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:  # the end of a pseudo-terminal
            break
        if not part:
            break
        heard.append((time.monotonic(), part.decode(errors="replace")))
    process.wait()
    return heard


def seconds(text: str) -> int:
    """Return a duration such as "1 min 20 s" in seconds."""
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+) (h|min|s)", text))


if __name__ == "__main__":
    main()
