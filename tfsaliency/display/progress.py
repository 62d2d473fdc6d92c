"""Progress of calls that take longer than a second, shown as Keras's `verbose` says.

In a notebook, progress is an output of the cell; elsewhere it goes to standard error, so that the
results of a script or a command can be piped.

One thread looks at all running calls a few times a second, so a short call costs some microseconds.
A call inside another one, in the same thread, is part of that one's progress.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from html import escape
from typing import Any, Literal

from ..errors import OptionError
from .notebooks import ChangingOutput, find_shell

Verbose = Literal["auto", 0, 1, 2]

_PATIENCE = 1.0  # seconds without a sign of life
_PERIOD = 0.25  # seconds between two looks
_IDLE = 5.0  # seconds after which the thread ends
_LINE_PERIOD = 10.0  # the least number of seconds between two lines
_LINE_SHARE = 0.1  # the share of the work after which there is a line earlier
_SURE = 0.02  # the share of the work after which the time left is estimated
_CELLS = 24  # of a bar
_MINUTE, _HOUR = 60, 3600

_current: ContextVar[Progress | None] = ContextVar("progress", default=None)


def check_verbose(verbose: Any) -> Any:
    """Return verbose as "auto", 0, 1 or 2, or raise OptionError; True and False are 1 and 0."""
    if isinstance(verbose, bool):
        return int(verbose)
    if verbose == "auto" or (type(verbose) is int and verbose in (0, 1, 2)):
        return verbose
    raise OptionError(
        "Expected verbose as 'auto' (progress if it takes longer than a second), 0 (silent), 1 (a "
        f"bar) or 2 (lines). Received: {verbose!r:.100}."
    )


class Progress:
    """The progress of one call, a context manager.

    Parameters
    ----------
    verbose
        "auto" shows progress once the call has lasted a second: a bar in a terminal or a notebook,
        which is removed at the end, and lines elsewhere. 1 shows a bar that stays, 2 a line for
        each part, 0 nothing.
    total
        The number of units of work; 0 if it is not known.
    unit
        A unit in one word, such as "image".
    label
        What is done, in a few words.

    Examples
    --------
    >>> with Progress(0, 2, "image") as progress:
    ...     progress.advance(1)
    ...     progress.share
    0.5
    """

    def __init__(self, verbose: Verbose, total: int, unit: str = "image", label: str = "") -> None:
        self._verbose = check_verbose(verbose)
        self.total, self.label, self._unit = total, label, unit
        self._plural = unit + ("es" if unit.endswith("ch") else "s")
        self.remark = ""  # more numbers, in words
        self._begun = False
        self._done, self._pending = 0.0, 0.0
        self._within: Callable[[], float] | None = None  # the share of the pending part
        self._child: Progress | None = None
        self._parent: Progress | None = None
        self._view: _View | None = None
        self._started = self._began = time.monotonic()
        self._origin: tuple[float, float] | None = None  # time and share of the first points

    def __enter__(self) -> Progress:
        self._parent = _current.get() if self._verbose != 0 else None
        self._started = self._began = time.monotonic()
        if self._parent is not None:
            self._parent._child = self
        elif self._verbose != 0:
            self._view = _choose_view(self._verbose)
            _watcher.add(self)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._parent is not None:
            self._parent._child = None
        elif self._view is not None:
            _watcher.remove(self)
            self._view.close(self, kind is None)

    def begin(self) -> None:
        """Start the clock of the estimate: what took place before is done only once."""
        self._began, self._begun, self._origin = time.monotonic(), True, None
        if self._parent is not None and not self._parent._done:
            self._parent.begin()

    def skip(self, units: int) -> None:
        """Note that units were done by an earlier call."""
        self._done += units
        self._origin = time.monotonic(), self.share

    @contextlib.contextmanager
    def part(self, units: int, share: Callable[[], float] | None = None) -> Iterator[None]:
        """Do a part of the work; calls in it, or a function, tell the share of it that is done."""
        self._pending, self._within = units, share
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._pending, self._within = 0.0, None
        self.advance(units)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave the work alone for a while, and show nothing meanwhile."""
        if self._view is None:
            yield
            return
        _watcher.remove(self)
        self._view.hide()
        try:
            yield
        finally:
            _watcher.add(self)

    def advance(self, units: int) -> None:
        """Note that units of work are done."""
        self._done += units
        if self._view is not None:
            self._view.show(self, finished_part=True)

    def look(self) -> None:
        """Show the progress, if it is time."""
        if self._origin is None and not self._done and self.share:
            self._origin = time.monotonic(), self.share  # behind what compiling took
        if self._view is not None:
            self._view.show(self, finished_part=False)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def share(self) -> float:
        """The share of the work that is done, 0 to 1."""
        if not self.total:
            return 0.0
        child = self._child
        within = child.share if child is not None else self._within() if self._within else 0.0
        return min(1.0, (self._done + self._pending * within) / self.total)

    @property
    def left(self) -> float | None:
        """Estimated seconds left, None if it is too early to say."""
        start, before = self._origin or (self._began, 0.0)
        share, seconds = self.share, time.monotonic() - start
        if share - before < _SURE or seconds < _PATIENCE:
            return None
        return seconds * (1 - share) / (share - before)

    @property
    def numbers(self) -> str:
        """The work that is done, the time that it took, and the time left, in words."""
        words = [self._count(), _duration(self.elapsed)]
        left = self.left
        if left is not None and self.share < 1:
            words.append(f"{_duration(left)} left")
        if self.remark:
            words.append(self.remark)
        return ", ".join(words)

    def __str__(self) -> str:
        return f"{self.label}: {self.numbers}" if self.label else self.numbers

    def _count(self) -> str:
        done, total = int(self._done), self.total
        units = self._unit if total == 1 else self._plural
        if not total:
            return f"{done} {units}"
        if self.share > done / total:
            return f"{int(100 * self.share)}% of {total} {units}"
        return f"{done} of {total} {units}" if self._begun or done else "preparing"


