"""Progress: what is printed when, for calls inside calls, and the counts behind the estimate."""

import io
import os
import re
import threading
import time

import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.display import progress
from tfsaliency.display.progress import Progress
from tfsaliency.engine import counts


class _Clock:
    """A clock that the test moves; nothing else looks at it."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        time.sleep(seconds)  # of a thread that an earlier test left


@pytest.fixture
def clock(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress._watcher, "add", lambda call: None)
    monkeypatch.setattr(progress._watcher, "remove", lambda call: None)
    return clock


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_short_call_prints_nothing(clock, capsys):
    with Progress("auto", 2) as call:
        call.advance(1)
        clock.now += 0.9
        call.look()
        call.advance(1)
    assert capsys.readouterr() == ("", "")


def test_lines_of_a_long_call(clock, capsys):
    with Progress("auto", 4, "image", "maps") as call:
        for seconds in (0.5, 0.5, 0.5, 2.0):  # 1.0 is the first sign of life
            clock.now += seconds
            call.look()
        call.begin()
        for seconds in (1.0, 4.0, 4.0, 4.0):
            clock.now += seconds
            call.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "maps: preparing, 1 s",
        "maps: 1 of 4 images, 4 s, 3 s left",
        "maps: 2 of 4 images, 8 s, 5 s left",
        "maps: 3 of 4 images, 12 s, 3 s left",
        "maps: 4 of 4 images, 16 s",
    ]


def test_lines_grow_rare(clock, capsys):
    with Progress("auto", 0, "batch") as call:
        for _ in range(600):
            clock.now += 1
            call.look()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["0 batches, 1 s", "0 batches, 11 s", "0 batches, 21 s"]
    assert len(lines) < 35


def test_a_bar_on_a_terminal_is_removed_or_stays(clock, monkeypatch):
    for verbose, end in (("auto", r"\r +\r$"), (1, r"=\] 2 of 2 images, 4 s: maps *\n$")):
        screen = _Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        with Progress(verbose, 2, "image", "maps") as call:
            clock.now += 2
            call.advance(1)
            middle = screen.getvalue()
            clock.now += 2
            call.advance(1)
        assert "[============............] 1 of 2 images, 2 s, 2 s left: maps" in middle
        assert re.search(end, screen.getvalue())


def test_2_prints_a_line_for_each_part_and_0_none(clock, capsys):
    for verbose in (2, 0):
        with Progress(verbose, 2) as call:
            call.advance(1)
            call.advance(1)
    assert capsys.readouterr().err == "1 of 2 images, 0 s\n2 of 2 images, 0 s\n"


def test_a_call_inside_another_is_part_of_it(clock, capsys):
    with Progress("auto", 2, "network") as outer:
        clock.now += 2
        with outer.part(1), Progress("auto", 4, "image") as inner:
            inner.begin()  # what came before does not count for the estimate
            clock.now += 3
            with inner.part(2, lambda: 0.5):
                assert inner.share == 0.25
                assert outer.share == 0.125
                assert outer.left == pytest.approx(3 * 7)
                outer.look()
            assert outer.share == 0.25
        assert outer.share == 0.5
    assert capsys.readouterr().err.splitlines()[0] == "12% of 2 networks, 5 s"


def test_calls_inside_a_silent_one_are_silent(clock, capsys):
    with Progress(0, 1) as outer, outer.part(1), Progress("auto", 1) as inner:
        clock.now += 5
        inner.look()
        outer.look()
    assert capsys.readouterr().err == ""


def test_an_interrupted_call_says_nothing_at_its_end(clock, capsys):
    with pytest.raises(KeyError), Progress("auto", 2) as call:
        clock.now += 3
        call.advance(1)
        raise KeyError
    assert capsys.readouterr().err == "1 of 2 images, 3 s, 3 s left\n"


def test_a_closed_stream_stops_nothing(clock, monkeypatch):
    closed = io.StringIO()
    monkeypatch.setattr("sys.stderr", closed)
    with Progress(1, 1) as call:
        closed.close()
        call.advance(1)
    with Progress(1, 1) as call:
        call.advance(1)
    monkeypatch.setattr("sys.stderr", None)
    with Progress(1, 1) as call:
        call.advance(1)


@pytest.mark.parametrize("wrong", [3, -1, "yes", None, 0.5])
def test_an_unknown_verbose_is_refused(wrong):
    with pytest.raises(tfs.OptionError, match="verbose as 'auto'"):
        tfs.saliency_map(synthetic.shapes_model(), np.zeros((1, 64, 64, 3)), verbose=wrong)


def test_threads_have_progress_of_their_own(clock):
    shares = []
    with Progress(0, 2) as outer, outer.part(1):

        def run():
            with Progress(0, 4) as other:
                other.advance(4)
            shares.append(outer.share)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert shares == [0.0]


def test_the_thread_ends_and_starts_again(monkeypatch):
    monkeypatch.setattr(progress, "_IDLE", 0.0)
    monkeypatch.setattr(progress, "_PERIOD", 0.01)
    watcher = progress._Watcher()
    for _ in range(2):
        looked = threading.Event()
        call = Progress(0, 1)
        monkeypatch.setattr(call, "look", looked.set)
        watcher.add(call)
        assert looked.wait(10)
        watcher.remove(call)
        for thread in threading.enumerate():
            if getattr(thread, "_target", None) == watcher._watch:
                thread.join(10)
        assert watcher._process == 0


def test_points_are_counted_as_they_are_evaluated():
    images = synthetic.make_shapes(3, seed=0).images
    methods = (
        tfs.METHODS["gradient"],
        tfs.Method("seven", composition=tfs.SmoothGrad(samples=7)),
        tfs.Method("path", composition=tfs.IntegratedGradients(steps=4, max_steps=16)),
        tfs.Method("guided", composition=tfs.GuidedIG(steps=5)),
        tfs.Method("nested", composition=tfs.SmoothGrad(samples=2, inner=tfs.GuidedIG(steps=3))),
    )
    prepared = tfs.prepare(synthetic.shapes_model())
    maps = tfs.saliency_map(prepared, images, methods, on_problem="ignore", batch_size=2)
    kept = prepared.trace(methods, prepared.check(images)).counts
    # The last part has one image. A path has both of its ends, and its levels 4, 8, 16.
    steps = maps.details["path"]["steps"][2]
    levels = sum(level for level in (4, 8, 16) if level <= steps)
    found = [variable.numpy().tolist() for variable in kept._variables]
    ends = 1  # the baseline; the image itself is already known
    assert found == [[0, 1], [7, 1], [levels + ends, 1], [5 + ends, 1], [2 * (3 + 2), 1]]
    assert kept.share(1) == 1.0
    kept.start(4)
    assert kept.share(4) == 0.0
    # The next call expects what this one took.
    assert [expected(0.0) for expected in kept._expected] == [points for points, _ in found]


def test_a_refined_path_is_expected_to_go_on():
    levels = [16.0, 32.0, 64.0]
    assert counts._expect_refined(levels, 0.0) == pytest.approx(16 + 0.7 * 32 + 0.49 * 64)
    assert counts._expect_refined(levels, 17.0) == pytest.approx(16 + 32 + 0.7 * 64)
    assert counts._expect_refined(levels, 50.0) == pytest.approx(16 + 32 + 64)
    assert counts._expect_refined(levels, 120.0) == 120.0


def test_compiling_does_not_count_for_the_time_left(clock):
    done = [0.0]
    with Progress("auto", 1) as call:
        call.begin()
        with call.part(1, lambda: done[0]):
            clock.now += 30  # TensorFlow optimizes the graph
            call.look()
            done[0] = 0.1
            call.look()
            assert call.left is None
            clock.now += 4
            done[0] = 0.3
            assert call.left == pytest.approx(4 * 0.7 / 0.2)


def test_a_loop_over_batches_is_left_alone_while_it_works(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_PERIOD", 0.01)
    images = synthetic.make_shapes(2, seed=0).images
    batches = tfs.saliency_map_batches(synthetic.shapes_model(), [images] * 3)
    next(batches)
    capsys.readouterr()
    assert progress._watcher._running == []
    list(batches)
    assert "3 of 3 batches" in capsys.readouterr().err


def test_a_pseudo_terminal_gets_a_bar(monkeypatch):
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        tfs.saliency_map(
            synthetic.shapes_model(), synthetic.make_shapes(2, seed=0).images, verbose=1
        )
    written = os.read(leader, 10_000).decode()
    os.close(leader)
    assert re.search(r"\r\[={24}\] 2 of 2 images, \d+ s: gradient", written)


def test_pictures_are_counted_up_to_n(capsys):
    synthetic.make_shapes(70, seed=0, verbose=2)
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "drawing: 64 of 70 pictures", "drawing: 70 of 70 pictures"
    ]  # fmt: skip