def _duration(seconds: float) -> str:
    """Format seconds: 8 s, 1 min 20 s, 2 h 5 min.

    >>> _duration(7.6), _duration(80), _duration(7500)
    ('8 s', '1 min 20 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


class _View:
    """The way progress is shown: as lines, on a terminal or in a notebook."""

    def __init__(self, verbose: Verbose) -> None:
        self._patient = verbose == "auto"
        self._lock = threading.Lock()
        self._closed = False

    def show(self, progress: Progress, finished_part: bool) -> None:
        """Show the progress, if it is time."""
        with self._lock:
            early = self._patient and progress.elapsed < _PATIENCE
            if not early and not self._closed and self._wants(progress, finished_part):
                self._write(progress)

    def hide(self) -> None:
        """Remove what would be in the way of other output."""

    def close(self, progress: Progress, succeeded: bool) -> None:
        """Show the end, or remove what was shown."""
        with self._lock:
            self._closed = True
            self._end(progress, succeeded)

    def _wants(self, progress: Progress, finished_part: bool) -> bool:
        return True

    def _write(self, progress: Progress) -> None:
        raise NotImplementedError

    def _end(self, progress: Progress, succeeded: bool) -> None:
        raise NotImplementedError


class _Lines(_View):
    """Lines of text: for each part, or now and then."""

    def __init__(self, verbose: Verbose) -> None:
        super().__init__(verbose)
        self._stream = sys.stderr
        self._last: tuple[float, float] | None = None  # time and share of the last line

    def _wants(self, progress: Progress, finished_part: bool) -> bool:
        if not self._patient:
            return finished_part
        if self._last is None:
            return True
        seconds, more = progress.elapsed - self._last[0], progress.share - self._last[1]
        waited = seconds >= _PATIENCE and more >= _LINE_SHARE
        return waited or seconds >= max(_LINE_PERIOD, _LINE_SHARE * progress.elapsed)

    def _write(self, progress: Progress) -> None:
        self._last = progress.elapsed, progress.share
        _print(self._stream, f"{progress}\n")

    def _end(self, progress: Progress, succeeded: bool) -> None:
        shown = self._last is not None and self._last[1] < 1
        if succeeded and shown and self._patient and progress.total:
            _print(self._stream, f"{progress}\n")


class _Terminal(_View):
    """A bar on one line of a terminal."""

    def __init__(self, verbose: Verbose) -> None:
        super().__init__(verbose)
        self._stream = sys.stderr
        self._width = 0

    def _write(self, progress: Progress) -> None:
        bar = ""
        if progress.total:
            full = int(_CELLS * progress.share)
            bar = f"[{'=' * full}{'.' * (_CELLS - full)}] "
        columns = _columns(self._stream) - 1
        label = f": {progress.label}" if progress.label else ""
        text = f"{bar}{progress.numbers}{label}"[:columns]
        _print(self._stream, f"\r{text.ljust(min(self._width, columns))}")
        self._width = len(text)

    def hide(self) -> None:
        """Clear the line."""
        if self._width:
            _print(self._stream, f"\r{' ' * self._width}\r")
            self._width = 0

    def _end(self, progress: Progress, succeeded: bool) -> None:
        if self._patient:
            self.hide()
        else:
            if succeeded:
                self._write(progress)
            _print(self._stream, "\n")


class _Notebook(_View):
    """A bar in the output of a notebook's cell."""

    def __init__(self, verbose: Verbose) -> None:
        super().__init__(verbose)
        self._output: ChangingOutput | None = None

    def _write(self, progress: Progress) -> None:
        self._output = self._output or ChangingOutput()
        text = str(progress)
        value = f' value="{progress.share:.4f}"' if progress.total else ""
        html = f"<progress max=1{value}></progress> {escape(text)}"
        self._output.show(text, html)

    def _end(self, progress: Progress, succeeded: bool) -> None:
        if self._patient and self._output is not None:
            self._output.show("", "")
        elif not self._patient and succeeded:
            self._write(progress)


def _choose_view(verbose: Verbose) -> _View:
    if verbose == 2:
        return _Lines(verbose)
    if find_shell() is not None:
        return _Notebook(verbose)
    return _Terminal(verbose) if _is_terminal(sys.stderr) else _Lines(verbose)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (OSError, ValueError, AttributeError):  # closed, or none
        return False


def _columns(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _print(stream: Any, text: str) -> None:
    # A closed stream, or a reader that has left, is no reason to stop a computation.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.write(text)
        stream.flush()


class _Watcher:
    """The thread that looks at all running calls; it ends when there have been none for a while."""

    def __init__(self) -> None:
        self._running: list[Progress] = []
        self._lock = threading.Lock()
        self._process = 0  # that has the thread; a forked one has not
        self._last = 0.0

    def add(self, progress: Progress) -> None:
        """Begin to look at a call."""
        with self._lock:
            self._running.append(progress)
            self._last = time.monotonic()
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(
                    target=self._watch, name="tfsaliency progress", daemon=True
                ).start()

    def remove(self, progress: Progress) -> None:
        """Stop looking at a call."""
        with self._lock:
            self._running.remove(progress)
            self._last = time.monotonic()

    def _watch(self) -> None:
        while True:
            time.sleep(_PERIOD)
            with self._lock:
                running = list(self._running)
                if not running and time.monotonic() - self._last > _IDLE:
                    self._process = 0
                    return
            for progress in running:
                with contextlib.suppress(Exception):  # of a display that has gone
                    progress.look()


_watcher = _Watcher()
